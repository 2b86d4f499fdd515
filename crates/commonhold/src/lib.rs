//! Named shared memory for processes, containers and virtual machines, with locks that survive
//! crashes.
//!
//! A [`Space`] is one piece of shared memory. [Regions](Space::create) live in it under names; every
//! region carries a lock of its own, and may hold more. Whoever dies, at whatever instant, leaves
//! nothing locked, leaked or half made.
//!
//! ```
//! use commonhold::{LockError, Space};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let url = format!("shm:doc-{}", std::process::id());
//! let space = Space::open_or_format(&url)?;
//! let counter = space.map_or_create("counter", 8)?;
//!
//! let guard = match counter.lock() {
//!     Ok(guard) => guard,
//!     Err(LockError::OwnerDied(guard)) => {
//!         // Its last owner was killed in the middle of a change. Repair the data, then say so.
//!         counter.set(0, &0_u64)?;
//!         guard.mark_consistent()?;
//!         guard
//!     }
//!     Err(error) => return Err(error.to_string().into()),
//! };
//! let value: u64 = counter.get(0)?;
//! counter.set(0, &(value + 1))?;
//! drop(guard);
//! # drop(counter);
//! # drop(space);
//! # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
//! # Ok(())
//! # }
//! ```
//!
//! A space is a trust domain: whoever may write it may write all of it, and permissions are those of
//! its file. What a neighbour writes can cost an error, but neither a crash nor an access outside the
//! mapping.
#![forbid(unsafe_code)]

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

mod attachment;
mod backing;
mod busy;
mod device;
mod error;
mod graph;
mod info;
mod kernels;
mod lock;
mod mapping;
mod open;
mod options;
mod record;
mod snapshot;
mod space;
mod threads;
mod unused;

pub use busy::DirectoryHolder;
pub use commonhold_host::{
    DeviceError, LockHolder, PciAddress, PciDevice, Supply, pci_devices, physical_memory,
    shm_directory, supply_in,
};
pub use commonhold_layout::{Damage, FormatError, Name, NameError, RecordKind, RecordTag};
pub use commonhold_space::Room;
pub use device::memory_of;
pub use error::{BarrierError, ErrorKind, LockError, OpenError, RegionError};
pub use graph::{Cycle, ProcessWait, Wait, WaitGraph, WaitKind, WaitLock, WaitThread};
pub use info::{
    Holder, LockInfo, LockKind, MemoryInfo, PeerInfo, PeerInfoBrief, PeerLife, Reaped, RegionInfo,
    RegionKey, SpaceInfo, State,
};
pub use lock::{
    Event, LockGuard, RawMutex, RawMutexGuard, ReadGuard, RegionLock, UpgradableGuard,
    UpgradedGuard,
};
pub use mapping::Mapping;
pub use options::{Access, CreateOptions, Destroy, FormatOptions, Removal};
pub use record::{
    Barrier, Condvar, Field, Mutex, MutexGuard, Once, OnceGuard, Party, Permit, Plain, Record,
    RwLock, RwLockReadGuard, RwLockUpgradableGuard, RwLockUpgradedGuard, RwLockWriteGuard,
    Semaphore, SeqLock, SeqLockGuard, Turn, Waited,
};
pub use space::{Region, Space};
/// The traits of plain types, for [`Mapping::get`] and [`Mapping::set`] of types of your own.
pub use zerocopy;
