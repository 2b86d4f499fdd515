//! Everything that can go wrong, and what to do about it.

use core::fmt;

use commonhold_layout::Damage;
use commonhold_space::{AttachError, DirectoryError};
use commonhold_sync::LockError;

use crate::{commands::ArgumentError, pci};

/// Why the guest did not execute its commands.
#[derive(Clone, Copy)]
pub(crate) enum Failure {
    /// The command line is wrong.
    Arguments(ArgumentError),
    /// This program was not started by the PVH protocol.
    Loader,
    /// Atomic operations are not atomic on this machine.
    NotAtomic,
    /// There is no clock.
    NoTimer,
    /// There is no ivshmem device.
    NoDevice,
    /// The device has no memory in bar 2.
    NoBar {
        /// Which device.
        device: pci::Address,
    },
    /// There are not enough page tables for the window.
    WindowTooLarge {
        /// Bytes that it has.
        size: u64,
        /// Bytes that can be mapped.
        most: u64,
    },
    /// There is no space in the window.
    Open(AttachError),
    /// This guest could not become a peer.
    Attach(AttachError),
    /// An operation on a region failed.
    Region(&'static str, DirectoryError),
    /// The lock of a region could not be taken or freed.
    Lock(&'static str, LockError),
    /// The region has no first word.
    NoWord(&'static str),
    /// Records make no sense.
    Damaged(Damage),
    /// Leaving failed.
    Detach(DirectoryError),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arguments(error) => error.fmt(f),
            Self::Loader => f.write_str(
                "not started by the PVH protocol, or its data make no sense; use QEMU's -kernel",
            ),
            Self::NotAtomic => f.write_str(
                "this QEMU emulates all processors in one thread, and then atomic operations are not \
                 atomic for others: the locks would not hold; add -smp 2 -accel tcg,thread=multi",
            ),
            Self::NoTimer => f.write_str(
                "the PC's timer does not run, so there is no clock; use QEMU's machine pc or q35",
            ),
            Self::NoDevice => f.write_str(
                "there is no PCI device 1af4:1110; add -object memory-backend-file,id=window,share=on,\
                 mem-path=FILE,size=SIZE -device ivshmem-plain,memdev=window",
            ),
            Self::NoBar { device } => write!(
                f,
                "the device at {device} has no memory in bar 2; is its memdev shorter than its file?"
            ),
            Self::WindowTooLarge { size, most } => write!(
                f,
                "the window has {size} bytes, and this guest can map {most}; raise MOST_GIB in \
                 src/map.rs"
            ),
            Self::Open(error) => {
                write!(f, "{error}; on the host: commonhold space format shm:NAME --capacity SIZE")
            }
            Self::Attach(error) => write!(f, "cannot attach: {error}; commonhold peers shows who has"),
            Self::Region(name, error) => write!(f, "region {name}: {error}{}", advice(*error)),
            Self::Lock(name, error) => write!(f, "lock of region {name}: {error}"),
            Self::NoWord(name) => {
                write!(f, "region {name} is shorter than 8 bytes; create it with at least 8")
            }
            Self::Damaged(damage) => {
                write!(f, "{damage}; on the host: commonhold doctor")
            }
            Self::Detach(error) => write!(f, "cannot detach: {error}"),
        }
    }
}

const fn advice(error: DirectoryError) -> &'static str {
    match error {
        DirectoryError::NotFound => "; create=NAME size=SIZE makes one",
        DirectoryError::Exists => "; take another name, or destroy=NAME it first",
        DirectoryError::NoSpace { .. } => "; destroy another, or format a larger space",
        DirectoryError::HeldBySuspect { .. } => "; if it is gone, commonhold reap on its host",
        _ => "",
    }
}
