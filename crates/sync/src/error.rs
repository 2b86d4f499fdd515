//! How taking a lock can end.

use core::fmt;

use commonhold_layout::{LockFlags, Owner, ShareError};

/// How a lock was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Taken {
    /// What it protects is as its last owner left it.
    Clean,
    /// An earlier owner died or left in the middle of a change: this one, if it is known.
    OwnerDied(Option<Owner>),
}

impl Taken {
    /// What the next owner is told by a word with these flags, which `left_by` left.
    pub(crate) const fn told_by(flags: LockFlags, left_by: Option<Owner>) -> Self {
        if flags.contains(LockFlags::INCONSISTENT) { Self::OwnerDied(left_by) } else { Self::Clean }
    }

    /// Whether an earlier owner died or left in the middle of a change.
    #[inline]
    #[must_use]
    pub const fn is_owner_died(self) -> bool {
        matches!(self, Self::OwnerDied(_))
    }
}

/// Why a lock was not taken, or not freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockError {
    /// It was not free before the deadline.
    TimedOut,
    /// A writer died, or gave up, in the middle of a change: only another writer can make the data whole.
    WriterDied,
    /// An owner gave it up after an earlier owner had died.
    Unrecoverable,
    /// The calling thread owns it already.
    Deadlock,
    /// The calling thread does not own it, or its peer has been declared dead: nothing was changed.
    Fenced,
    /// The peer holds as many read locks of it as can be counted.
    TooManyReaders,
    /// No permit of the semaphore has been spent, so none can be given.
    NothingSpent,
    /// Living participants have every slot of the barrier.
    BarrierFull,
    /// A participant of the barrier died, or gave up, before it had arrived.
    ParticipantDied,
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TimedOut => "the lock was not free in time",
            Self::WriterDied => {
                "its writer died in the middle of a change: a writer must repair it"
            }
            Self::Unrecoverable => "the lock was given up after its owner died: re-initialise it",
            Self::Deadlock => "this thread owns the lock already",
            Self::Fenced => "this thread does not own the lock: its peer was declared dead",
            Self::TooManyReaders => "this peer holds 65535 read locks of it already",
            Self::NothingSpent => "no permit has been spent, so none can be given",
            Self::BarrierFull => "living participants have every slot of the barrier",
            Self::ParticipantDied => {
                "a participant died before it had arrived: have another join to replace it"
            }
        })
    }
}

impl core::error::Error for LockError {}

impl From<ShareError> for LockError {
    fn from(error: ShareError) -> Self {
        match error {
            ShareError::TooMany => Self::TooManyReaders,
            _ => Self::Fenced,
        }
    }
}
