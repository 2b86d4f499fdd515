//! Taking an exclusive lock, of any kind, whose last owner may have died.

use std::mem::ManuallyDrop;

use commonhold_layout::{LockWord, Owner};
use commonhold_sync::{LockError as SyncError, Release, Taken};

use super::{Denied, Guard, Inconsistent, Recovered, Site, denied::BoxedLockError};
use crate::{BoxError, LockError, LockResult, RepairFailed};

/// A lock that one thread can hold alone, with the addresses of its words.
pub(crate) trait Exclusive<'a>: Copy + 'a {
    /// What a guard is made from, beside the lock: small enough for two registers.
    type Held: Copy;
    type Guard: Guard;

    /// Where it lies.
    fn site(self) -> Site<'a>;

    /// Its word now, for errors.
    fn look(self) -> LockWord;

    /// Takes it in any state, and waits until `deadline`, or for ever. `Some(0)` does not wait.
    fn take(self, deadline: Option<u64>) -> Result<(Self::Held, Taken), Denied>;

    /// The guard of a lock that this thread has just taken.
    fn guard(self, held: Self::Held) -> Self::Guard;

    /// The handle's own repair of the data, if it has one.
    fn repair(self) -> Option<Repair<'a, Self::Guard>> {
        None
    }
}

/// A repair of the data that a lock protects.
pub(crate) type Repair<'r, G> = &'r dyn Fn(&G) -> Result<(), BoxError>;

/// The error of a lock that was not taken.
#[cold]
pub(crate) fn error<'a>(lock: impl Exclusive<'a>, denied: Denied) -> LockError {
    let owner = lock.site().owner(|| lock.look());
    lock.site().error(denied, owner)
}

/// Takes a lock that is consistent, or that the handle's own repair makes consistent.
#[cold]
pub(crate) fn whole<'a, L: Exclusive<'a>>(
    lock: L,
    deadline: Option<u64>,
) -> Result<L::Held, BoxedLockError> {
    match lock.take(deadline) {
        Ok((held, Taken::Clean)) => Ok(held),
        Ok((held, Taken::OwnerDied(who))) => settled(lock, held, who).map_err(Box::new),
        Err(denied) => Err(Box::new(error(lock, denied))),
    }
}

/// The same without waiting: `None` if a living owner has it.
#[cold]
pub(crate) fn whole_at_once<'a, L: Exclusive<'a>>(lock: L) -> LockResult<Option<L::Guard>> {
    match lock.take(Some(0)) {
        Ok((held, Taken::Clean)) => Ok(Some(lock.guard(held))),
        Ok((held, Taken::OwnerDied(who))) => {
            settled(lock, held, who).map(|held| Some(lock.guard(held)))
        }
        Err(Denied::Sync(SyncError::TimedOut)) => Ok(None),
        Err(denied) => Err(error(lock, denied)),
    }
}

/// Repairs the data of a lock that was taken inconsistent, or frees the lock as it was found.
pub(crate) fn settled<'a, L: Exclusive<'a>>(
    lock: L,
    held: L::Held,
    who: Option<Owner>,
) -> LockResult<L::Held> {
    match lock.repair() {
        Some(repair) => repaired(lock, held, who, repair),
        None => {
            lock.guard(held).free(Release::AsFound(who))?;
            Err(LockError::OwnerDied(lock.site().place(who)))
        }
    }
}

/// Calls `repair` on a lock that was taken inconsistent.
fn repaired<'a, L: Exclusive<'a>>(
    lock: L,
    held: L::Held,
    who: Option<Owner>,
    repair: impl FnOnce(&L::Guard) -> Result<(), BoxError>,
) -> LockResult<L::Held> {
    let guard = lock.guard(held);
    match repair(&guard) {
        Ok(()) => {
            guard.set_consistent()?;
            // The lock stays held: the caller makes another guard.
            let _ = ManuallyDrop::new(guard);
            Ok(held)
        }
        Err(error) => {
            guard.free(Release::AsFound(who))?;
            let place = *lock.site().place(who);
            Err(LockError::RepairFailed(Box::new(RepairFailed { place, error })))
        }
    }
}

/// Takes a lock in any state.
pub(crate) fn recovered<'a, L: Exclusive<'a>>(
    lock: L,
    deadline: Option<u64>,
) -> LockResult<Recovered<L::Guard>> {
    match lock.take(deadline) {
        Ok((held, Taken::Clean)) => Ok(Recovered::Consistent(lock.guard(held))),
        Ok((held, Taken::OwnerDied(who))) => {
            let guard = lock.guard(held);
            Ok(Recovered::Inconsistent(Inconsistent::new(guard, lock.site().place(who))))
        }
        Err(denied) => Err(error(lock, denied)),
    }
}

/// Takes a lock. If it is inconsistent, `repair` makes the data consistent first.
pub(crate) fn repairing<'a, L: Exclusive<'a>>(
    lock: L,
    deadline: Option<u64>,
    repair: impl FnOnce(&L::Guard) -> Result<(), BoxError>,
) -> LockResult<L::Guard> {
    let held = match lock.take(deadline) {
        Ok((held, Taken::Clean)) => held,
        Ok((held, Taken::OwnerDied(who))) => repaired(lock, held, who, repair)?,
        Err(denied) => return Err(error(lock, denied)),
    };
    Ok(lock.guard(held))
}
