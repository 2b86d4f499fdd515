//! One attachment of this process to one space: what all its handles share.
//!
//! # Invariants
//! 1. It belongs to the process that made it: in a forked child nothing of it is touched, and every
//!    use is [`RegionError::Forked`].
//! 2. A thread claims a slot of the peer at its first use of the space, and has it until it ends: see `threads.rs`.
//! 3. A thread that finds itself declared dead while it lives gives the whole peer up: others may have taken over
//!    what it held.
//! 4. The peer detaches when the last handle goes, at once: the heart's thread has no handle. That thread is quiet
//!    before, and keeps the evidence until after.

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
    /// Different for every attachment that this process, or a parent of it, ever made.
    id: u64,
    pub(crate) url: String,
    core: Arc<Attached<LinuxPlatform>>,
    fork: ForkGuard,
    threads: Threads,
    pub(crate) counted: Arc<Counted>,
    pub(crate) backing: Backing,
    /// One for each mapping, for [`handles`](Self::handles).
    mapped: Mutex<Vec<HandleCount>>,
    /// Shows others that this process lives, and watches those of whom it knows nothing better.
    heart: Option<HeartbeatThread>,
}

/// Everything that the fast path of a lock, or an access to data, reads of this process. Each handle has its own copy: a
/// locked instruction waits for the loads before it, so loads that depend on each other (by way of the mapping and the
/// attachment) would take as long as a third of the lock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LockContext<'a> {
    id: u64,
    fork: ForkGuard,
    threads: OwnThreads<'a>,
}

impl<'a> LockContext<'a> {
    /// The calling thread, if it has used the space before, and no other since.
    #[inline]
    pub(crate) fn known_me(&self) -> Option<Thread<'a>> {
        let (id, own) = threads::last();
        if id != self.id || self.fork.is_forked_child() {
            return None;
        }
        self.threads.get(own)
    }

    /// The calling thread, which is known, since it has just been looked for.
    #[inline]
    pub(crate) fn just_known(&self) -> Thread<'a> {
        self.threads.known(threads::last().1)
    }

    /// Whether this is not the process that attached, but a forked child.
    #[inline]
    pub(crate) fn is_forked(&self) -> bool {
        self.fork.is_forked_child()
    }

    /// Whether this is the process that attached, and it still counts among the living.
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
        let heart = start_heart(&core, &counted);
        let fork = core.view().platform().fork_guard();
        let (id, threads) = (threads::next_attachment(), Threads::default());
        let backing = Backing::new(core.view().geometry().regions());
        let mapped = Mutex::default();
        Arc::new(Self { id, url, core, fork, threads, counted, backing, mapped, heart })
    }

    #[inline]
    pub(crate) fn is_forked(&self) -> bool {
        self.fork.is_forked_child()
    }

    /// Whether this is the process that attached, and it still counts among the living.
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

    /// What can be known without touching the window.
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

    /// What the fast paths of its locks read.
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

    /// As whom the calling thread is known, if it has a slot; takes none.
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
            // Taken for dead while it lives: invariant 3.
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
        // It must not look at what is given back.
        if let Some(heart) = &mut self.heart {
            heart.quiet();
        }
        if !self.is_forked() {
            // Fails only if this peer was declared dead; then the slot is no longer ours.
            let _ = self.core.detach();
        }
        // And it must not keep the evidence any longer than the slot was ours.
        self.heart = None;
    }
}

/// Thread slots of this peer that are looked after at each beat.
const THREADS_AT_ONCE: u16 = 64;

/// Without the thread the peer looks silent, and a lease may end it: rather that than failing to attach where no
/// lease may ever matter.
fn start_heart(
    core: &Arc<Attached<LinuxPlatform>>,
    counted: &Arc<Counted>,
) -> Option<HeartbeatThread> {
    let lease_ms = core.view().geometry().lease_ms();
    let pace = move |spans| {
        // Where others judge by its beats, it must not be late; elsewhere it must be in nobody's way when it ends.
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
    let heart = HeartbeatThread::start(first, Arc::clone(core), setup, move |core| {
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
    if heart.is_err()
        && let Ok(death_futex) = core.view().death_futex_word(core.peer())
    {
        // Others must not take it for one that died before it had a heart.
        death_futex.store(DeathFutex::NEVER.word(), Ordering::Release);
    }
    heart.ok()
}
