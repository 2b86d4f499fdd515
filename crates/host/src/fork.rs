//! Noticing that this process is a forked child.
//!
//! # What it owns
//! One page that the kernel wipes in every child, and the handler that runs in children made by `fork`. Which
//! descriptors the handler closes, `own_fd.rs` knows.
//!
//! # Invariants
//! 1. The word in the page is 0, or the *epoch* of this process: a number that none of its ancestors had when it
//!    forked. So a guard made in the parent sees another word in a child, in the child's children, and also after
//!    the child has made a guard of its own.
//! 2. The page is wiped by the kernel (`MADV_WIPEONFORK`), so raw `clone` is noticed too; where the
//!    kernel cannot, the `pthread_atfork` handler wipes it.
//! 3. The handler does only what is safe between `fork` and `exec` in a program with threads: atomics
//!    and system calls. Nothing here waits for another thread, which a child may not have.
//!
//! # What it does not do
//! It stops nothing: the owner of a resource asks [`ForkGuard::is_forked_child`] before touching it.

use std::{
    ptr::{self, NonNull},
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering},
};

use rustix::{
    io::Errno,
    mm::{self, Advice, MapFlags, ProtFlags},
};

const PAGE: usize = 4096;

/// The word in the wiped page; null until the first guard is made.
static WORD: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());
/// The last epoch given out. A child inherits its value, so its own epoch is larger.
static LAST_EPOCH: AtomicU64 = AtomicU64::new(0);
static HANDLER_SET: AtomicBool = AtomicBool::new(false);
/// Tasks of the handler beside the wiping, one entry for each [`ChildTask`]: a `fn()`, or null. A process may fork while
/// another of its threads sets a task; the child then sees no task, and what the task would clean up does not exist yet.
/// No `OnceLock`: a child may be forked while another thread initialises it, and would wait for that thread for ever.
static IN_CHILD: [AtomicPtr<()>; 2] = [const { AtomicPtr::new(ptr::null_mut()) }; 2];

/// A task that the handler runs in a child made by `fork`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ChildTask {
    /// Closing descriptors of the parent.
    CloseDescriptors,
    /// Forgetting which words the kernel marks for the parent's threads.
    ForgetDeathWords,
}

impl ChildTask {
    /// Makes `run` the function for this task in every child from now on. `run` must keep invariant 3.
    pub(crate) fn set(self, run: fn()) {
        if let Some(task) = IN_CHILD.get(self as usize) {
            // Relaxed: the function is code, which is there from the start.
            task.store(run as *mut (), Ordering::Relaxed);
        }
    }
}

/// Remembers which process made it.
#[derive(Debug, Clone, Copy)]
pub struct ForkGuard {
    word: &'static AtomicU64,
    epoch: u64,
}

impl ForkGuard {
    /// A guard of the process that calls.
    ///
    /// # Errors
    /// The error of `mmap` if there is no memory for the page, or of `pthread_atfork`.
    pub fn new() -> Result<Self, std::io::Error> {
        Ok(Self::made_here()?)
    }

    pub(crate) fn made_here() -> Result<Self, Errno> {
        set_handler()?;
        let word = word()?;
        let mut epoch = word.load(Ordering::Relaxed);
        if epoch == 0 {
            // The first guard of this process, or the first since it was forked. If several threads
            // come here, one of them sets the epoch, and the others take that.
            let fresh = LAST_EPOCH.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
            epoch = match word.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => fresh,
                Err(other) => other,
            };
        }
        Ok(Self { word, epoch })
    }

    /// The epoch of the process that made the guard: invariant 1.
    pub(crate) const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether the calling process did not make the guard, but is a child of the process that did (or a child's
    /// child). One relaxed load.
    #[inline]
    #[must_use]
    pub fn is_forked_child(&self) -> bool {
        // Relaxed: the page is written before the child runs, and a process's own epoch never changes.
        self.word.load(Ordering::Relaxed) != self.epoch
    }
}

fn word() -> Result<&'static AtomicU64, Errno> {
    // Acquire: pairs with the AcqRel below; the page is advised before it is used.
    let mut found = WORD.load(Ordering::Acquire);
    if found.is_null() {
        let page = wiped_page()?;
        let fresh = page.cast::<AtomicU64>().as_ptr();
        let nobody = ptr::null_mut();
        found = match WORD.compare_exchange(nobody, fresh, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => fresh,
            Err(other) => {
                // SAFETY: `munmap` wants a range that nothing uses: the page was mapped just now and
                // no other code knows its address.
                let _ = unsafe { mm::munmap(page.as_ptr().cast(), PAGE) };
                other
            }
        };
    }
    // SAFETY: `&*` wants a valid pointer for the lifetime: `found` came from `wiped_page`, is aligned
    // to a page, is never unmapped once it stands in `WORD`, and is only ever used as an atomic.
    Ok(unsafe { &*found })
}

fn wiped_page() -> Result<NonNull<u8>, Errno> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: `mmap_anonymous` wants no pointer into a range that it replaces: with a null hint and
    // without MAP_FIXED it replaces none.
    let page = unsafe { mm::mmap_anonymous(ptr::null_mut(), PAGE, access, MapFlags::PRIVATE) }?;
    // SAFETY: `madvise` wants a range that no other code relies on: the page is ours and new.
    // If the kernel does not know the advice, the handler still wipes the page.
    let _ = unsafe { mm::madvise(page, PAGE, Advice::LinuxWipeOnFork) };
    NonNull::new(page.cast()).ok_or(Errno::NOMEM)
}

fn set_handler() -> Result<(), Errno> {
    // Two threads may both set it: running the handler twice does no harm. Waiting for the other thread would, if
    // this process is forked meanwhile: the child does not have that thread.
    if HANDLER_SET.load(Ordering::Relaxed) {
        return Ok(());
    }
    // SAFETY: `pthread_atfork` wants handlers that may run in any thread that forks, at any time: ours
    // does nothing but atomics and `close`.
    let error = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    if error != 0 {
        return Err(Errno::from_raw_os_error(error));
    }
    HANDLER_SET.store(true, Ordering::Relaxed);
    Ok(())
}

extern "C" fn in_child() {
    // Acquire: pairs with the AcqRel in `word`.
    let word = WORD.load(Ordering::Acquire);
    // SAFETY: `as_ref` wants null or a valid pointer: what stands in `WORD` is a page that is never
    // unmapped, and the child has a copy of it.
    if let Some(word) = unsafe { word.as_ref() } {
        word.store(0, Ordering::Relaxed);
    }
    for task in &IN_CHILD {
        let task = task.load(Ordering::Relaxed);
        if !task.is_null() {
            // SAFETY: `transmute` wants a pointer that is a `fn()`: nothing else is ever stored there but null.
            let run = unsafe { std::mem::transmute::<*mut (), fn()>(task) };
            run();
        }
    }
}
