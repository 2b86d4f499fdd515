//! What Linux gives Commonhold: memory by name, a place to sleep, proof of death.
//!
//! # What it owns
//! Everything that needs an operating system: [`Url`]s and what they name, mappings, the memory behind
//! them, futexes, the evidence that a process lives, and noticing that a process is a forked child.
//! With `commonhold-window`, it is where `unsafe` is allowed.
//!
//! # Invariants
//! 1. A name means a finished space or nothing (`file.rs`), and is taken away only while nobody comes by it
//!    (`gate.rs`).
//! 2. Memory is committed before it is touched, so a full file system is an error, not a signal
//!    (`medium.rs`); and what cannot be had is refused before any of it is taken (`room.rs`).
//! 3. `Dead` is said on proof, or when a lease has run out where no proof can be had (`witness.rs`).
//! 4. What a process has is not its forked child's: neither mappings nor descriptors nor locks
//!    (`fork.rs`).
//! 5. In memory of devices no lock is offered that the memory could not keep (`probe.rs`).
//! 6. A futex is used only where a wake reaches everybody of this kernel who can map the window, and no
//!    wake is relied on while peers of other kernels are attached (`park.rs`).
//!
//! # What it does not do
//! It gives no meaning to any byte of a window but the magic number and the probe word, and takes no
//! lock in one.
#![cfg(not(loom))]
#![cfg(target_os = "linux")]

mod bell;
mod cgroup;
mod death_word;
mod device;
mod emulation;
mod error;
mod file;
mod file_pager;
mod fork;
mod gate;
mod glance;
mod heart;
mod holder;
mod kind;
mod map;
mod medium;
mod mem;
mod name;
mod ofd;
mod own_fd;
mod park;
mod pci;
mod peek;
mod place;
mod platform;
mod poll;
mod priority;
mod probe;
mod process;
mod refusal;
mod resident;
mod rights;
mod room;
#[cfg(test)]
mod scratch;
mod shm;
mod silence;
mod spin;
mod stopped;
#[cfg(test)]
mod tests;
mod touch;
mod uffd;
mod url;
mod witness;

pub use error::{CreateError, HostError};
pub use file_pager::FilePager;
pub use fork::ForkGuard;
pub use gate::{ExclusiveGate, FileLock, SharedGate};
pub use heart::{Heart, Setup};
pub use holder::LockHolder;
pub use kind::{FileSystem, MemoryKind};
pub use map::{MappedWindow, ReadOnlyMap};
pub use mem::physical_memory;
pub use pci::{PciDevice, pci_devices};
pub use peek::Peek;
pub use place::{NewWindow, create, enter, is_blank, open, path_of, peek, replace, seize};
pub use platform::{LinuxPlatform, thread_id, unix_ms};
pub use priority::Priority;
pub use probe::{Cache, Cost, Memory};
pub use process::parent_of;
pub use refusal::DeviceError;
pub use rights::{Denied, Owners, Rights};
pub use room::{Supply, supply_in};
pub use shm::shm_directory;
pub use stopped::is_stopped;
pub use uffd::{PagedSpace, Paging, PagingError, UffdMmu, UffdObject, UffdSpace, UserfaultError};
pub use url::{PciAddress, Url, UrlError};

/// A path, for messages.
#[must_use]
pub fn shown(path: &std::path::Path) -> commonhold_layout::Shown<'_> {
    use std::os::unix::ffi::OsStrExt;
    commonhold_layout::Shown::of_bytes(path.as_os_str().as_bytes())
}

/// A random number of the kernel: for the identity of a new space.
///
/// # Errors
/// [`HostError`] of `getrandom`.
pub fn random_u128() -> Result<u128, HostError> {
    random()
        .map_err(|errno| HostError::call("getrandom", std::path::Path::new("/dev/urandom"), errno))
}

fn random() -> Result<u128, rustix::io::Errno> {
    let mut bytes = [0_u8; 16];
    let flags = rustix::rand::GetRandomFlags::empty();
    // Up to 256 bytes are given whole.
    rustix::io::retry_on_intr(|| rustix::rand::getrandom(&mut bytes, flags))?;
    Ok(u128::from_le_bytes(bytes))
}
