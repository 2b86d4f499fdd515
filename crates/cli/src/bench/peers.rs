//! What ours is measured against: pthread locks and POSIX shared memory, from `commonhold-host`.
//!
//! Nothing else in this crate knows where they come from.

use std::io;

use commonhold_host::pthread::{self, OnDeath, PthreadMutex, PthreadRwLock};

/// A process-shared robust mutex.
#[derive(Debug)]
pub(super) struct RobustMutex(PthreadMutex);

impl RobustMutex {
    pub(super) fn new() -> io::Result<Self> {
        PthreadMutex::new(OnDeath::Robust).map(Self)
    }

    /// Locks and unlocks.
    #[inline]
    pub(super) fn lock_unlock(&self) -> io::Result<()> {
        self.0.lock().map(drop)
    }
}

/// A process-shared reader/writer lock.
#[derive(Debug)]
pub(super) struct RwLock(PthreadRwLock);

impl RwLock {
    pub(super) fn new() -> io::Result<Self> {
        PthreadRwLock::new().map(Self)
    }

    /// Locks for reading, and unlocks.
    #[inline]
    pub(super) fn read_unlock(&self) -> io::Result<()> {
        self.0.read().map(drop)
    }

    /// Locks for writing, and unlocks.
    #[inline]
    pub(super) fn write_unlock(&self) -> io::Result<()> {
        self.0.write().map(drop)
    }
}

/// `shm_open`, `ftruncate`, `mmap`, touch, `munmap`, `shm_unlink` of an object without a slash.
pub(super) fn shm_cycle(name: &str, bytes: usize) -> io::Result<()> {
    pthread::shm_cycle(name, bytes)
}
