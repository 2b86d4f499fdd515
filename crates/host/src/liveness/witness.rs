//! Evidence of life: publishing this process's, and judging peers by theirs.
//!
//! | evidence | left by | what it is | known |
//! |---|---|---|---|
//! | life word of a thread slot | the kernel, at the thread's end | proof, for that thread | at once |
//! | death futex of a peer | the kernel, at the heartbeat thread's end | hint: other threads may run | at once |
//! | lock on the slot's byte | the process; the kernel drops it | if gone, a hint; see invariant 3 | at a search |
//! | process id, start time | the peer, in its record | proof, if `/proc` or a pidfd shows the end | at a search |
//! | heartbeat count | the heartbeat thread, and waits | silence is a hint: *suspect* | after 1 s |
//! | lease of the space | the formatter of the space | such a silence counts as death, unproved | at its end |
//!
//! *At once*: the kernel wakes a waiter. The kernel drops the lock of a dying process only after it has freed its
//! memory, which takes tens of milliseconds for hundreds of megabytes.
//!
//! A waiter searches when a death futex fires, else after 10 ms and then every 100 ms (1 ms and 20 ms where the
//! kernel cannot tell it of a death): see `wait.rs` of `commonhold-sync`. Life words are read there and in
//! `commonhold-space`; this file weighs all the other evidence.
//!
//! # What it owns
//! Two open file descriptions of the space's file, shared with no other process. One holds the locks that are this
//! process's evidence; through the other, peers' locks are looked for. And what was observed of peers' heartbeats.
//!
//! # Invariants
//! 1. The verdict `Dead` needs proof; where no proof is possible, it needs a lease that has run out.
//! 2. If a peer never published a kind of evidence, the lack of that evidence proves nothing. Neither does a missing
//!    lock on a file system whose locks may belong to another kernel.
//! 3. A lock that is gone does not prove death by itself: programs close descriptors that they do not know. It does
//!    in these cases. In the last two, the process is looked at first, and if it provably runs, it is alive.
//!    - The death futex has fired, and the heartbeat thread was not the only one with the lock (invariant 5).
//!    - The heartbeat has been silent for a second, and the peer either keeps its lock in the heartbeat thread's own
//!      table, which no program closes, or never has a heartbeat thread. (The kernel fires no death futex in memory
//!      that was unmapped first.)
//!    - The peer is still attaching, has no heartbeat thread yet, or has already taken its death futex down to detach.
//!      These moments are short, and a program does not close our descriptors in them.
//! 4. Locks are looked for in the space's file, or not at all (`own_fd.rs`).
//! 5. The heartbeat thread, if there is one, keeps the locks too, in a descriptor table of its own. The kernel drops
//!    them when neither that table nor the process's has the descriptor. If the program closes the descriptor of the
//!    process, only that thread has the locks, and they go when it ends, which may be before other threads do. It
//!    finds this at its next beat, and sets a bit in its death futex. With that bit, the second case of invariant 3
//!    applies, and not the first.
//! 6. A forked child locks, unlocks and concludes nothing: the descriptions are its parent's.
//! 7. Evidence is an exclusive lock, which only a process that may write the file can have. A process that may only
//!    read it (a *reader*) can lock its bytes shared (`ofd_lock.rs`). Such a lock must not make a dead peer look
//!    alive, so it does not count as evidence. It also keeps others from an exclusive lock on that byte, so an
//!    attaching peer takes another slot. If readers have locked the bytes of all free slots, the peer takes a shared
//!    lock instead. As long as the byte has a shared lock, it may be a reader's, and says nothing. Once the byte has
//!    none, the peer's lock is gone. The heartbeat thread makes the lock exclusive as soon as the readers have gone.
//! 8. The kernel does not report our own locks to us, so this file remembers our own slots.
//!
//! # What it does not do
//! It fences no peer; the caller that asks for a verdict does.

use std::{
    cell::Cell,
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI32, AtomicU32, Ordering},
    },
};

use commonhold_layout::{Evidence, PeerId};
use commonhold_space::{BackingMemoryError, EvidenceLock, Identity, PeerRecord};
use commonhold_sync::Verdict;
use rustix::io::Errno;

use super::{
    process::{self, Life, Myself, thread_id},
    silence::Silence,
};
use crate::{
    error::HostError,
    fork::ForkGuard,
    memory::MappedWindow,
    ofd_lock::{self, LockByte, Sought},
    own_fd::OwnFd,
    wait::monotonic_ns,
};

