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
//!    What makes a guard is inlined always: out of a call it would come in memory, and be copied from there
//!    by wider loads than the stores that just wrote it, which stalls the processor for as long as the lock
//!    takes.
//! 2. In a forked child a guard frees nothing: it is the parent's.
//! 3. A guard stays in its thread, and does not outlive the mapping that its lock lies in. Neither
//!    compiles otherwise; see `misuse`.

pub(crate) mod counted;
mod event;
pub(crate) mod held;
#[cfg(doctest)]
mod misuse;
mod raw;
pub(crate) mod reading;
mod region;
pub(crate) mod upgradable;

pub use event::Event;
pub use raw::{RawMutex, RawMutexGuard};
pub use region::{LockGuard, ReadGuard, RegionLock};
pub use upgradable::{UpgradableGuard, UpgradedGuard};

use std::convert::Infallible;

use commonhold_sync::{LockError as SyncError, Taken};

use crate::{LockError, RegionError};

#[cold]
pub(crate) fn refused<G>(error: SyncError) -> LockError<G> {
    match error {
        SyncError::TimedOut => LockError::TimedOut,
        SyncError::Unrecoverable => LockError::Unrecoverable,
        SyncError::Deadlock => LockError::Deadlock,
        SyncError::WriterDied => LockError::WriterDied,
        SyncError::TooManyReaders => RegionError::TooManyReaders.into(),
        _ => RegionError::Fenced.into(),
    }
}

/// The same, boxed.
#[cold]
pub(crate) fn refusal(error: SyncError) -> Refusal {
    Refusal::new(refused(error))
}

impl From<RegionError> for Refusal {
    fn from(error: RegionError) -> Self {
        Self::new(error.into())
    }
}

/// Why a lock was not taken, where the guard that an owner's death hands over is still to be made.
/// Boxed, so that what a cold path returns fits two registers; what it returns in memory would have to be
/// merged there with what the usual way has found.
pub(crate) type Refusal = Box<LockError<Infallible>>;

/// What came of asking for a lock, with the guard made of it.
#[inline(always)]
pub(crate) fn handed_over<T, G>(
    asked: Result<(T, Taken), Refusal>,
    guard: impl FnOnce(T) -> G,
) -> Result<G, LockError<G>> {
    match asked {
        Ok((held, Taken::Clean)) => Ok(guard(held)),
        Ok((held, Taken::OwnerDied)) => Err(LockError::OwnerDied(guard(held))),
        Err(refusal) => Err(without_guard(*refusal)),
    }
}

#[cold]
fn without_guard<G>(refusal: LockError<Infallible>) -> LockError<G> {
    match refusal {
        LockError::OwnerDied(never) => match never {},
        LockError::TimedOut => LockError::TimedOut,
        LockError::Unrecoverable => LockError::Unrecoverable,
        LockError::Deadlock => LockError::Deadlock,
        LockError::WriterDied => LockError::WriterDied,
        LockError::Region(error) => LockError::Region(error),
    }
}

pub(crate) fn graded<G>(taken: Taken, guard: G) -> Result<G, LockError<G>> {
    match taken {
        Taken::Clean => Ok(guard),
        Taken::OwnerDied => Err(LockError::OwnerDied(guard)),
    }
}
