//! The threads of the machine, and spaces whose memory this program can touch.
//!
//! # What it owns
//! One thread that reads faults, one worker that serves what needs no pager, workers that wait for pagers, and a clock
//! that gives up reads of pagers after a time. They end with the last [`Paging`] and the last [`PagedSpace`].
//!
//! # Invariants
//! 1. While memory of a space can be touched, there are threads that serve its faults: each [`PagedSpace`]
//!    keeps them alive.
//! 2. The thread that reads faults never waits for a lock whose holder waits for a pager or for a fault. The list
//!    of spaces has a lock of its own.
//! 3. The thread that reads faults never drops the last handle of a space: it uses a space with the list locked, so
//!    the thread that takes the space off the list waits for it.
//! 4. The threads take no signals. A handler may touch memory of a space, and then waits for these threads: if it ran
//!    in one of them, it would wait for ever.
//! 5. The thread that reads faults waits for no lock of a table: a thread that replaces a mapping holds one, and waits
//!    until this thread has read its event.
//! 6. A pager that panics ends no worker: the worker goes on with the next pulse. For a worker whose pager has not
//!    returned in time, another one is started, up to a limit.
//! 7. A thread of the machine that touches memory of a space gets SIGBUS: if it waited, it could wait for itself. Only a
//!    pager can make it do so.

use std::{
    collections::BTreeMap,
    fmt, io,
    ops::Deref,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use commonhold_mm::{
    AddressSpace, Context, Error, Fault, Manager, Mmu, Pages, Settings, VirtualPage, VirtualSpan,
};
use commonhold_window::Window;
use parking_lot::Mutex;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::{
    deferred::Duty,
    ioctl::{FaultEvent, UserfaultError},
    mmu::{UffdMmu, refuse},
    reservation::Poisoned,
    workers::Workers,
};

/// The unit of [`Settings::patience`] here.
const TICK: Duration = Duration::from_secs(1);
/// The name of the workers that call pagers.
const PAGER: &str = "commonhold-pager";
/// How many workers at most are started for others whose pagers have not returned in time.
const SPARES: usize = 4;

/// Why a machine could not be started.
#[derive(Debug)]
#[non_exhaustive]
pub enum PagingError {
    /// There is no usable userfaultfd.
    Userfault(UserfaultError),
    /// The memory manager failed.
    Manager(Error),
    /// A thread could not be started.
    Thread(io::Error),
}

/// A memory manager on this process's own addresses, with the threads that serve its faults. Clones are the
/// same one.
#[derive(Debug, Clone)]
pub struct Paging {
    threads: Arc<Threads>,
}

/// The threads; they end when this is dropped.
struct Threads {
    shared: Arc<Shared>,
}

struct Shared {
    manager: Manager<UffdMmu>,
    /// The spaces by their first addresses.
    spaces: Mutex<BTreeMap<usize, AddressSpace<UffdMmu>>>,
    /// Pulses whose pager panicked.
    panics: AtomicU64,
    workers: Arc<Workers>,
}

impl Paging {
    /// Starts a machine with `workers` threads, at least one, that may wait for pagers. Of these, one space can have
    /// all but one wait for its pagers, or fewer if `settings` say so. [`Settings::patience`] is in seconds, from the
    /// next full one on.
    ///
    /// # Errors
    /// [`PagingError`].
    pub fn start(settings: Settings, workers: usize) -> Result<Self, PagingError> {
        let mmu = UffdMmu::new().map_err(PagingError::Userfault)?;
        let paging = settings.paging.min(workers.saturating_sub(1)).max(1);
        let settings = Settings { paging, ..settings };
        let manager = Manager::new(mmu, settings).map_err(PagingError::Manager)?;
        let (spaces, panics, team) = (Mutex::default(), AtomicU64::new(0), Arc::default());
        let shared = Arc::new(Shared { manager, spaces, panics, workers: team });
        let threads = Threads { shared };
        let start = |name, run| threads.shared.start(name, run).map_err(PagingError::Thread);
        start("commonhold-faults", Shared::attend)?;
        threads.shared.manager.mmu().userfault.set_read(true);
        start("commonhold-memory", Shared::serve_memory)?;
        for _ in 0..workers.max(1) {
            start(PAGER, Shared::serve_paging)?;
        }
        start("commonhold-clock", Shared::keep_time)?;
        Ok(Self { threads: Arc::new(threads) })
    }

    /// The memory manager, which makes objects and budgets, and does page-out.
    #[must_use]
    pub fn manager(&self) -> &Manager<UffdMmu> {
        &self.threads.shared.manager
    }

    /// How often a pager has panicked in a worker. The worker goes on with the next pulse.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.threads.shared.panics.load(Ordering::Relaxed)
    }

    /// A new address space of `pages` pages, from page 0 on, with nothing mapped.
    ///
    /// # Errors
    /// As for [`Manager::space`].
    pub fn space(&self, pages: Pages) -> Result<PagedSpace, Error> {
        self.space_at(VirtualSpan::new(VirtualPage::new(0), pages).ok_or(Error::BadSpan)?)
    }

    /// A new address space of these pages.
    pub(crate) fn space_at(&self, span: VirtualSpan) -> Result<PagedSpace, Error> {
        let space = self.manager().space(span)?;
        let reservation = &space.machine().reservation;
        let (base, len) = (reservation.base(), reservation.len());
        // SAFETY: `from_raw` wants an address aligned to 8 bytes, which a page is, and bytes that stay mapped while
        // the window lives: the range is reserved while the space lives, and the `PagedSpace` drops the window first.
        // Where nothing is mapped, or the mapping does not permit the access, a signal ends the process, and nothing
        // is read or written. No other code in the process has the address.
        let window = unsafe { Window::from_raw(base.cast(), len) };
        self.threads.shared.spaces.lock().insert(base.as_ptr().addr(), space.clone());
        Ok(PagedSpace { window, space, threads: Arc::clone(&self.threads) })
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let mmu = self.shared.manager.mmu();
        if mmu.guard().is_forked_child() {
            // The threads run in the parent only.
            self.shared.workers.forget();
            return;
        }
        mmu.userfault.set_read(false);
        mmu.later.stop();
        mmu.memory.stop();
        mmu.paging.stop();
        self.shared.workers.stop();
        self.shared.workers.join();
    }
}