/// The state of a peer's evidence lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lock {
    /// The peer published it, and it is gone.
    Gone,
    /// It is there; perhaps only because a forked child has the descriptor.
    Held,
    /// The peer published none, or we cannot see it, or the lock on its byte may be a reader's.
    Unknown,
}

/// A slot of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OwnSlot {
    peer: PeerId,
    /// How its byte is locked.
    hold: EvidenceLock,
}

thread_local! {
    /// On a heartbeat thread: the only descriptor in its own table, which has the locks of the process.
    static KEPT: Cell<Option<RawFd>> = const { Cell::new(None) };
}

/// The evidence of this process, and what it observes of its peers'.
#[derive(Debug)]
pub(crate) struct Evidences {
    /// With the locks of this process; `None` if locks prove nothing on this memory.
    description: Option<OwnFd>,
    /// Through which peers' locks are looked for.
    asking: Option<OwnFd>,
    /// The descriptor by which the heartbeat thread keeps the locks; -1 if it does not.
    kept: AtomicI32,
    /// See [`lost`](Self::lost).
    lost: AtomicU32,
    guard: ForkGuard,
    me: Myself,
    own: Mutex<Vec<OwnSlot>>,
    silence: Silence,
}

impl Evidences {
    pub(crate) fn new(mapped: &MappedWindow) -> Result<Self, HostError> {
        let guard = mapped.guard();
        let failed = |errno| HostError::call("open", mapped.path(), errno);
        let open = || OwnFd::new(mapped.reopen()?, guard).map_err(failed);
        let proof = mapped.kind().locks_are_proof();
        let (description, asking) =
            if proof { (Some(open()?), Some(open()?)) } else { (None, None) };
        if let Some(description) = &description {
            description.can_be_opened_at(mapped.path().to_owned());
        }
        Ok(Self {
            description,
            asking,
            kept: AtomicI32::new(-1),
            lost: AtomicU32::new(0),
            guard,
            me: Myself::look(),
            own: Mutex::default(),
            silence: Silence::default(),
        })
    }

    pub(crate) const fn identity(&self) -> Identity {
        self.me.identity
    }

