//! One attachment of this process to one space: what all its handles share.
//!
//! # Invariants
//! 1. It belongs to the process that made it: in a forked child nothing of it is touched, and every
//!    use is [`RegionError::Forked`].
//! 2. A thread takes a slot of the peer at its first use of the space, and gives it back when it ends; but
//!    if it has guards then, which can only be forgotten ones, the slot is marked, and others take over
//!    what it holds.
//! 3. The peer detaches when the last handle goes, at once: the heart's thread has no handle.

use std::{
    cell::{Cell, RefCell},
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use commonhold_host::{ForkGuard, Heart, LinuxPlatform};
use commonhold_layout::{Name, Owner, ThreadId};
use commonhold_space::{
    DirectoryError, MediumError, OwnThreads, Space as Core, View, heartbeat_period_ms,
};
use commonhold_sync::{Park, Thread};

use crate::RegionError;

pub(crate) struct Attachment {
    /// Different for every attachment that this process, or a parent of it, ever made.
    id: u64,
    pub(crate) url: String,
    core: Arc<Core<LinuxPlatform>>,
    fork: ForkGuard,
    /// Shows others that this process lives, and watches those of whom it knows nothing better.
    heart: Option<Heart>,
}

/// Slots that this thread has, of the attachments it has used.
struct Slots(RefCell<Vec<(u64, Weak<Attachment>, ThreadId)>>);

thread_local! {
    static LAST: Cell<(u64, ThreadId)> = const { Cell::new((0, ThreadId::FIRST)) };
    /// Guards that this thread has, of all spaces, but for those of mutexes that are biased to it.
    static HELD: Cell<u32> = const { Cell::new(0) };
    static SLOTS: Slots = const { Slots(RefCell::new(Vec::new())) };
}

/// This thread has one guard more.
#[inline]
pub(crate) fn guard_made() {
    HELD.set(HELD.get().wrapping_add(1));
}

/// This thread has one guard less.
#[inline]
pub(crate) fn guard_gone() {
    // While the thread ends there may be nothing to count in, and nobody left to ask.
    let _ = HELD.try_with(|held| held.set(held.get().wrapping_sub(1)));
}

/// What the usual way of a lock looks at, each part one load away from who has this. A locked instruction
/// waits for every load before it, so loads that wait for each other (through the mapping and the attachment)
/// would take as long as a third of the lock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Near<'a> {
    id: u64,
    core: &'a Core<LinuxPlatform>,
    fork: ForkGuard,
}

impl<'a> Near<'a> {
    /// What tells a forked child.
    #[inline]
    pub(crate) const fn fork(&self) -> ForkGuard {
        self.fork
    }

    /// The calling thread, if it has used the space before, and no other since.
    #[inline]
    pub(crate) fn known_me(&self) -> Option<Thread<'a>> {
        let (id, thread) = LAST.get();
        if id != self.id || self.fork.is_forked_child() {
            return None;
        }
        self.core.known_thread(thread)
    }

    /// The space, after [`known_me`](Self::known_me) has shown that it is this process's.
    #[inline]
    pub(crate) const fn view(&self) -> &'a View<LinuxPlatform> {
        self.core.view()
    }

    /// Whether this is the process that attached, and it still counts among the living.
    #[inline]
    pub(crate) fn is_live_here(&self) -> bool {
        !self.fork.is_forked_child() && self.core.is_live()
    }
}

/// As [`Near`], for handles that are used again and again: nearer still, and larger.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nearest<'a> {
    id: u64,
    fork: ForkGuard,
    threads: OwnThreads<'a>,
}

