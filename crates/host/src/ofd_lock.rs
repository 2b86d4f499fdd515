//! Locks of open file descriptions (fcntl(2)): the kernel releases them when the last descriptor is closed.
//!
//! # What it owns
//! The meaning of bytes far behind the end of any file: byte `2^62 + slot` is the evidence of the
//! peer in `slot`; byte `2^62 - 1` is locked while holes of a file are being filled; byte `2^62 - 2` is the
//! gate (`memory/gate.rs`). They mean that in every version of the format, since we also look at them in files whose
//! version we cannot read.
//!
//! # Invariants
//! 1. Every wait for a lock has a deadline: the kernel's own waiting (`F_OFD_SETLKW`) is not used.
//! 2. A process that may only read the file can lock any byte *shared*, and none exclusively. So the presence of a
//!    shared lock proves nothing.

use std::{
    os::fd::{AsRawFd, BorrowedFd},
    thread,
    time::{Duration, Instant},
};

use commonhold_layout::PeerId;
use rustix::io::Errno;

const EVIDENCE: i64 = 1 << 62;

/// A byte that can be locked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LockByte(i64);

impl LockByte {
    /// Locked while holes are filled.
    pub(crate) const FILL: Self = Self(EVIDENCE - 1);

    /// Locked shared by processes that open the file, and exclusively by one that removes or replaces it.
    pub(crate) const GATE: Self = Self(EVIDENCE - 2);

    /// The evidence of a peer.
    pub(crate) fn of_peer(peer: PeerId) -> Self {
        Self(EVIDENCE | i64::from(peer.get()))
    }
}

/// A range of bytes: one lock, or where locks are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LockedBytes {
    pub(crate) first: u64,
    /// The last of all possible bytes, if the lock has no end.
    pub(crate) last: u64,
}

impl LockedBytes {
    /// The last byte of any file.
    const LAST: u64 = i64::MAX.unsigned_abs();

    /// All bytes from this one on.
    pub(crate) const fn from(byte: LockByte) -> Self {
        Self { first: byte.offset(), last: Self::LAST }
    }

    /// The evidence bytes of the first `peers` slots.
    pub(crate) const fn of_peers(peers: u16) -> Self {
        let first = EVIDENCE.unsigned_abs();
        Self { first, last: first + (peers as u64).saturating_sub(1) }
    }

    /// Whether `others` contains all of them.
    pub(crate) const fn lie_in(self, others: Self) -> bool {
        others.first <= self.first && self.last <= others.last
    }

    /// The peer whose evidence byte this is, if it is exactly one such byte.
    pub(crate) fn peer(self) -> Option<PeerId> {
        let slot = self.first.checked_sub(EVIDENCE.unsigned_abs())?;
        let alone = self.first == self.last;
        u16::try_from(slot).ok().filter(|_| alone).map(PeerId::new)
    }
}

/// Which locks of other descriptions to look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sought {
    /// All locks, also those of readers of the file.
    Any,
    /// Exclusive locks, which need write access to the file.
    Exclusive,
}

impl Sought {
    /// The kind of lock that conflicts with the sought locks and with no others: `F_OFD_GETLK` reports conflicts.
    const fn rival(self) -> libc::c_int {
        match self {
            Self::Any => libc::F_WRLCK,
            Self::Exclusive => libc::F_RDLCK,
        }
    }
}

impl LockByte {
    /// Where the byte is.
    pub(crate) const fn offset(self) -> u64 {
        self.0.unsigned_abs()
    }
}

