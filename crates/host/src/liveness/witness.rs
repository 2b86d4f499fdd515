//! Evidence of life: left for others, and weighed.
//!
//! # What it owns
//! Two descriptions of the space's file that nobody else has: one holds the locks that are this process's evidence, by
//! the other the locks of others are asked for; and what was seen of hearts.
//!
//! # Invariants
//! 1. `Dead` is said on proof only, or when a lease has run out where no proof can be had.
//! 2. The lack of evidence that was never left proves nothing, and neither does a lock that is missing
//!    on a file system whose locks may belong to another kernel.
//! 3. A lock that is gone is no proof against a process that provably runs, nor against one whose heart has not
//!    stopped: programs close descriptors that they do not know. It is proof beside a death futex that has rung, or, where
//!    nothing but the end of the heartbeat thread can have closed it, beside a heart that stands still.
//! 4. A question about locks is asked of the space's file, or not at all (`own_fd.rs`).
//! 5. The heartbeat thread keeps the locks as well, in a table of descriptors of its own, as soon as there is one: what
//!    closes them elsewhere does not give them up. They go when both are gone: that thread, and all others. If the program
//!    has closed them, the thread says so in its death futex, since it may end before others do.
//! 6. In a forked child nothing is locked, unlocked or concluded: the description is the parent's.
//! 7. Whoever can read the file can lock bytes of it shared (`ofd_lock.rs`). Such a lock keeps nobody from leaving evidence, and
//!    makes nobody look alive: evidence is an exclusive lock. Only where readers have the bytes of all slots it is a
//!    shared one, which proves something only when it is gone; the heartbeat thread makes it exclusive when they go.
//! 8. The kernel does not tell us of our own locks, so our own slots are remembered here.
//!
//! # What it does not do
//! It fences nobody; whoever asks for a verdict does.

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

/// What a lock in the kernel says of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lock {
    /// It was left, and is gone.
    Gone,
    /// It is there; a forked child may be what keeps it.
    Held,
    /// None was left, or none that we could see, or what is there may be anybody's.
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
    /// What a heartbeat thread has in the table of its own: the locks of the process, and nothing else.
    static KEPT: Cell<Option<RawFd>> = const { Cell::new(None) };
}

/// The evidence of this process, and its view of that of others.
#[derive(Debug)]
pub(crate) struct Evidences {
    /// With the locks of this process; `None` if locks prove nothing on this memory.
    description: Option<OwnFd>,
    /// By which the locks of others are asked for.
    asking: Option<OwnFd>,
    /// The descriptor by which a heartbeat thread keeps the locks; -1: none does.
    kept: AtomicI32,
    /// How often the locks of this process were gone while it lived.
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
        // The heart always beats: a kernel that can see nothing else may attach at any time.
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

