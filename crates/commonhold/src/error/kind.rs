//! What an error means for its caller.

/// What an error means for a caller who must choose what to do next.
///
/// # Examples
/// ```
/// use commonhold::{ErrorKind, LockError};
///
/// fn exit_status(error: &LockError) -> u8 {
///     match error.kind() {
///         ErrorKind::TimedOut => 6,
///         ErrorKind::OwnerDied => 8, // to be repaired before anybody goes on
///         _ => 1,
///     }
/// }
/// assert_eq!(exit_status(&LockError::Fenced), 1);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What was asked for makes no sense: a malformed URL, name or size.
    Invalid,
    /// There is no such space or region.
    NotFound,
    /// There is one already, or one of that name is still being destroyed.
    Exists,
    /// Somebody uses it: it is mapped, or peers are attached.
    InUse,
    /// It took longer than it was allowed to.
    TimedOut,
    /// The window, one of its tables, or the medium is full.
    NoMemory,
    /// The lock's owner died, and what it protects has not been repaired.
    OwnerDied,
    /// It is not a space, it is damaged, or of another version.
    NotASpace,
    /// Something else.
    Other,
}