    fn own(&self) -> std::sync::MutexGuard<'_, Vec<OwnSlot>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_mine(&self, peer: PeerId) -> bool {
        self.own().iter().any(|own| own.peer == peer)
    }

    pub(crate) fn publish(
        &self,
        peer: PeerId,
        hold: EvidenceLock,
    ) -> Result<Option<Evidence>, BackingMemoryError> {
        let failed = |errno: Errno| BackingMemoryError::Failed {
            call: "fcntl",
            errno: errno.raw_os_error(),
        };
        if self.guard.is_forked_child() {
            return Err(failed(Errno::BADF));
        }
        let mut own = self.own();
        if own.iter().any(|own| own.peer == peer) {
            return Ok(None);
        }
        // A heartbeat is always promised: a peer of another kernel, which sees nothing else, may attach at any time.
        let mut evidence = Evidence::PROCESS.with(Evidence::HEARTBEAT);
        if let Some(description) = &self.description {
            let file = description.checked().ok_or_else(|| failed(Errno::BADF))?;
            if !take(file, peer, hold).map_err(failed)? {
                return Ok(None);
            }
            evidence = evidence.with(match hold {
                EvidenceLock::Alone => Evidence::OFD_LOCK,
                EvidenceLock::BesideReaders => Evidence::SHARED_LOCK,
            });
        }
        own.push(OwnSlot { peer, hold });
        Ok(Some(evidence))
    }

    /// Unlocks the byte of this process's slot, and forgets the slot.
    pub(crate) fn withdraw(&self, peer: PeerId) {
        if self.guard.is_forked_child() {
            return;
        }
        let mut own = self.own();
        let before = own.len();
        own.retain(|slot| slot.peer != peer);
        if own.len() == before {
            return;
        }
        if let Some(file) = self.description.as_ref().and_then(OwnFd::checked) {
            // Cannot fail for a lock that is held. If it does fail, the kernel unlocks the byte when the process ends.
            let _ = ofd_lock::unlock(file, LockByte::of_peer(peer));
        }
    }

    /// Moves the calling thread to a descriptor table of its own that contains only the descriptor with the locks, so
    /// that it keeps them until it ends. Returns the path under `/proc` at which that descriptor can be opened;
    /// `None` if this did not work. After `Some` the thread must not use any other descriptor that it had.
    pub(crate) fn keep_here(&self) -> Option<PathBuf> {
        let kept = self.description.as_ref()?.checked()?.as_raw_fd();
        ofd_table::make_own(kept).ok()?;
        KEPT.set(Some(kept));
        self.kept.store(kept, Ordering::Relaxed);
        Some(PathBuf::from(format!("/proc/self/task/{}/fd/{kept}", thread_id())))
    }

    /// Closes the descriptor that the calling thread keeps. If the kernel did that at the end of the thread, the
    /// locks might still be there after a join.
    pub(crate) fn let_go_here(&self) {
        if let Some(kept) = KEPT.take()
            && !self.guard.is_forked_child()
        {
            // SAFETY: `close` wants a descriptor that is not used any more: only the table of this thread has it, and
            // the thread ends.
            unsafe { libc::close(kept) };
        }
    }

    /// Restores the locks of this process if the program has closed them, and makes shared ones exclusive if the
    /// readers have gone. The heartbeat thread calls this now and then. Returns whether only that thread has the
    /// locks.
    pub(crate) fn renew(&self) -> bool {
        let Some(description) = self.description.as_ref().filter(|_| !self.guard.is_forked_child())
        else {
            return false;
        };
        let kept = self.kept.load(Ordering::Relaxed);
        let is_lost = if kept >= 0 {
            // `self` names the main thread, with whose table all threads but this one work.
            let lost = !description.is_at(&format!("/proc/self/fd/{kept}"));
            self.lost.store(u32::from(lost), Ordering::Relaxed);
            lost
        } else {
            false
        };
        let renewed = kept < 0 && description.is_lost();
        if renewed {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        let mut own = self.own();
        for slot in
            own.iter_mut().filter(|slot| renewed || slot.hold == EvidenceLock::BesideReaders)
        {
            let Some(file) = description.checked() else { break };
            // If this fails, a reader has the byte locked. Or another peer has, because this process was declared
            // dead, which it finds out elsewhere.
            let alone = take(file, slot.peer, EvidenceLock::Alone).unwrap_or(false);
            slot.hold = if alone { EvidenceLock::Alone } else { EvidenceLock::BesideReaders };
            if !alone {
                let _ = take(file, slot.peer, EvidenceLock::BesideReaders);
            }
        }
        is_lost
    }

    /// How often the locks of this process were found closed. If the heartbeat thread keeps them as well: 1 if they
    /// were closed elsewhere at its last look, else 0.
    pub(crate) fn lost(&self) -> u32 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Sets the path at which the file can be opened again if the descriptor for looking at locks is lost.
    pub(crate) fn can_be_opened_at(&self, path: PathBuf) {
        if let Some(asking) = &self.asking {
            asking.can_be_opened_at(path);
        }
    }

    pub(crate) fn verdict(&self, record: &PeerRecord, attaching: bool, lease_ms: u64) -> Verdict {
        if self.guard.is_forked_child() {
            return Verdict::Suspect;
        }
        let mine = self.is_mine(record.peer);
        let lock = if mine { Lock::Held } else { self.lock_of(record) };
        if lock == Lock::Gone && record.death_futex.has_fired() && !record.death_futex.keeps_alone()
        {
            return Verdict::Dead;
        }
        if lock == Lock::Held
            && record.death_futex.keeps_evidence()
            && !record.death_futex.has_fired()
        {
            // Its heartbeat thread lives. This is the answer that a polling waiter usually gets, so it comes first.
            return Verdict::Alive;
        }
        let silence = || self.silence.judge(record, lease_ms, monotonic_ns() / 1_000_000);
        match (self.life_of(record, attaching), lock) {
            (Life::Gone, _) => Verdict::Dead,
            (Life::Runs, _) | (Life::Unknown, Lock::Held) => Verdict::Alive,
            (Life::Unknown, Lock::Gone) => match record.death_futex {
                // It had no heartbeat thread yet, or none any more. A program does not close our descriptors then: it
                // died.
                _ if attaching => Verdict::Dead,
                death_futex if !death_futex.is_there() && !death_futex.is_never_there() => {
                    Verdict::Dead
                }
                // Only the end of its heartbeat thread closes the descriptor which that thread keeps. Yet the kernel
                // marks no death futex in memory that was unmapped first; and if only the heartbeat thread had the
                // lock, other threads of the process may end a little later. So the heartbeat must have stopped too.
                // For a peer that never has such a thread, there is no better evidence.
                death_futex if death_futex.keeps_evidence() || death_futex.is_never_there() => {
                    if silence() == Verdict::Alive {
                        Verdict::Suspect
                    } else {
                        Verdict::Dead
                    }
                }
                _ => Verdict::Suspect,
            },
            (Life::Unknown, Lock::Unknown) if record.evidence.contains(Evidence::HEARTBEAT) => {
                silence()
            }
            (Life::Unknown, Lock::Unknown) => Verdict::Suspect,
        }
    }

    /// Whether this is the record of this attachment.
    pub(crate) fn is_own(&self, record: &PeerRecord) -> bool {
        self.is_mine(record.peer)
    }

    /// As [`thread_has_ended`](Self::thread_has_ended), for a thread of this process. It always reads `/proc`, so it
    /// also finds a thread that is exiting while its process lives on.
    pub(crate) fn own_thread_has_ended(&self, tid: u32) -> bool {
        !self.guard.is_forked_child() && self.me.thread_has_ended(&self.me.identity, tid)
    }

    pub(crate) fn thread_has_ended(&self, record: &PeerRecord, tid: u32) -> bool {
        !self.guard.is_forked_child()
            && self.me.shares_processes_with(&record.identity)
            // Cheap first: while the death futex has not fired, a thread that is still there is not exiting with its
            // process.
            && (record.death_futex.has_fired() || !process::has_thread(record.identity.pid, tid))
            && self.me.thread_has_ended(&record.identity, tid)
    }

    fn lock_of(&self, record: &PeerRecord) -> Lock {
        let shared = record.evidence.contains(Evidence::SHARED_LOCK);
        if !shared && !record.evidence.contains(Evidence::OFD_LOCK) {
            return Lock::Unknown;
        }
        let Some(file) = self.asking() else { return Lock::Unknown };
        let is_locked = |sought| ofd_lock::is_locked(file, LockByte::of_peer(record.peer), sought);
        match is_locked(Sought::Exclusive) {
            Ok(true) => Lock::Held,
            // The shared lock may be the peer's or a reader's.
            Ok(false) if shared && is_locked(Sought::Any) != Ok(false) => Lock::Unknown,
            Ok(false) => Lock::Gone,
            Err(_) => Lock::Unknown,
        }
    }

    /// The space's file, for looking at locks. `None` on a heartbeat thread that has a table of its own: it has no
    /// such descriptor, and judges only peers that it can judge by nothing but their heartbeat.
    fn asking(&self) -> Option<BorrowedFd<'_>> {
        self.asking.as_ref().filter(|_| KEPT.get().is_none())?.checked()
    }

    fn life_of(&self, record: &PeerRecord, attaching: bool) -> Life {
        let left = !attaching && record.evidence.contains(Evidence::PROCESS);
        if !left || !self.me.shares_processes_with(&record.identity) {
            return Life::Unknown;
        }
        self.me.life_of(&record.identity)
    }
}

