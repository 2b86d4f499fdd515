//! One attachment of this process to one space: what all its handles share.
//!
//! # Invariants
//! 1. It belongs to the process that made it. A forked child touches nothing of it: every use there is
//!    [`RegionError::Forked`].
//! 2. A thread claims a slot of the peer when it first uses the space, and keeps it until the thread ends: see
//!    `threads.rs`.
//! 3. A living thread that finds itself declared dead gives up the whole peer: others may have taken over what it
//!    held.
//! 4. The peer detaches as soon as the last handle is dropped: the heartbeat thread has no handle. That thread
//!    stops looking at the space before the peer detaches, and keeps the evidence of life until after.

use std::{
    cell::Cell,
    fmt,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use commonhold_host::{ForkGuard, HeartbeatThread, LinuxPlatform, Priority, Setup};
use commonhold_layout::{DeathFutex, Owner};
use commonhold_space::{Attached, OwnThread, OwnThreads, View, heartbeat_period_ms};
use commonhold_sync::{Park, Thread};

use crate::{
    RegionError,
    backing::Backing,
    error::causes::region_error,
    lock::counted::Counted,
    threads::{self, Threads},
};

/// How many handles keep one mapping, if its region has this name; 0 if it has another. `None`: the mapping is gone.
pub(crate) type HandleCount = Box<dyn Fn(&str) -> Option<usize> + Send + Sync>;

pub(crate) struct Attachment {
    /// Unique among all attachments of this process and of its parents.
    id: u64,
    pub(crate) url: String,
    core: Arc<Attached<LinuxPlatform>>,
    fork: ForkGuard,
    threads: Threads,
    pub(crate) counted: Arc<Counted>,
    pub(crate) backing: Backing,
    /// One for each mapping, for [`handles`](Self::handles).
    mapped: Mutex<Vec<HandleCount>>,
    /// Shows others that this process lives, and watches the heartbeats of peers that have no better proof of life.
    heartbeat: Option<HeartbeatThread>,
}

/// Everything that the fast path of a lock, or an access to data, reads of this process. Each handle has its own
/// copy: a locked instruction waits for the loads before it, and a chain of loads through the mapping and the
/// attachment would take a third of the time of the lock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LockContext<'a> {
    id: u64,
    fork: ForkGuard,
    threads: OwnThreads<'a>,
}

impl<'a> LockContext<'a> {
    /// The calling thread, if this space is the one it used last.
    #[inline]
    pub(crate) fn known_me(&self) -> Option<Thread<'a>> {
        let (id, own) = threads::last();
        if id != self.id || self.fork.is_forked_child() {
            return None;
        }
        self.threads.get(own)
    }

    /// The calling thread, after [`Attachment::me`] has found it.
    #[inline]
    pub(crate) fn just_known(&self) -> Thread<'a> {
        self.threads.known(threads::last().1)
    }

    /// Whether this process is a forked child of the one that attached.
    #[inline]
    pub(crate) fn is_forked(&self) -> bool {
        self.fork.is_forked_child()
    }

    /// Whether this process attached, and no peer has declared it dead.
    #[inline]
    pub(crate) fn is_live_here(&self) -> bool {
        !self.fork.is_forked_child() && self.threads.is_live()
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment")
            .field("url", &self.url)
            .field("peer", &self.core.peer())
            .field("generation", &self.core.generation())
            .finish_non_exhaustive()
    }
}

impl Attachment {
    pub(crate) fn new(url: String, core: Attached<LinuxPlatform>) -> Arc<Self> {
        let core = Arc::new(core);
        let counted = Arc::new(Counted::default());
        let heartbeat = start_heartbeat(&core, &counted);
        let fork = core.view().platform().fork_guard();
        let (id, threads) = (threads::next_attachment(), Threads::default());
        let backing = Backing::new(core.view().geometry().regions());
        let mapped = Mutex::default();
        Arc::new(Self { id, url, core, fork, threads, counted, backing, mapped, heartbeat })
    }

    #[inline]
    pub(crate) fn is_forked(&self) -> bool {
        self.fork.is_forked_child()
    }

    /// Whether this process attached, and no peer has declared it dead.
    #[inline]
    pub(crate) fn is_live_here(&self) -> bool {
        !self.is_forked() && self.core.is_live()
    }

    /// The space, for this process only.
    #[inline]
    pub(crate) fn core(&self) -> Result<&Attached<LinuxPlatform>, RegionError> {
        if self.is_forked() { Err(RegionError::Forked) } else { Ok(&self.core) }
    }

    #[inline]
    pub(crate) fn view(&self) -> Result<&View<LinuxPlatform>, RegionError> {
        self.core().map(Attached::view)
    }

    /// Remembers a mapping for [`handles`](Self::handles).
    pub(crate) fn enter(&self, count: HandleCount) {
        let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        if mapped.len() == mapped.capacity() {
            mapped.retain(|count| count("").is_some());
        }
        mapped.push(count);
    }

    /// How many handles keep regions of this name mapped: mappings, clones, and what was opened in them.
    pub(crate) fn handles(&self, name: &str) -> usize {
        let mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        mapped.iter().filter_map(|count| count(name)).sum()
    }