impl<'a> Nearest<'a> {
    /// As [`Near::known_me`].
    #[inline]
    pub(crate) fn known_me(&self) -> Option<Thread<'a>> {
        let (id, thread) = LAST.get();
        if id != self.id || self.fork.is_forked_child() {
            return None;
        }
        self.threads.get(thread)
    }

    /// A thread that is known to be of this space.
    #[inline]
    pub(crate) fn thread(&self, thread: ThreadId) -> Thread<'a> {
        self.threads.known(thread)
    }

    /// What tells a forked child.
    #[inline]
    pub(crate) const fn fork(&self) -> ForkGuard {
        self.fork
    }
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Drop for Slots {
    fn drop(&mut self) {
        for (_, attachment, thread) in self.0.take() {
            if let Some(attachment) = attachment.upgrade()
                && !attachment.is_forked()
            {
                let core = &attachment.core;
                // A guard that was forgotten: nobody can give its lock back any more.
                let none_held = HELD.try_with(Cell::get).is_ok_and(|held| held == 0);
                if none_held && !core.is_inside(thread) {
                    core.release_thread(thread);
                } else {
                    core.end_thread(thread);
                }
            }
        }
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
    pub(crate) fn new(url: String, core: Core<LinuxPlatform>) -> Arc<Self> {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let core = Arc::new(core);
        let lease_ms = core.view().geometry().lease_ms();
        let period = move |spans| Duration::from_millis(heartbeat_period_ms(spans, lease_ms));
        let spanned = Cell::new(false);
        // Without the thread the peer looks silent, and a lease may end it: rather that than failing to
        // attach where no lease may ever matter.
        let heart = Heart::start(
            period(core.view().spans_kernels()),
            Arc::clone(&core),
            |core| core.view().bell_word(core.peer()).ok(),
            move |core| {
                core.beat();
                core.watch();
                let spans = core.view().spans_kernels();
                if spans && !spanned.replace(spans) {
                    core.rouse();
                }
                spanned.set(spans);
                period(spans)
            },
        );
        let fork = core.view().platform().fork_guard();
        Arc::new(Self { id, url, core, fork, heart: heart.ok() })
    }

    #[inline]
    pub(crate) fn is_forked(&self) -> bool {
        self.core.view().platform().is_forked_child()
    }

    /// The space, for this process only.
    #[inline]
    pub(crate) fn core(&self) -> Result<&Core<LinuxPlatform>, RegionError> {
        if self.is_forked() { Err(RegionError::Forked) } else { Ok(&self.core) }
    }

    #[inline]
    pub(crate) fn view(&self) -> Result<&View<LinuxPlatform>, RegionError> {
        self.core().map(Core::view)
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

    /// What the usual way of its locks looks at.
    #[inline]
    pub(crate) fn near(&self) -> Near<'_> {
        Near { id: self.id, core: &self.core, fork: self.fork }
    }

    /// What the usual way of a lock looks at that has a handle of its own.
    pub(crate) fn nearest(&self) -> Result<Nearest<'_>, RegionError> {
        let threads = self.core()?.threads().map_err(|error| region_error(error, ""))?;
        Ok(Nearest { id: self.id, fork: self.fork, threads })
    }

    /// The calling thread, as locks know it.
    #[inline]
    pub(crate) fn me(self: &Arc<Self>) -> Result<Thread<'_>, RegionError> {
        match self.near().known_me() {
            Some(me) => Ok(me),
            None => self.new_me(),
        }
    }

    /// As whom the calling thread is known, if it has a slot; takes none.
    #[cold]
    pub(crate) fn known_owner(&self) -> Option<Owner> {
        if self.is_forked() {
            return None;
        }
        let known = SLOTS.try_with(|slots| {
            let slots = slots.0.borrow();
            slots.iter().find(|(id, _, _)| *id == self.id).map(|(_, _, thread)| *thread)
        });
        Owner::new(self.core.peer(), self.core.generation(), known.ok().flatten()?)
    }

    #[cold]
    fn new_me(self: &Arc<Self>) -> Result<Thread<'_>, RegionError> {
        let core = self.core()?;
        core.thread(self.thread_slot()?).map_err(|error| region_error(error, ""))
    }

    #[cold]
    fn thread_slot(self: &Arc<Self>) -> Result<ThreadId, RegionError> {
        let known = SLOTS.try_with(|slots| {
            let mut slots = slots.0.borrow_mut();
            slots.retain(|(_, attachment, _)| attachment.strong_count() > 0);
            slots.iter().find(|(id, _, _)| *id == self.id).map(|(_, _, thread)| *thread)
        });
        let thread = match known.ok().flatten() {
            Some(thread) => thread,
            None => {
                let tid = commonhold_host::thread_id();
                let thread =
                    self.core.claim_thread(tid).map_err(|error| region_error(error, ""))?;
                // Fails only while the thread ends; then the slot is given back with the peer's.
                let _ = SLOTS.try_with(|slots| {
                    slots.0.borrow_mut().push((self.id, Arc::downgrade(self), thread));
                });
                thread
            }
        };
        LAST.set((self.id, thread));
        Ok(thread)
    }

    /// The moment `timeout` from now, on the clock that waiting uses.
    pub(crate) fn deadline(&self, timeout: Duration) -> u64 {
        let timeout = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        self.core.view().now().saturating_add(timeout)
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // Ended first: it must not look at what is given back.
        self.heart = None;
        if !self.is_forked() {
            // Fails only if this peer was declared dead; then the slot is no longer ours.
            let _ = self.core.detach();
        }
    }
}

/// What a name is, or why it is none.
pub(crate) fn checked(name: &str) -> Result<Name, RegionError> {
    Name::new(name).map_err(|why| RegionError::Name { name: name.to_owned(), why })
}

/// The error of the core, with what a person needs to know besides.
pub(crate) fn region_error(error: DirectoryError, name: &str) -> RegionError {
    let owned = || name.to_owned();
    match error {
        DirectoryError::Exists => RegionError::Exists { name: owned() },
        DirectoryError::NotFound => RegionError::NotFound { name: owned() },
        DirectoryError::Mapped => RegionError::Mapped { name: owned() },
        DirectoryError::TimedOut => RegionError::TimedOut { name: owned() },
        DirectoryError::NoSpace { asked, largest } => RegionError::NoSpace { asked, largest },
        DirectoryError::NoEntry { regions } => RegionError::NoEntry { regions },
        DirectoryError::BeyondReserve { asked, reserve } => {
            RegionError::BeyondReserve { asked, reserve }
        }
        DirectoryError::TooManyMappings => RegionError::TooManyMappings,
        DirectoryError::TooManyThreads { threads } => RegionError::TooManyThreads { threads },
        DirectoryError::Medium(MediumError::Full { errno }) => {
            RegionError::NoMemory { source: std::io::Error::from_raw_os_error(errno) }
        }
        DirectoryError::Medium(MediumError::Failed { call, errno }) => {
            RegionError::Os { call, source: std::io::Error::from_raw_os_error(errno) }
        }
        DirectoryError::Unsettled => RegionError::Unsettled { name: owned() },
        DirectoryError::HeldBySuspect { slot } => RegionError::Suspect { slot },
        DirectoryError::Damaged(damage) => RegionError::Damaged(damage),
        // `NotMapped` and `Reentered` mean that our own books are wrong: others have taken over.
        _ => RegionError::Fenced,
    }
}
