//! What Linux gives Commonhold: memory by name, a place to sleep, proof of death.
//!
//! # What it owns
//! Everything that needs an operating system, in four folders: `memory` ([`Url`]s and what they name, mappings, the memory
//! behind them), `liveness` (the evidence that a process lives, and the words by which the kernel tells of a thread's
//! death), `wait` (futexes, and looking again), `error`. At the root is what all of them use: `platform` puts them
//! together, `fork` notices that a process is a forked child, `own_fd` keeps descriptors from it, `ofd_lock` locks bytes
//! of files. With `commonhold-window` and `commonhold-uffd`, it is where `unsafe` is allowed.
//!
//! # Invariants
//! 1. A name means a finished space or nothing (`memory/file.rs`), and is taken away only while nobody comes by it
//!    (`memory/gate.rs`).
//! 2. Memory is committed before it is touched, so a full file system is an error, not a signal
//!    (`memory/fallocate.rs`); and what cannot be had is refused before any of it is taken (`memory/room.rs`).
//! 3. `Dead` is said on proof, or when a lease has run out where no proof can be had (`liveness/witness.rs`).
//! 4. What a process has is not its forked child's: neither mappings nor descriptors nor locks
//!    (`fork.rs`).
//! 5. In memory of devices no lock is offered that the memory could not keep (`memory/probe.rs`).
//! 6. A futex is used only where a wake reaches everybody of this kernel who can map the window, and no
//!    wake is relied on while peers of other kernels are attached (`wait/park.rs`).
//!
//! # What it does not do
//! It gives no meaning to any byte of a window but the magic number, the probe word and the death futex, the word by which the
//! kernel tells of a process's death; and it takes no lock in one. It has no part in the memory manager: `commonhold-uffd` is its machine.
#![cfg(not(loom))]
#![cfg(target_os = "linux")]

mod error;
mod fork;
mod liveness;
mod memory;
mod ofd_lock;
mod own_fd;
mod platform;
mod random;
mod wait;

pub use error::{CreateError, DeviceError, HostError, is_full};
pub use fork::ForkGuard;
pub use liveness::{
    HeartbeatThread, LockHolder, Priority, Setup, is_stopped, parent_of, thread_id,
};
pub use memory::{
    Cache, Cost, Denied, ExclusiveGate, FileLock, FileSystem, MappedWindow, Memory, MemoryKind,
    NewWindow, Owners, PciAddress, PciDevice, Peek, ReadOnlyMap, Rights, SharedGate, Supply, Url,
    UrlError, create, enter, is_blank, open, path_of, pci_devices, peek, physical_memory, replace,
    seize, shm_directory, supply_in,
};
pub use own_fd::OwnFd;
pub use platform::LinuxPlatform;
use random::random;
pub use random::random_u128;
pub use wait::unix_ms;

/// A path, for messages.
#[must_use]
pub fn shown(path: &std::path::Path) -> commonhold_layout::Shown<'_> {
    use std::os::unix::ffi::OsStrExt;
    commonhold_layout::Shown::of_bytes(path.as_os_str().as_bytes())
}

#[cfg(test)]
use tests::scratch;

/// Tests that need processes of their own, deaths, forks and limits; and what the tests of the files share.
#[cfg(test)]
mod tests {
    mod death;
    mod fork;
    mod medium;
    pub(crate) mod scratch;
    mod scripted_process;
    // With musl there is no list by which the kernel could be told of a word (`death_word.rs`).
    #[cfg(not(target_env = "musl"))]
    mod words;
}
