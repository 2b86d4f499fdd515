//! Waiting for a word to change.
//!
//! # What it owns
//! The two ways of waiting, and the choice between them: by the kind of memory, once, and by whether
//! peers of other kernels are attached, at each wait.
//!
//! # Invariants
//! 1. A [`Futex`] exists only for memory where a wake reaches every process of this kernel that can map it:
//!    its only constructor checks the kind. In other memory a thread polls (`poll.rs`), and a wake does nothing.
//! 2. While peers of several kernels are attached, no wake is relied on: a sleep on the futex lasts no longer than a
//!    nap would.
//! 3. No wait is longer than [`LONGEST_WAIT`], so a waiter goes on even if a wake could not be sent, say by a peer of
//!    another kernel that attached during the sleep. Only a wait for owners of this kernel, whose unlock and
//!    whose death both wake it, may last [`LONGEST_WAIT_WITH_NOTICE`].
//! 4. The futex is the low half of the word, and shared: the kernel knows it by file and offset, not
//!    by address.
//!
//! # What it does not do
//! It does not know what a thread waits for.

use std::{ffi::c_void, ptr, sync::OnceLock, thread, time::Duration};

use commonhold_sync::{Park, Wake};
use commonhold_window::atomic::AtomicU64;
use rustix::{
    io::Errno,
    thread::{
        self as threads,
        futex::{Wait as FutexWaiter, WaitFlags, WaitvFlags},
    },
    time::{ClockId, Timespec},
};

use super::{
    clock::monotonic_ns,
    poll::{self, low_half},
    spin::Spinner,
};
use crate::memory::MemoryKind;

/// The longest wait, in nanoseconds.
const LONGEST_WAIT: u64 = 50_000_000;
/// The longest wait that both the owner's unlock and the owner's death end.
const LONGEST_WAIT_WITH_NOTICE: u64 = 1_000_000_000;
/// Sleep after a futex call that failed, in nanoseconds.
const NAP_AFTER_FAILURE: u64 = 1_000_000;

/// How threads of this process wait for words of one window.
#[derive(Debug)]
pub(crate) struct Waiting {
    futex: Option<Futex>,
    spinner: Spinner,
}

/// Waits in the kernel. A value of this type proves that futexes work in the memory.
#[derive(Debug, Clone, Copy)]
struct Futex(());

/// Processors that this thread may run on.
fn processors() -> u32 {
    threads::sched_getaffinity(None).map_or(1, |set| set.count())
}

impl Waiting {
    pub(crate) fn for_kind(kind: MemoryKind) -> Self {
        Self { futex: Futex::for_kind(kind), spinner: Spinner::new(processors() > 1) }
    }

    pub(crate) const fn name(&self, spans_kernels: bool) -> &'static str {
        match (self.futex, spans_kernels) {
            (Some(_), false) => "futex",
            (Some(_), true) => "futex and poll",
            (None, _) => "poll",
        }
    }

    /// Waits for a word that a peer of another kernel may change.
    pub(crate) fn wait_among_kernels(&self, word: &AtomicU64, expected: u64, until: u64) {
        let expected = low_half(expected);
        poll::wait(word, expected, bounded(until, LONGEST_WAIT), |moment| match self.futex {
            Some(futex) => futex.wait(word, expected, moment),
            None => sleep_until(moment),
        });
    }
}

/// Whether this kernel can wait for several words at once (Linux 5.16), and no sandbox forbids it.
fn waitv_works() -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    *WORKS.get_or_init(|| {
        let word = AtomicU64::new(0);
        // The word does not have the expected value, so a kernel that knows the call returns at once and says so.
        let waiter = waiter(&word, 1);
        threads::futex::waitv(&[waiter], WaitvFlags::empty(), None, ClockId::Monotonic)
            == Err(Errno::AGAIN)
    })
}

fn waiter(word: &AtomicU64, expected: u64) -> FutexWaiter {
    let mut waiter = FutexWaiter::new();
    waiter.val = low_half(expected).into();
    waiter.uaddr = Futex::address(word).cast::<c_void>().into();
    waiter.flags = WaitFlags::SIZE_U32;
    waiter
}

/// The moment until which one call may wait.
fn bounded(until: u64, longest: u64) -> u64 {
    until.min(monotonic_ns().saturating_add(longest))
}

fn sleep_until(moment: u64) {
    thread::sleep(Duration::from_nanos(moment.saturating_sub(monotonic_ns())));
}

impl Park for Waiting {
    fn now(&self) -> u64 {
        monotonic_ns()
    }

    fn wait(&self, word: &AtomicU64, expected: u64, until: u64) {
        match self.futex {
            Some(futex) => {
                futex.wait(word, low_half(expected), bounded(until, LONGEST_WAIT));
            }
            None => self.wait_among_kernels(word, expected, until),
        }
    }

    fn wake(&self, word: &AtomicU64, who: Wake) {
        self.wake_any(word, who);
    }

    fn wake_any(&self, word: &AtomicU64, who: Wake) -> bool {
        self.futex.is_some_and(|futex| futex.wake(word, who))
    }

    #[inline]
    fn spin(&self, word: &AtomicU64, turn: u32) -> bool {
        self.spinner.pause(word, turn)
    }

    fn has_spun(&self, word: &AtomicU64, won: bool) {
        self.spinner.learn(word, won);
    }
}

impl Waiting {
    /// Whether [`wait_for_any`](Self::wait_for_any) works here.
    pub(crate) fn hears_death_futexes(&self) -> bool {
        self.futex.is_some() && waitv_works()
    }