    /// The platform. Using it does not touch the window.
    #[inline]
    pub(crate) fn platform(&self) -> &LinuxPlatform {
        self.core.view().platform()
    }

    pub(crate) fn peer(&self) -> (u16, u32) {
        (self.core.peer().get(), self.core.generation())
    }

    /// The space, after [`me`](Self::me) has shown that it is this process's.
    #[inline]
    pub(crate) fn my_view(&self) -> &View<LinuxPlatform> {
        self.core.view()
    }

    /// What the fast paths of locks read.
    pub(crate) fn context(&self) -> Result<LockContext<'_>, RegionError> {
        let threads = self.core()?.threads().map_err(|error| region_error(error, ""))?;
        Ok(LockContext { id: self.id, fork: self.fork, threads })
    }

    /// The calling thread, as locks know it.
    #[inline]
    pub(crate) fn me(self: &Arc<Self>) -> Result<Thread<'_>, RegionError> {
        let (id, own) = threads::last();
        if id == self.id
            && !self.is_forked()
            && let Some(me) = self.core.known_thread(own)
        {
            return Ok(me);
        }
        self.new_me()
    }

    /// The owner that the calling thread is, if it has a slot. Claims none.
    #[cold]
    pub(crate) fn known_owner(&self) -> Option<Owner> {
        if self.is_forked() {
            return None;
        }
        let own = self.threads.known(self.id)?;
        self.core.thread(own).ok().map(|me| me.owner())
    }

    #[cold]
    fn new_me(self: &Arc<Self>) -> Result<Thread<'_>, RegionError> {
        let core = self.core()?;
        core.thread(self.thread_slot()?).map_err(|error| region_error(error, ""))
    }

    #[cold]
    fn thread_slot(&self) -> Result<OwnThread, RegionError> {
        let claim = || {
            let tid = commonhold_host::thread_id();
            self.core.claim_thread(tid).map_err(|error| region_error(error, ""))
        };
        let own = self.threads.known_or(self.id, claim)?;
        if !self.core.has_slot(own) {
            // Declared dead while it lives: invariant 3.
            self.core.give_up();
            return Err(RegionError::Fenced);
        }
        Ok(own)
    }

    /// The moment `timeout` from now, on the clock that waiting uses.
    pub(crate) fn deadline(&self, timeout: Duration) -> u64 {
        let timeout = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        self.core.view().now().saturating_add(timeout)
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // The heartbeat thread must not look at a slot that is given back.
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.quiet();
        }
        if !self.is_forked() {
            // Fails only if this peer was declared dead; then the slot is no longer ours.
            let _ = self.core.detach();
        }
        // The heartbeat thread must not keep the evidence longer than the slot is ours.
        self.heartbeat = None;
    }
}

/// How many thread slots of this peer each heartbeat examines for ended threads.
const THREADS_AT_ONCE: u16 = 64;

/// If the thread cannot be started, the peer looks silent, and a lease may end it. That is better than to fail
/// here: most spaces have no lease.
fn start_heartbeat(
    core: &Arc<Attached<LinuxPlatform>>,
    counted: &Arc<Counted>,
) -> Option<HeartbeatThread> {
    let lease_ms = core.view().geometry().lease_ms();
    let pace = move |spans| {
        // Where peers judge by the heartbeat, it must not be late. Elsewhere the thread must not delay the end of
        // its process.
        let urgent = spans || lease_ms != 0;
        let priority = if urgent { Priority::Usual } else { Priority::Idle };
        (Duration::from_millis(heartbeat_period_ms(spans, lease_ms)), priority)
    };
    let spanned = Cell::new(false);
    let next = Cell::new(0);
    let setup = Setup {
        death_futex: |core: &Arc<Attached<LinuxPlatform>>| {
            core.view().death_futex_word(core.peer()).ok()
        },
        keep_evidence: |core| core.view().platform().keep_evidence_here(),
        let_go: |core| core.view().platform().let_evidence_go(),
    };
    let counted = Arc::clone(counted);
    let first = pace(core.view().spans_kernels());
    let heartbeat = HeartbeatThread::start(first, Arc::clone(core), setup, move |core| {
        core.beat();
        core.watch();
        core.view().platform().mapped().watch_name();
        if core.view().platform().renew_evidence()
            && let Ok(death_futex) = core.view().death_futex_word(core.peer())
        {
            death_futex.fetch_or(DeathFutex::KEPT_ALONE, Ordering::Release);
        }
        next.set(core.mark_ended(next.get(), THREADS_AT_ONCE));
        counted.forget_ended(core);
        let spans = core.view().spans_kernels();
        if spans && !spanned.replace(spans) {
            core.rouse();
        }
        spanned.set(spans);
        pace(spans)
    });
    if heartbeat.is_err()
        && let Ok(death_futex) = core.view().death_futex_word(core.peer())
    {
        // Otherwise peers would think that this process died before its heartbeat began.
        death_futex.store(DeathFutex::NEVER.word(), Ordering::Release);
    }
    heartbeat.ok()
}
