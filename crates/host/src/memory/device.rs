//! Windows without a file system behind them: memory of a PCI device, or a range of physical memory.
//!
//! # What it owns
//! [`Device`]: the open device of a window, and the offset of the window in it.
//!
//! # Invariants
//! 1. The memory is always there, so a commit changes nothing. A release zeroes the bytes, since nothing else would.
//! 2. In a forked child it is not mapped, and nothing is written.
//!
//! # What it does not do
//! It does not find devices (`pci.rs`, `physical.rs`) or map them (`mapped_window.rs`).

use std::{
    os::fd::{BorrowedFd, OwnedFd},
    path::PathBuf,
};

use commonhold_layout::Extent;
use commonhold_space::BackingMemoryError;
use commonhold_window::Window;
use rustix::{
    fs::{self, Mode, OFlags},
    io::{Errno, retry_on_intr},
};

use super::kind::MemoryKind;
use crate::{
    error::{DeviceError, HostError},
    fork::ForkGuard,
    own_fd::OwnFd,
};

/// The part of a device that is a window.
#[derive(Debug)]
pub(crate) struct DeviceRange {
    /// The file to map.
    pub(crate) path: PathBuf,
    /// The offset of the window in it.
    pub(crate) start: u64,
    pub(crate) size: u64,
    pub(crate) kind: MemoryKind,
}

impl DeviceRange {
    pub(crate) fn open(&self) -> Result<OwnedFd, HostError> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY;
        retry_on_intr(|| fs::open(&self.path, flags, Mode::empty()))
            .map_err(|errno| self.failed("open", errno))
    }

    /// The error for a failed call.
    pub(crate) fn failed(&self, call: &'static str, errno: Errno) -> HostError {
        match (call, self.kind, errno) {
            // The kernel forbids it for several reasons, and does not say for which.
            ("mmap", MemoryKind::Physical { base }, Errno::PERM | Errno::INVAL) => {
                DeviceError::Forbidden { base, size: self.size, source: errno.into() }.into()
            }
            ("open", MemoryKind::Pci { address }, Errno::NOENT) => {
                DeviceError::PciWithoutMemory { address }.into()
            }
            ("open", _, Errno::NOENT | Errno::NXIO | Errno::NODEV) => {
                DeviceError::NoDevice { path: self.path.clone() }.into()
            }
            ("open", _, Errno::ACCESS | Errno::PERM) => {
                DeviceError::Denied { path: self.path.clone(), source: errno.into() }.into()
            }
            _ => HostError::call(call, &self.path, errno),
        }
    }
}

/// An open device as the medium of a window.
#[derive(Debug)]
pub(crate) struct Device {
    file: OwnFd,
    start: u64,
    guard: ForkGuard,
}

impl Device {
    pub(crate) fn new(file: OwnedFd, start: u64, guard: ForkGuard) -> Result<Self, Errno> {
        Ok(Self { file: OwnFd::new(file, guard)?, start, guard })
    }

    pub(crate) fn file(&self) -> Option<BorrowedFd<'_>> {
        self.file.get()
    }

    /// The offset of the window in the file.
    pub(crate) const fn start(&self) -> u64 {
        self.start
    }

    pub(crate) fn commit(&self, window: &Window, extent: Extent) -> Result<(), BackingMemoryError> {
        self.check("commit", window, extent)
    }

    pub(crate) fn release(
        &self,
        window: &Window,
        extent: Extent,
    ) -> Result<(), BackingMemoryError> {
        self.check("release", window, extent)?;
        window.zero(extent).map_err(|_| failed("release", Errno::INVAL))
    }

    fn check(
        &self,
        call: &'static str,
        window: &Window,
        extent: Extent,
    ) -> Result<(), BackingMemoryError> {
        if extent.end() > window.len() {
            return Err(failed(call, Errno::INVAL));
        }
        if self.guard.is_forked_child() {
            return Err(failed(call, Errno::BADF));
        }
        Ok(())
    }
}

fn failed(call: &'static str, errno: Errno) -> BackingMemoryError {
    BackingMemoryError::Failed { call, errno: errno.raw_os_error() }
}