    /// What a heartbeat thread keeps goes when that thread ends.
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
            // Cannot fail for a lock that is held; if it does, the end of the process does it.
            let _ = ofd_lock::unlock(file, LockByte::of_peer(peer));
        }
    }

    /// Has the calling thread keep the locks, in a table of descriptors of its own with nothing else in it, until it
    /// ends. Where they can be opened again from, if it does. The thread must use no descriptor that it had before.
    pub(crate) fn keep_here(&self) -> Option<PathBuf> {
        let kept = self.description.as_ref()?.checked()?.as_raw_fd();
        ofd_table::make_own(kept).ok()?;
        KEPT.set(Some(kept));
        self.kept.store(kept, Ordering::Relaxed);
        Some(PathBuf::from(format!("/proc/self/task/{}/fd/{kept}", thread_id())))
    }

    /// Closes what the calling thread keeps: the kernel would do it only after the thread has been waited for.
    pub(crate) fn let_go_here(&self) {
        if let Some(kept) = KEPT.take()
            && !self.guard.is_forked_child()
        {
            // SAFETY: `close` wants a descriptor that nobody uses any more: it lies in the table of this thread alone,
            // which ends.
            unsafe { libc::close(kept) };
        }
    }

    /// Sees to it that the locks of this process are there, and exclusive: the program may have closed them, and others
    /// who had them locked may be gone. To be called now and then by its heartbeat thread. Whether that thread alone has
    /// them.
    pub(crate) fn renew(&self) -> bool {
        let Some(description) = self.description.as_ref().filter(|_| !self.guard.is_forked_child())
        else {
            return false;
        };
        let kept = self.kept.load(Ordering::Relaxed);
        let is_lost = if kept >= 0 {
            // Of the first thread's table, which all but this one have.
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
            // If somebody else has it, this process was declared dead, and finds out; or a reader has, and goes.
            let alone = take(file, slot.peer, EvidenceLock::Alone).unwrap_or(false);
            slot.hold = if alone { EvidenceLock::Alone } else { EvidenceLock::BesideReaders };
            if !alone {
                let _ = take(file, slot.peer, EvidenceLock::BesideReaders);
            }
        }
        is_lost
    }

    /// How often the locks of this process were gone while it lived.
    pub(crate) fn lost(&self) -> u32 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Says where the descriptor by which is asked can be opened again.
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
            // Its heartbeat thread lives. The look that a waiter takes again and again ends here.
            return Verdict::Alive;
        }
        let silence = || self.silence.judge(record, lease_ms, monotonic_ns() / 1_000_000);
        match (self.life_of(record, attaching), lock) {
            (Life::Gone, _) => Verdict::Dead,
            (Life::Runs, _) | (Life::Unknown, Lock::Held) => Verdict::Alive,
            (Life::Unknown, Lock::Gone) => match record.death_futex {
                // It died before it had a heart, or after: no time in which a program loses descriptors.
                _ if attaching => Verdict::Dead,
                death_futex if !death_futex.is_there() && !death_futex.is_never_there() => {
                    Verdict::Dead
                }
                // Nothing but its end closes what its heartbeat thread keeps. That marks nothing if the memory went
                // first; and if it was the last to have the lock, others of its process end with it, if later. Of one
                // without such a thread nothing better is to be had.
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

    /// Whether this is the record of this process, by this attachment.
    pub(crate) fn is_own(&self, record: &PeerRecord) -> bool {
        self.is_mine(record.peer)
    }

    /// Of threads of this process nothing is left out: it is for them that others may wait.
    pub(crate) fn own_thread_has_ended(&self, tid: u32) -> bool {
        !self.guard.is_forked_child() && self.me.thread_has_ended(&self.me.identity, tid)
    }

    pub(crate) fn thread_has_ended(&self, record: &PeerRecord, tid: u32) -> bool {
        !self.guard.is_forked_child()
            && self.me.shares_processes_with(&record.identity)
            // While the death futex is silent, a thread that is still there is not about to go with its process.
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
            // It, or a lock of somebody who may only read the file.
            Ok(false) if shared && is_locked(Sought::Any) != Ok(false) => Lock::Unknown,
            Ok(false) => Lock::Gone,
            Err(_) => Lock::Unknown,
        }
    }

    /// The space's file, by which the calling thread may ask. A heartbeat thread has no descriptor for that, and concludes
    /// nothing from locks: it looks at those only of whom nothing but the heart can be seen.
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

/// Locks the byte of a slot; `false` if others are in the way.
fn take(file: BorrowedFd<'_>, peer: PeerId, hold: EvidenceLock) -> Result<bool, Errno> {
    match hold {
        EvidenceLock::Alone => ofd_lock::try_lock(file, LockByte::of_peer(peer)),
        EvidenceLock::BesideReaders => ofd_lock::try_share(file, LockByte::of_peer(peer)),
    }
}

/// A table of descriptors for one thread.
mod ofd_table {
    use std::os::fd::RawFd;

    use rustix::io::Errno;

    fn close_range(first: u32, last: u32) -> Result<(), Errno> {
        // SAFETY: `close_range` wants that nobody uses the descriptors any more: the callers see to that.
        let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        if done == 0 { Ok(()) } else { Err(errno()) }
    }

    fn errno() -> Errno {
        Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
    }

    /// Gives the calling thread a table of its own, in which nothing but `kept` is open.
    ///
    /// # Errors
    /// Of `close_range` (Linux 5.9) or `unshare`, where a sandbox forbids them; nothing has changed then.
    pub(super) fn make_own(kept: RawFd) -> Result<(), Errno> {
        let number = u32::try_from(kept).map_err(|_| Errno::BADF)?;
        // Asked for nothing, before the table is copied: a copy that cannot be emptied would keep everything open.
        close_range(u32::MAX, u32::MAX)?;
        // SAFETY: `unshare` of the table of descriptors wants nothing: numbers mean the same before and after.
        if unsafe { libc::unshare(libc::CLONE_FILES) } != 0 {
            return Err(errno());
        }
        if let Some(before) = number.checked_sub(1) {
            close_range(0, before)?;
        }
        close_range(number.saturating_add(1), u32::MAX)
    }
}
