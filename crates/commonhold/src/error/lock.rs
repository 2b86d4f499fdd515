//! Why a lock was not taken.

use std::fmt;

use super::{ErrorKind, RegionError};

/// Why a lock was not taken as asked. `G` is the guard that an owner's death hands over.
#[non_exhaustive]
pub enum LockError<G> {
    /// The lock is held now, but its last owner died, or gave up, in the middle of a change. Repair
    /// what it protects and call `mark_consistent`, or pass it on with `leave`.
    OwnerDied(G),
    /// Of a sequence lock that is read: a writer died, or gave up, in the middle of a change, and no writer
    /// has made the data whole since.
    WriterDied,
    /// It was not free before the deadline.
    TimedOut,
    /// An owner that was told `OwnerDied` dropped its guard without repair: re-initialise the lock.
    Unrecoverable,
    /// This thread holds it already.
    Deadlock,
    /// Anything else.
    Region(RegionError),
}

impl<G> LockError<G> {
    /// What it means for the caller.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::OwnerDied(_) | Self::WriterDied | Self::Unrecoverable => ErrorKind::OwnerDied,
            Self::TimedOut => ErrorKind::TimedOut,
            Self::Deadlock => ErrorKind::InUse,
            Self::Region(error) => error.kind(),
        }
    }
}

impl<G> LockError<G> {
    /// The same with another guard, made of the one that is handed over.
    #[inline]
    pub fn map<H>(self, guard: impl FnOnce(G) -> H) -> LockError<H> {
        match self {
            Self::OwnerDied(held) => LockError::OwnerDied(guard(held)),
            Self::WriterDied => LockError::WriterDied,
            Self::TimedOut => LockError::TimedOut,
            Self::Unrecoverable => LockError::Unrecoverable,
            Self::Deadlock => LockError::Deadlock,
            Self::Region(error) => LockError::Region(error),
        }
    }
}

impl<G> fmt::Display for LockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnerDied(_) => {
                write!(
                    f,
                    "the lock's owner died; what it protects must be repaired before further use"
                )
            }
            Self::WriterDied => write!(
                f,
                "a writer died in the middle of a change; another writer must make the data whole"
            ),
            Self::TimedOut => write!(f, "the lock was not free in time"),
            Self::Unrecoverable => {
                write!(
                    f,
                    "the lock was given up after its owner had died; it must be re-initialised"
                )
            }
            Self::Deadlock => write!(f, "this thread holds the lock already"),
            Self::Region(error) => error.fmt(f),
        }
    }
}

impl<G> fmt::Debug for LockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnerDied(_) => f.write_str("OwnerDied(..)"),
            Self::WriterDied => f.write_str("WriterDied"),
            Self::TimedOut => f.write_str("TimedOut"),
            Self::Unrecoverable => f.write_str("Unrecoverable"),
            Self::Deadlock => f.write_str("Deadlock"),
            Self::Region(error) => f.debug_tuple("Region").field(error).finish(),
        }
    }
}

impl<G> std::error::Error for LockError<G> {}

impl<G> From<RegionError> for LockError<G> {
    fn from(error: RegionError) -> Self {
        Self::Region(error)
    }
}
