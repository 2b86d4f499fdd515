//! The locks without data, their guards, and the code that all kinds of locks share. Locks with data are in
//! `record`.
//!
//! # What it owns
//! The right to free a lock: a guard belongs to the thread that took it. A panic while a guard is held leaves its
//! lock inconsistent, because the change may be half done.
//!
//! # Invariants
//! 1. If the last owner of a lock died, or left in the middle of a change, callers get the lock only after a
//!    repair, or as [`Inconsistent`] if they ask for that. For other callers the lock is freed again as it was
//!    found, and still names the dead owner. Only giving it up makes a lock unrecoverable.
//! 2. The fast path is inline and small: a few loads and the locked instructions. Everything else is cold, and
//!    returns in two registers. A result in memory would have to be merged there with that of the fast path, and
//!    then copied by loads that are wider than the stores that just wrote it. Such loads stall the processor for as
//!    long as the whole lock takes.
//! 3. In a forked child a guard frees nothing: the lock is the parent's.
//! 4. A guard stays in its thread, and borrows the handle of its lock, which keeps the region mapped. Programs that
//!    break either rule do not compile; see `misuse`.

pub(crate) mod change;
pub(crate) mod counted;
pub(crate) mod denied;
mod event;
pub(crate) mod held;
mod inconsistent;
#[cfg(doctest)]
mod misuse;
mod raw;
pub(crate) mod reading;
mod region;
pub(crate) mod take;
pub(crate) mod upgradable;

pub(crate) use denied::{Denied, Site};
pub use event::Event;
pub(crate) use inconsistent::Guard;
pub use inconsistent::{Inconsistent, Recovered, Repairable};
pub(crate) use raw::RawWords;
pub use raw::{RawMutex, RawMutexGuard};
pub(crate) use region::RegionWords;
pub use region::{LockGuard, ReadGuard, RegionLock, UpgradableGuard, UpgradedGuard};
