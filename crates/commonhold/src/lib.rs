//! Named shared memory for processes, containers and virtual machines, with locks that survive
//! crashes.
//!
//! A [`Space`] is one piece of shared memory. [Regions](Space::create) live in it under names; every region carries
//! a lock of its own, and may hold more. A process can die at any instant: nothing stays locked, leaked or half
//! made.
//!
//! ```
//! use commonhold::{Mutex, Space};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let url = format!("shm:doc-{}", std::process::id());
//! let space = Space::open_or_format(&url)?;
//! let pair = space.record::<Mutex<[u64; 2]>>("pair")?.repaired_by(|pair| {
//!     // The last owner was killed between the two writes: make both numbers equal again.
//!     pair.at(1)?.set(pair.at(0)?.get());
//!     Ok(())
//! });
//! let guard = pair.lock()?;
//! guard.at(0)?.with_mut(|number| *number += 1);
//! guard.at(1)?.with_mut(|number| *number += 1);
//! # drop(guard);
//! # drop(pair);
//! # drop(space);
//! # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
//! # Ok(())
//! # }
//! ```
//!
//! # Deaths
//! If an owner dies while it holds a lock, the lock becomes free and *inconsistent*: what it protects may be half
//! changed. The next thread that takes it gets [`LockError::OwnerDied`], and so does every later one, until one of
//! them repairs the data. So `lock()?` is always right: it never goes on over half-changed data. A program can say
//! once how to repair ([`Mutex::repaired_by`]), or say it where it takes the lock ([`Mutex::lock_repairing`]), or
//! look for itself ([`Mutex::lock_recover`]). A panic leaves the lock inconsistent as well, and so does
//! [`leave_inconsistent`](MutexGuard::leave_inconsistent). A `?` that merely drops the guard says that all is well.
//!
//! A space is a trust domain: a process that may write it may write all of it, and its permissions are those of its
//! file. What a neighbour writes can cause an error, but neither a crash nor an access outside the mapping.
#![forbid(unsafe_code)]

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

mod attachment;
mod backing;
mod busy;
mod data;
mod error;
mod graph;
mod info;
mod kernels;
mod lock;
mod mapping;
mod open;
mod options;
mod record;
mod region;
mod snapshot;
mod space;
mod threads;

pub use commonhold_host::{
    Denied, DeviceError, LockHolder, Owners, PciAddress, PciDevice, Rights, Supply, pci_devices,
    physical_memory, shm_directory, supply_in,
};
pub use commonhold_layout::{
    Damage, FormatError, Name, NameError, RecordKind, RecordTag, Shown, Visible, is_hidden,
};
pub use commonhold_space::Room;
pub use commonhold_window::Door;
pub use data::{Cursor, Part, Plain, Reading, Slice, Value, Writing};
pub use error::{
    BoxError, DirectoryHolder, ErrorKind, LockError, LockPlace, LockResult, OpenError, OwnerInfo,
    RegionError, RepairFailed,
};
pub use graph::{Cycle, ProcessWait, Wait, WaitGraph, WaitKind, WaitLock, WaitThread};
pub use info::{
    Holder, LockInfo, LockKind, LockSurvey, MemoryInfo, PeerInfo, PeerInfoBrief, PeerLife, Reaped,
    RegionInfo, RegionKey, SpaceInfo, State, Unsearched,
};
pub use lock::{
    Event, Inconsistent, LockGuard, RawMutex, RawMutexGuard, ReadGuard, Recovered, RegionLock,
    Repairable, UpgradableGuard, UpgradedGuard,
};
pub use mapping::Mapping;
pub use open::memory_of;
pub use options::{Access, CreateOptions, Destroy, FormatOptions, OpenOptions, Removal};
pub use record::{
    Barrier, Condvar, Field, Mutex, MutexGuard, OnceLock, OnceLockGuard, Participant, Permit,
    Record, Records, RwLock, RwLockReadGuard, RwLockUpgradableGuard, RwLockUpgradedGuard,
    RwLockWriteGuard, Semaphore, SeqLock, SeqLockGuard, Turn, Waited,
};
pub use space::{Region, Space};
/// The traits of plain types, for [`Mapping::get`] and [`Mapping::set`] of types of your own.
pub use zerocopy;
