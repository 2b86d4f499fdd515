//! What ours is measured against: pthread locks and POSIX shared memory.
//!
//! TO WIRE: these are stubs without a peer (`None`: the table shows `-`). They become thin calls to
//! `commonhold_host::pthread` (feature `bench-peers`): `RobustMutex::new()?.lock_unlock()`,
//! `RwLock::new()?.read_unlock()` and `shm_cycle(name, bytes)`. Nothing else in this crate changes.

use std::io;

/// A process-shared robust mutex.
#[derive(Debug)]
pub(super) struct RobustMutex(Never);

/// A process-shared reader/writer lock.
#[derive(Debug)]
pub(super) struct RwLock(Never);

/// Has no values: there is no peer yet.
#[derive(Debug)]
enum Never {}

impl RobustMutex {
    /// `None` if this build has no peers.
    #[expect(clippy::unnecessary_wraps, reason = "the wired one can fail")]
    pub(super) const fn new() -> io::Result<Option<Self>> {
        Ok(None)
    }

    /// Locks and unlocks.
    pub(super) const fn lock_unlock(&self) -> io::Result<()> {
        match self.0 {}
    }
}

impl RwLock {
    /// `None` if this build has no peers.
    #[expect(clippy::unnecessary_wraps, reason = "the wired one can fail")]
    pub(super) const fn new() -> io::Result<Option<Self>> {
        Ok(None)
    }

    /// Locks for reading, and unlocks.
    pub(super) const fn read_unlock(&self) -> io::Result<()> {
        match self.0 {}
    }
}

/// `shm_open`, `ftruncate`, `mmap`, touch, `munmap`, `shm_unlink`. `None` if this build has no peers.
pub(super) const fn shm_cycle(_name: &str, _bytes: usize) -> Option<io::Result<()>> {
    None
}
