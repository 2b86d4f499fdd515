//! The death futex of a process: a word that the kernel marks, and whose sleeper it wakes, when the heartbeat thread ends.
//!
//! The C library uses a thread's robust list for robust mutexes. The threads that hang death futexes lock none, so their lists
//! are ours: one entry, whose futex is the death futex.
//!
//! # Invariants
//! 1. The list lies in memory of this process, never in the window: a neighbour could bend a pointer
//!    there.
//! 2. The kernel knows the list as long as the [`RobustList`] lives, and the thread's former list afterwards.
//!
//! # What it does not do
//! It proves nothing: the thread may end before others of its process do.

use std::{io, marker::PhantomData, ptr, sync::atomic::AtomicUsize};

use commonhold_layout::DeathFutex;
use commonhold_window::atomic::{AtomicU64, Ordering};

use super::{Entry, Head, register, registered};

/// The head, and the only entry.
#[derive(Debug)]
struct List {
    head: Head,
    entry: Entry,
}

/// A death futex that is rung if the thread which hung it ends. It belongs to that thread.
#[derive(Debug)]
pub(crate) struct RobustList<'a> {
    word: &'a AtomicU64,
    death_futex: DeathFutex,
    /// At an address that stays.
    list: *mut List,
    former: *const Head,
    not_send: PhantomData<*const ()>,
}

impl<'a> RobustList<'a> {
    /// Has the kernel ring `word` at the end of the calling thread, whose death futex is `death_futex`.
    ///
    /// # Errors
    /// The kernel refuses (a sandbox), or has no such lists.
    pub(crate) fn at(word: &'a AtomicU64, death_futex: DeathFutex) -> io::Result<Self> {
        let (former, _) = registered()?;
        let null = ptr::null();
        let pending = AtomicUsize::new(0);
        let list = Box::into_raw(Box::new(List {
            head: Head { list: Entry { next: null }, futex_offset: 0, list_op_pending: pending },
            entry: Entry { next: null },
        }));
        // SAFETY: `list` comes from a box that nobody else knows yet.
        let written = unsafe { &mut *list };
        let (head, entry) = (&raw const written.head, &raw const written.entry);
        written.head.list.next = entry;
        // The end of the list is its beginning.
        written.entry.next = head.cast();
        written.head.futex_offset = distance(entry.addr(), word.as_ptr().addr());
        let hung = Self { word, death_futex, list, former, not_send: PhantomData };
        // SAFETY: `register` wants a list that stays valid as long as the kernel knows it: `RobustList` keeps it so.
        unsafe { register(head) }?;
        // Release: who finds the death futex there may rely on it.
        word.store(death_futex.word(), Ordering::Release);
        Ok(hung)
    }
}

/// Bytes from one address to another; addresses of programs fit.
fn distance(from: usize, to: usize) -> libc::c_long {
    libc::c_long::try_from(to.wrapping_sub(from).cast_signed()).unwrap_or(0)
}

impl Drop for RobustList<'_> {
    fn drop(&mut self) {
        // Before the kernel forgets it: nobody waits for a death futex that nobody would ring.
        self.word.store(self.death_futex.taken_down().word(), Ordering::Release);
        // SAFETY: `register` wants a list that stays valid as long as the kernel knows it: this one was there before
        // ours, by whoever registered it.
        if unsafe { register(self.former) }.is_ok() {
            // SAFETY: it comes from a box, and the kernel does not know it any more.
            drop(unsafe { Box::from_raw(self.list) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{liveness::thread_id, memory::MemoryKind, wait::Waiting};
    use commonhold_sync::Park as _;
    use std::{mem, sync::Arc, thread};

    fn death_futex(word: &AtomicU64) -> DeathFutex {
        DeathFutex::from_word(word.load(Ordering::Acquire))
    }

    #[test]
    fn a_thread_that_ends_with_its_death_futex_hung_rings_it_and_wakes_a_sleeper() {
        let waiting = Waiting::for_kind(MemoryKind::Tmpfs);
        assert!(waiting.hears_death_futexes());
        let word = Arc::new(AtomicU64::new(0));
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let theirs = Arc::clone(&word);
        let thread = thread::spawn(move || {
            mem::forget(RobustList::at(&theirs, DeathFutex::of_thread(thread_id())).unwrap());
            wait.recv().unwrap();
        });
        while !death_futex(&word).is_there() {
            thread::yield_now();
        }
        let silent = death_futex(&word);
        assert!(!silent.has_fired());
        let awaited = silent.with_sleepers().word();
        word.store(awaited, Ordering::Release);
        let lock = AtomicU64::new(7);
        go.send(()).unwrap();
        while !death_futex(&word).has_fired() {
            waiting.wait_for_any(&[(&lock, 7), (&word, awaited)], waiting.now() + 50_000_000);
        }
        thread.join().unwrap();
        assert!(death_futex(&word).is_there());
    }

    #[test]
    fn a_death_futex_that_was_taken_down_is_not_rung() {
        let word = Arc::new(AtomicU64::new(0));
        let theirs = Arc::clone(&word);
        let thread = thread::spawn(move || {
            let hung = RobustList::at(&theirs, DeathFutex::of_thread(thread_id())).unwrap();
            let there = death_futex(&theirs).is_there();
            drop(hung);
            there
        });
        assert!(thread.join().unwrap());
        assert_eq!(death_futex(&word), DeathFutex::NONE);
    }
}
