//! What all exclusive locks do alike: what becomes of one whose last owner died.

use std::mem::ManuallyDrop;

use commonhold_layout::{LockWord, Owner};
use commonhold_sync::{LockError as SyncError, Release, Taken};

use super::{Denied, Guard, Inconsistent, Recovered, Site, denied::BoxedLockError};
use crate::{BoxError, LockError, LockResult, RepairFailed};

/// A lock that one can have alone, with its words found.
pub(crate) trait Exclusive<'a>: Copy + 'a {
    /// What a guard is made of besides: small.
    type Held: Copy;
    type Guard: Guard;

    /// Where it lies.
    fn site(self) -> Site<'a>;

    /// Its word, for what is to be said of it.
    fn look(self) -> LockWord;

    /// Takes it, in whatever state it is, waiting until `deadline`, or for ever; `Some(0)` does not wait.
    fn take(self, deadline: Option<u64>) -> Result<(Self::Held, Taken), Denied>;

    /// The guard of what this thread has taken.
    fn guard(self, held: Self::Held) -> Self::Guard;

    /// What repairs what it protects, if that is known.
    fn repair(self) -> Option<Repair<'a, Self::Guard>> {
        None
    }
}

/// What repairs what a lock protects.
pub(crate) type Repair<'r, G> = &'r dyn Fn(&G) -> Result<(), BoxError>;

/// What is to be said of a lock that was not taken.
#[cold]
pub(crate) fn error<'a>(lock: impl Exclusive<'a>, denied: Denied) -> LockError {
    let owner = lock.site().owner(|| lock.look());
    lock.site().error(denied, owner)
}

/// Takes a lock whose last owner has left it whole, or that its own repair makes so.
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

/// The same, without waiting: `None` if somebody living has it.
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

/// Makes whole what was taken inconsistent, or gives it back as it was found.
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

/// Has `repair` make whole what was taken inconsistent.
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
            // What it holds is handed over.
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

/// Takes a lock in whatever state it is.
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

/// Takes a lock, and has `repair` make whole what its last owner left half changed.
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
