//! Locks: the untyped ones, with their guards, and what all kinds share. Those that have their data with them
//! are in `record`.
//!
//! # What it owns
//! Who may free what: a guard belongs to the thread that took it. A panic while a guard is held leaves its lock
//! inconsistent, since the change may be half done.
//!
//! # Invariants
//! 1. A lock whose last owner died, or left in the middle of a change, is handed out as
//!    [`Inconsistent`] only, to who asked for that, or after a repair. Whoever asked for the lock alone gives it back
//!    as it was found, with the name of the one that died; only giving it up makes it unrecoverable.
//! 2. What is usual stands inline and is small: a few loads and the locked instructions. Everything
//!    else is cold, and comes back in two registers: what comes in memory would have to be merged there with what the
//!    usual way has found, and be copied by wider loads than the stores that just wrote it, which stalls the
//!    processor for as long as the lock takes.
//! 3. In a forked child a guard frees nothing: it is the parent's.
//! 4. A guard stays in its thread, and borrows the handle that it was taken by, which keeps the region mapped.
//!    Neither compiles otherwise; see `misuse`.

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
pub use region::{LockGuard, ReadGuard, RegionLock};
pub use upgradable::{UpgradableGuard, UpgradedGuard};