impl Shared {
    fn start(self: &Arc<Self>, name: &'static str, run: fn(&Arc<Self>)) -> io::Result<()> {
        let shared = Arc::clone(self);
        self.workers.start(name, move || run(&shared))
    }

    /// Gives up the reads of pagers that take too long, and starts workers for those that wait for them.
    fn keep_time(self: &Arc<Self>) {
        let mut spares = 0;
        while self.workers.pause(TICK) {
            self.manager.tick();
            // If a thread cannot be started now, the next tick tries again.
            while spares < self.manager.stuck().min(SPARES)
                && self.start(PAGER, Self::serve_paging).is_ok()
            {
                spares += 1;
            }
        }
    }

    /// Serves pulses that may need a pager.
    fn serve_paging(self: &Arc<Self>) {
        let signal = &self.manager.mmu().paging;
        while signal.wait() {
            // All that wait: a pulse that ends may let another one of its space be served, without a signal.
            while self.served(|| self.manager.serve_paging()) && !signal.is_stopped() {}
        }
    }

    /// Serves pulses that need none.
    fn serve_memory(self: &Arc<Self>) {
        let signal = &self.manager.mmu().memory;
        while signal.wait() {
            while self.served(|| self.manager.serve_memory()) && !signal.is_stopped() {}
        }
    }

    /// Serves a pulse, and says whether there may be more. The thread survives a pager that panics.
    fn served(&self, serve: impl FnOnce() -> bool) -> bool {
        // The pager runs with nothing locked, and the panic hook has printed its message.
        catch_unwind(AssertUnwindSafe(serve)).unwrap_or_else(|_| {
            self.panics.fetch_add(1, Ordering::Relaxed);
            true
        })
    }

