//! What an error means for its caller.

/// What an error means for a caller that must choose what to do next.
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
    /// The request makes no sense: a malformed URL, name or size.
    Invalid,
    /// There is no such space or region.
    NotFound,
    /// The space or region exists already, or a region of that name is still being destroyed.
    Exists,
    /// It is in use: the region is mapped, or peers are attached to the space.
    InUse,
    /// It took longer than it was allowed to.
    TimedOut,
    /// The window, one of its tables, or the memory behind it is full.
    NoMemory,
    /// An owner of the lock died, and the data have not been repaired.
    OwnerDied,
    /// The memory is not a space, or the space is damaged or of another version.
    NotASpace,
    /// Something else.
    Other,
}