/// Locks the byte of a slot; `false` if another description has it locked.
fn take(file: BorrowedFd<'_>, peer: PeerId, hold: EvidenceLock) -> Result<bool, Errno> {
    match hold {
        EvidenceLock::Alone => ofd_lock::try_lock(file, LockByte::of_peer(peer)),
        EvidenceLock::BesideReaders => ofd_lock::try_share(file, LockByte::of_peer(peer)),
    }
}

/// A descriptor table for one thread.
mod ofd_table {
    use std::os::fd::RawFd;

    use rustix::io::Errno;

    fn close_range(first: u32, last: u32) -> Result<(), Errno> {
        // SAFETY: `close_range` wants descriptors that are not used any more. The callers close none (the first range
        // is empty), or those of a table that only this thread has, which promised to use no other descriptor.
        let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        if done == 0 { Ok(()) } else { Err(errno()) }
    }

    fn errno() -> Errno {
        Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
    }

    /// Gives the calling thread a table of its own, in which only `kept` is open.
    ///
    /// # Errors
    /// Those of `close_range` (Linux 5.9) or `unshare`, where a sandbox forbids them; nothing has changed then.
    pub(super) fn make_own(kept: RawFd) -> Result<(), Errno> {
        let number = u32::try_from(kept).map_err(|_| Errno::BADF)?;
        // Tries the call on an empty range before the table is copied: a copy that cannot be emptied would keep all
        // descriptors open.
        close_range(u32::MAX, u32::MAX)?;
        // SAFETY: `unshare` of the descriptor table has no requirement: numbers mean the same before and after.
        if unsafe { libc::unshare(libc::CLONE_FILES) } != 0 {
            return Err(errno());
        }
        if let Some(before) = number.checked_sub(1) {
            close_range(0, before)?;
        }
        close_range(number.saturating_add(1), u32::MAX)
    }
}
