//! What Linux gives Commonhold: memory by name, a place to sleep, proof of death.
//!
//! # What it owns
//! Everything that needs an operating system, in four folders: `memory` ([`Url`]s and what they name, mappings, the
//! memory behind them), `liveness` (the evidence that a process lives, and the words by which the kernel tells of a
//! thread's death), `wait` (futexes, and looking again), `error`. At the root is what all of them use: `platform`
//! puts them together, `fork` notices that a process is a forked child, `own_fd` keeps descriptors from it,
//! `ofd_lock` locks bytes of files. With `commonhold-window` and `commonhold-uffd`, it is where `unsafe` is allowed.
//!
//! # Invariants
//! 1. A name means a finished space or nothing (`memory/file.rs`), and is removed only while no process opens the
//!    space by it (`memory/gate.rs`).
//! 2. Memory is committed before it is touched, so a full file system is an error, not a signal
//!    (`memory/fallocate.rs`). A request for more than there is fails before any memory is taken (`memory/room.rs`).
//! 3. The verdict `Dead` needs proof; where no proof is possible, it needs a lease that has run out
//!    (`liveness/witness.rs`).
//! 4. A forked child inherits nothing of its parent's: no mappings, no descriptors, no locks (`fork.rs`).
//! 5. In memory of devices no lock is offered that the memory could not keep (`memory/probe.rs`).
//! 6. A futex is used only where a wake reaches every process of this kernel that can map the window, and no
//!    wake is relied on while peers of other kernels are attached (`wait/park.rs`).
//!
//! # What it does not do
//! It takes no lock in a window, and gives a meaning to few of its words: the magic number, the probe word, and the
//! two kinds of word by which the kernel tells of a death. The kernel marks the *death futex* of a peer when the
//! heartbeat thread of its process ends, and the *life word* of a thread slot when its thread ends
//! (`liveness/robust_list.rs`). This crate has no part in the memory manager: the manager's machine is
//! `commonhold-uffd`.
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
    HeartbeatThread, LockHolder, Priority, Setup, SignalMask, is_stopped, parent_of, thread_id,
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

/// Tests that need processes of their own, deaths, forks and limits; and what the unit tests share.
#[cfg(test)]
mod tests {
    mod death;
    mod fork;
    mod medium;
    pub(crate) mod scratch;
    mod scripted_process;
    // musl registers no robust list, so the kernel marks no life word (`life_word.rs`).
    #[cfg(not(target_env = "musl"))]
    mod words;
}
