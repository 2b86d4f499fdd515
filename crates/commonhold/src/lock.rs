//! The untyped locks, with guards. Those that have their data with them are in `record`.
//!
//! # What it owns
//! Who may free what: a guard belongs to the thread that took it. If it was handed over by `OwnerDied`,
//! it has to be marked consistent or left; dropping it otherwise makes the lock unrecoverable. A panic
//! while a guard is held leaves its lock inconsistent, since the change may be half done.
//!
//! # Invariants
//! 1. What is usual stands inline and is small: a few loads and the locked instructions. Everything
//!    else is cold, and a guard holds no more than it needs to be freed the usual way.
//! 2. In a forked child a guard frees nothing: it is the parent's.
//! 3. A guard stays in its thread, and does not outlive the mapping that its lock lies in. Neither
//!    compiles otherwise; see `misuse`.

mod counted;
mod event;
pub(crate) mod held;
#[cfg(doctest)]
mod misuse;
mod raw;
pub(crate) mod reading;
mod region;

pub use event::Event;
pub use raw::{RawMutex, RawMutexGuard};
pub use region::{LockGuard, ReadGuard, RegionLock};

use commonhold_sync::{LockError as SyncError, Taken};

use crate::{LockError, RegionError};

#[cold]
pub(crate) fn refused<G>(error: SyncError) -> LockError<G> {
    match error {
        SyncError::TimedOut => LockError::TimedOut,
        SyncError::Unrecoverable => LockError::Unrecoverable,
        SyncError::Deadlock => LockError::Deadlock,
        SyncError::TooManyReaders => RegionError::TooManyReaders.into(),
        _ => RegionError::Fenced.into(),
    }
}

pub(crate) fn graded<G>(taken: Taken, guard: G) -> Result<G, LockError<G>> {
    match taken {
        Taken::Clean => Ok(guard),
        Taken::OwnerDied => Err(LockError::OwnerDied(guard)),
    }
}