fn record(kind: libc::c_int, byte: LockByte) -> libc::flock {
    // SAFETY: `zeroed` wants a type for which all zeros are a value: `flock` is integers only.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    // The types of constants and fields differ between architectures; the values are small.
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

/// Locks a byte exclusively; `false` if another description has it locked.
pub(crate) fn try_lock(file: BorrowedFd<'_>, byte: LockByte) -> Result<bool, Errno> {
    match fcntl(file, libc::F_OFD_SETLK, &mut record(libc::F_WRLCK, byte)) {
        Ok(()) => Ok(true),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Locks a byte shared; `false` if another description has it exclusively.
pub(crate) fn try_share(file: BorrowedFd<'_>, byte: LockByte) -> Result<bool, Errno> {
    match fcntl(file, libc::F_OFD_SETLK, &mut record(libc::F_RDLCK, byte)) {
        Ok(()) => Ok(true),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Calls `attempt` until it says `true`, with pauses that grow; `false` if that takes longer than `patience`.
pub(crate) fn patiently<E>(
    patience: Duration,
    mut attempt: impl FnMut() -> Result<bool, E>,
) -> Result<bool, E> {
    /// The pause after the first attempt, and the longest.
    const SHORTEST_PAUSE: Duration = Duration::from_micros(20);
    const LONGEST_PAUSE: Duration = Duration::from_millis(2);
    let began = Instant::now();
    let mut pause = SHORTEST_PAUSE;
    loop {
        if attempt()? {
            return Ok(true);
        }
        let left = patience.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Ok(false);
        }
        thread::sleep(pause.min(left));
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Unlocks a byte, for all descriptors of this description.
pub(crate) fn unlock(file: BorrowedFd<'_>, byte: LockByte) -> Result<(), Errno> {
    fcntl(file, libc::F_OFD_SETLK, &mut record(libc::F_UNLCK, byte))
}

/// Whether another description has a lock of the sought kind on the byte.
pub(crate) fn is_locked(
    file: BorrowedFd<'_>,
    byte: LockByte,
    sought: Sought,
) -> Result<bool, Errno> {
    let mut lock = record(sought.rival(), byte);
    fcntl(file, libc::F_OFD_GETLK, &mut lock)?;
    Ok(libc::c_int::from(lock.l_type) != libc::F_UNLCK)
}

/// Some lock that another description has on one of these bytes, if there is one.
pub(crate) fn lock_within(
    file: BorrowedFd<'_>,
    bytes: LockedBytes,
    sought: Sought,
) -> Result<Option<LockedBytes>, Errno> {
    let limit = |byte: u64| i64::try_from(byte).unwrap_or(i64::MAX);
    let mut lock = record(sought.rival(), LockByte(limit(bytes.first)));
    // Length 0 means: up to the last byte of any file.
    let all = bytes.last >= LockedBytes::LAST;
    lock.l_len = if all { 0 } else { limit(bytes.last - bytes.first).saturating_add(1) };
    fcntl(file, libc::F_OFD_GETLK, &mut lock)?;
    if libc::c_int::from(lock.l_type) == libc::F_UNLCK {
        return Ok(None);
    }
    let first = u64::try_from(lock.l_start).unwrap_or(0);
    let last = match u64::try_from(lock.l_len) {
        Ok(len @ 1..) => first.saturating_add(len - 1),
        _ => LockedBytes::LAST,
    };
    Ok(Some(LockedBytes { first, last }))
}

/// The locks that other descriptions have on these bytes, in any order, but no more than `most` of them.
pub(crate) fn locks_within(
    file: BorrowedFd<'_>,
    bytes: LockedBytes,
    sought: Sought,
    most: usize,
) -> Result<Vec<LockedBytes>, Errno> {
    let mut found = Vec::new();
    // The kernel reports one lock at a time, not necessarily the first. We ask again about the bytes before and
    // behind it.
    let mut left = vec![bytes];
    while let Some(asked) = left.pop() {
        let Some(lock) = lock_within(file, asked, sought)? else { continue };
        found.push(lock);
        if found.len() >= most {
            break;
        }
        if lock.first > asked.first {
            left.push(LockedBytes { first: asked.first, last: lock.first - 1 });
        }
        if lock.last < asked.last {
            left.push(LockedBytes { first: lock.last + 1, last: asked.last });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsFd};

    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn all_locks_in_a_range_are_found_in_any_order_and_of_any_description() {
        let scratch = Scratch::new();
        let path = scratch.path("a");
        std::fs::write(&path, "").unwrap();
        let open = || File::options().read(true).write(true).open(&path).unwrap();
        let (asker, one, other) = (open(), open(), open());
        let all = LockedBytes::from(LockByte::FILL);
        let found = || locks_within(asker.as_fd(), all, Sought::Any, 100).unwrap();
        assert_eq!(found(), []);
        assert!(try_lock(asker.as_fd(), LockByte::GATE).unwrap());
        for slot in [9, 2, 4095] {
            assert!(try_lock(one.as_fd(), LockByte::of_peer(PeerId::new(slot))).unwrap());
            assert!(try_share(other.as_fd(), LockByte::of_peer(PeerId::new(slot + 10))).unwrap());
        }
        let mut slots: Vec<_> = found().iter().map(|lock| lock.peer().unwrap().get()).collect();
        slots.sort_unstable();
        assert_eq!(slots, [2, 9, 12, 19, 4095, 4105]);
        assert_eq!(locks_within(asker.as_fd(), all, Sought::Any, 3).unwrap().len(), 3);
        // Only exclusive locks, of the first hundred slots.
        let peers = LockedBytes::of_peers(100);
        let exclusive = locks_within(asker.as_fd(), peers, Sought::Exclusive, 100).unwrap();
        let mut slots: Vec<_> = exclusive.iter().map(|lock| lock.peer().unwrap().get()).collect();
        slots.sort_unstable();
        assert_eq!(slots, [2, 9]);
        assert!(exclusive.iter().all(|lock| lock.lie_in(peers) && !all.lie_in(*lock)));
        drop((one, other));
        assert_eq!(found(), []);
        // One lock of all bytes: it is no peer's evidence, and the search ends.
        unlock(asker.as_fd(), LockByte::GATE).unwrap();
        let mut whole = record(libc::F_RDLCK, LockByte(0));
        whole.l_len = 0;
        let third = open();
        fcntl(third.as_fd(), libc::F_OFD_SETLK, &mut whole).unwrap();
        assert_eq!(found(), [LockedBytes { first: 0, last: LockedBytes::LAST }]);
        assert_eq!(found()[0].peer(), None);
    }
}
