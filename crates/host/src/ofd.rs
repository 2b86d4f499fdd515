//! Locks of open file descriptions: what the kernel takes back when the last descriptor is closed.
//!
//! # What it owns
//! The meaning of bytes far behind the end of any file: byte `2^62 + slot` is the evidence of the
//! peer in `slot`; byte `2^62 - 1` is held while holes of a file are being filled.

use std::os::fd::{AsRawFd, BorrowedFd};

use commonhold_layout::PeerId;
use rustix::io::Errno;

const EVIDENCE: i64 = 1 << 62;

/// A byte that can be locked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LockByte(i64);

impl LockByte {
    /// Held while holes are filled.
    pub(crate) const FILL: Self = Self(EVIDENCE - 1);

    /// The evidence of a peer.
    pub(crate) fn of_peer(peer: PeerId) -> Self {
        Self(EVIDENCE | i64::from(peer.get()))
    }
}

fn record(kind: libc::c_int, byte: LockByte) -> libc::flock {
    // SAFETY: `zeroed` wants a type for which all zeros are a value: `flock` is integers only.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    // The constants and fields have different types on different machines, and small values.
    #[allow(clippy::cast_possible_truncation, reason = "the three constants are 0, 1 and 2")]
    {
        lock.l_type = kind as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
    }
    lock.l_start = byte.0;
    lock.l_len = 1;
    lock
}

fn fcntl(file: BorrowedFd<'_>, command: libc::c_int, lock: &mut libc::flock) -> Result<(), Errno> {
    // SAFETY: these commands want an open descriptor, which `file` is, and a pointer to a `flock` that
    // the kernel may write, which `lock` is.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, std::ptr::from_mut(lock)) };
    if result == -1 {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    }
    Ok(())
}

/// Locks a byte; `false` if another description has it.
pub(crate) fn try_lock(file: BorrowedFd<'_>, byte: LockByte) -> Result<bool, Errno> {
    match fcntl(file, libc::F_OFD_SETLK, &mut record(libc::F_WRLCK, byte)) {
        Ok(()) => Ok(true),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Locks a byte, waiting for whoever has it.
pub(crate) fn lock(file: BorrowedFd<'_>, byte: LockByte) -> Result<(), Errno> {
    rustix::io::retry_on_intr(|| fcntl(file, libc::F_OFD_SETLKW, &mut record(libc::F_WRLCK, byte)))
}

/// Unlocks a byte: for everybody who shares the description.
pub(crate) fn unlock(file: BorrowedFd<'_>, byte: LockByte) -> Result<(), Errno> {
    fcntl(file, libc::F_OFD_SETLK, &mut record(libc::F_UNLCK, byte))
}

/// Whether another description has the byte locked.
pub(crate) fn is_locked(file: BorrowedFd<'_>, byte: LockByte) -> Result<bool, Errno> {
    let mut lock = record(libc::F_WRLCK, byte);
    fcntl(file, libc::F_OFD_GETLK, &mut lock)?;
    Ok(libc::c_int::from(lock.l_type) != libc::F_UNLCK)
}
