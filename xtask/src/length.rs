//! How long a run of the test suite may take.

/// How much of the test suite to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// Everything except virtual machines and the long runs of the release program.
    Quick,
    /// Everything.
    Full,
}