    /// Sleeps while all words are as expected, until one of them is woken or the time is `until`.
    pub(crate) fn wait_for_any(&self, words: &[(&AtomicU64, u64)], until: u64) {
        let waiters: Vec<_> =
            words.iter().map(|(word, expected)| waiter(word, *expected)).collect();
        let until =
            Timespec::try_from(Duration::from_nanos(bounded(until, LONGEST_WAIT_WITH_NOTICE))).ok();
        let flags = WaitvFlags::empty();
        match threads::futex::waitv(&waiters, flags, until.as_ref(), ClockId::Monotonic) {
            // A word was woken or has changed, or the time is up, or a signal came.
            Ok(_) | Err(Errno::AGAIN | Errno::TIMEDOUT | Errno::INTR) => {}
            // The caller will try again at once. Without a pause it would burn the processor.
            Err(_) => thread::sleep(Duration::from_nanos(NAP_AFTER_FAILURE)),
        }
    }
}

impl Futex {
    fn for_kind(kind: MemoryKind) -> Option<Self> {
        kind.futex_works().then_some(Self(()))
    }

    /// The address of the low half. Words are little-endian (`commonhold-layout` refuses to compile
    /// otherwise), so it is the address of the word.
    const fn address(word: &AtomicU64) -> *mut u32 {
        word.as_ptr().cast()
    }

    fn wait(self, word: &AtomicU64, expected: u32, until: u64) {
        let (seconds, rest) = (until / 1_000_000_000, until % 1_000_000_000);
        let deadline = libc::timespec {
            tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX),
            tv_nsec: libc::c_long::try_from(rest).unwrap_or(0),
        };
        // SAFETY: this futex call wants the address of a mapped word, which `word` is a reference to,
        // and a deadline or null. It only reads them.
        let result = unsafe {
            libc::syscall(
                libc::SYS_futex,
                Self::address(word),
                libc::FUTEX_WAIT_BITSET,
                expected,
                ptr::from_ref(&deadline),
                ptr::null::<u32>(),
                libc::FUTEX_BITSET_MATCH_ANY,
            )
        };
        if result == 0 {
            return;
        }
        let error = std::io::Error::last_os_error();
        match Errno::from_io_error(&error) {
            // The word has changed, or the time is up, or a signal came.
            Some(Errno::AGAIN | Errno::TIMEDOUT | Errno::INTR) => {}
            // A sandbox forbids it, say. The caller will try again at once, and without a pause would burn the
            // processor.
            _ => thread::sleep(Duration::from_nanos(NAP_AFTER_FAILURE)),
        }
    }

    /// Wakes sleepers. Returns whether there may have been any.
    fn wake(self, word: &AtomicU64, who: Wake) -> bool {
        let count = match who {
            Wake::One => 1,
            Wake::All => libc::c_int::MAX,
        };
        // SAFETY: this futex call wants an address, and reads nothing there.
        let woken =
            unsafe { libc::syscall(libc::SYS_futex, Self::address(word), libc::FUTEX_WAKE, count) };
        // A failure (-1) leaves it open whether there were sleepers.
        woken != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{memory::FileSystem, scratch::Scratch};
    use commonhold_layout::{Extent, Offset};
    use commonhold_space::BackingMemory;
    use commonhold_window::atomic::Ordering;
    use std::{sync::atomic::AtomicBool, time::Instant};

    const NFS: MemoryKind = MemoryKind::File { file_system: FileSystem::from_magic(0x6969) };

    #[test]
    fn there_is_no_futex_where_other_kernels_may_write() {
        assert!(Futex::for_kind(NFS).is_none());
        assert_eq!(Waiting::for_kind(NFS).name(false), "poll");
        assert_eq!(Waiting::for_kind(MemoryKind::Tmpfs).name(false), "futex");
        assert_eq!(Waiting::for_kind(MemoryKind::Tmpfs).name(true), "futex and poll");
    }

    #[test]
    fn a_wait_ends_at_its_deadline_or_when_the_word_has_another_value() {
        for kind in [NFS, MemoryKind::Tmpfs] {
            let waiting = Waiting::for_kind(kind);
            let word = AtomicU64::new(7);
            let until = waiting.now() + 3_000_000;
            while waiting.now() < until {
                waiting.wait(&word, 7, until);
            }
            assert!(waiting.now() >= until);
            // Only the low half counts.
            word.store(7 | 1 << 32, Ordering::Relaxed);
            let began = Instant::now();
            waiting.wait(&word, 7, u64::MAX);
            assert!(began.elapsed() < Duration::from_secs(5), "the longest wait is 50 ms");
            waiting.wait(&word, 8, u64::MAX);
            waiting.wait(&word, 7, 0);
        }
    }

    #[test]
    fn a_wake_reaches_a_sleeper_through_another_mapping_of_the_file() {
        let scratch = Scratch::new();
        let one = scratch.window("a", 4096);
        one.commit(Extent::new(0, 4096).unwrap()).unwrap();
        let two = crate::memory::FileLocation::of_path(&scratch.path("a")).open().unwrap();
        assert_ne!(one.window().word(Offset::ZERO).unwrap().as_ptr(), {
            two.window().word(Offset::ZERO).unwrap().as_ptr()
        });
        let futex = Waiting::for_kind(MemoryKind::Tmpfs).futex.unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                let word = one.window().word(Offset::ZERO).unwrap();
                let began = Instant::now();
                // An hour: only a wake ends it, since the value does not change.
                futex.wait(word, 0, monotonic_ns() + 3_600_000_000_000);
                done.store(true, Ordering::Relaxed);
                began.elapsed()
            });
            let word = two.window().word(Offset::ZERO).unwrap();
            while !done.load(Ordering::Relaxed) {
                futex.wake(word, Wake::All);
                thread::yield_now();
            }
            assert!(sleeper.join().unwrap() < Duration::from_secs(600));
        });
    }
}