    /// Reads faults.
    fn attend(self: &Arc<Self>) {
        let mmu = self.manager.mmu();
        while !mmu.later.is_stopped() {
            // At most a tick: if the program closes the descriptors, nothing ends the wait.
            let pause = mmu.later.work().map_or(TICK, |pause| pause.min(TICK));
            let pause = Timespec {
                tv_sec: i64::try_from(pause.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: pause.subsec_nanos().into(),
            };
            let (Ok(userfault), Ok(nudge)) = (mmu.userfault.to_read(), mmu.later.descriptor())
            else {
                return self.shut();
            };
            let mut waiting = [
                PollFd::from_borrowed_fd(userfault, PollFlags::IN),
                PollFd::from_borrowed_fd(nudge, PollFlags::IN),
            ];
            match poll(&mut waiting, Some(&pause)) {
                Ok(_) | Err(Errno::INTR) => {}
                // The kernel has no memory at the moment: try again after a pause.
                Err(_) => mmu.idle(u32::MAX),
            }
            if mmu.userfault.read(|event| self.tell(event)).is_err() {
                mmu.idle(u32::MAX);
            }
        }
    }

    /// The program has closed this machine's descriptors, and the kernel reports no more faults: pages that are missing would
    /// read as zeros. So no page can be accessed any more.
    fn shut(&self) {
        eprintln!(
            "commonhold: the program has closed the userfaultfd of its managed memory, which cannot be accessed any more"
        );
        self.manager.mmu().userfault.set_read(false);
        self.spaces.lock().values().for_each(|space| space.machine().reservation.shut());
    }

    /// Tells the manager of a fault.
    fn tell(&self, FaultEvent { address, access, thread }: FaultEvent) {
        let mmu = self.manager.mmu();
        let spaces = self.spaces.lock();
        let space = spaces.range(..=address).next_back().map(|(_, space)| space);
        let found =
            space.and_then(|space| Some((space, space.machine().reservation.page(address)?)));
        let Some((space, at)) = found else {
            return refuse(&mmu.userfault, address, mmu.page_size());
        };
        if let Some(name) = self.workers.name(thread) {
            // Before the poison, since the signal may end the process.
            eprintln!(
                "commonhold: the pager that runs in the thread {name} ({thread}) touched address {address:#x}, which \
                 the memory manager serves by such threads: a pager must not touch managed memory"
            );
            // A page in memory is served: nothing has to wait for that.
            if mmu.poison(space.machine(), at) != Poisoned::No {
                return;
            }
        }
        match space.fault(at, access, Context::Normal) {
            // `install` has woken the thread, or a worker will.
            Fault::Resolved | Fault::Pulsed => {}
            Fault::Full => {
                mmu.later.add(Arc::downgrade(&space.machine().reservation), at, Duty::Wake);
            }
            Fault::Failed(error) => mmu.wake(space.machine(), at, access, 0, Err(error)),
        }
    }
}

/// An address space whose memory this program can touch. Dropping it unmaps everything and frees its addresses.
///
/// A clone of the [`AddressSpace`] in it does not keep the threads alive that serve its faults.
pub struct PagedSpace {
    window: Window,
    // Behind the window, so that it is dropped after it.
    space: AddressSpace<UffdMmu>,
    // Last, so that faults are served until the space is dropped.
    threads: Arc<Threads>,
}

impl PagedSpace {
    /// All addresses of the space, from its page 0 on. An access to a page that is not in memory waits until it is.
    /// The process gets SIGSEGV where nothing is mapped or the mapping does not permit the access, and SIGBUS where
    /// a page cannot be brought in or lies past the end of its object.
    ///
    /// Direct I/O, `vmsplice` and registered buffers need [pinned](AddressSpace::pin) pages: what they write to pages
    /// that are evicted or written back meanwhile is lost. The addresses are the manager's: the README says what comes
    /// of `madvise`, `mmap` and others on them.
    #[must_use]
    pub const fn window(&self) -> &Window {
        &self.window
    }
}

impl Deref for PagedSpace {
    type Target = AddressSpace<UffdMmu>;

    fn deref(&self) -> &Self::Target {
        &self.space
    }
}

impl Drop for PagedSpace {
    fn drop(&mut self) {
        let base = self.space.machine().reservation.base().as_ptr().addr();
        // Kept, so that the handle is dropped after the lock is given up.
        let _struck_off = self.threads.shared.spaces.lock().remove(&base);
    }
}

impl fmt::Debug for PagedSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PagedSpace").field("space", &self.space).finish_non_exhaustive()
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads").field("workers", &self.shared.workers).finish()
    }
}

impl fmt::Display for PagingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Userfault(error) => error.fmt(f),
            Self::Manager(error) => error.fmt(f),
            Self::Thread(error) => write!(f, "a thread could not be started: {error}"),
        }
    }
}

impl std::error::Error for PagingError {}
