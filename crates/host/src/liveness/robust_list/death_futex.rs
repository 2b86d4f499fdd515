//! The death futex of a peer: when its heartbeat thread ends, the kernel marks this word and wakes a sleeper.
//!
//! The C library uses a thread's robust list for robust mutexes. A heartbeat thread locks none, so its list can be
//! ours: one entry, whose futex is the death futex.
//!
//! # Invariants
//! 1. The list lies in memory of this process, never in the window: another process could change a pointer there.
//! 2. The kernel knows the list as long as the [`RobustList`] lives, and the thread's former list afterwards.
//!
//! # What it does not do
//! A death futex that has fired proves nothing by itself: the heartbeat thread may end before other threads of its
//! process.

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

/// A registered death futex: it fires if the thread that registered it ends. Only that thread may have this value.
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
    /// Registers `word`, which gets the value `death_futex`: the kernel marks it when the calling thread ends.
    /// `death_futex` must name that thread.
    ///
    /// # Errors
    /// Those of the kernel: a sandbox forbids robust lists, or the kernel has none.
    pub(crate) fn at(word: &'a AtomicU64, death_futex: DeathFutex) -> io::Result<Self> {
        let (former, _) = registered()?;
        let null = ptr::null();
        let pending = AtomicUsize::new(0);
        let list = Box::into_raw(Box::new(List {
            head: Head { list: Entry { next: null }, futex_offset: 0, list_op_pending: pending },
            entry: Entry { next: null },
        }));
        // SAFETY: `&mut *` wants a valid pointer with no other user: `list` comes from a new box, and the kernel does
        // not know it yet.
        let written = unsafe { &mut *list };
        let (head, entry) = (&raw const written.head, &raw const written.entry);
        written.head.list.next = entry;
        // The list is circular: its last entry points to the head.
        written.entry.next = head.cast();
        written.head.futex_offset = distance(entry.addr(), word.as_ptr().addr());
        let hung = Self { word, death_futex, list, former, not_send: PhantomData };
        // SAFETY: `register` wants a list that stays valid as long as the kernel knows it: `RobustList` keeps it so.
        unsafe { register(head) }?;
        // Release: pairs with the Acquire of a waiter that reads the word (`DeathNotice`); the list is registered by
        // then.
        word.store(death_futex.word(), Ordering::Release);
        Ok(hung)
    }
}

/// Bytes from one address to another. Differences of user addresses always fit.
fn distance(from: usize, to: usize) -> libc::c_long {
    libc::c_long::try_from(to.wrapping_sub(from).cast_signed()).unwrap_or(0)
}

impl Drop for RobustList<'_> {
    fn drop(&mut self) {
        // Before the kernel forgets the list, so that no thread waits for a death futex that can not fire. Release:
        // pairs with the Acquire of a waiter that reads the word.
        self.word.store(self.death_futex.taken_down().word(), Ordering::Release);
        // SAFETY: `register` wants a list that stays valid as long as the kernel knows it: this one was registered
        // before ours, by the C library, which keeps it valid while the thread lives.
        if unsafe { register(self.former) }.is_ok() {
            // SAFETY: `from_raw` wants a pointer from a box, with no other user: it is, and the kernel has forgotten
            // it.
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
    fn a_thread_that_ends_with_a_registered_death_futex_fires_it_and_wakes_a_sleeper() {
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
        let pending = death_futex(&word);
        assert!(!pending.has_fired());
        let awaited = pending.with_sleepers().word();
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
    fn a_death_futex_that_was_taken_down_does_not_fire() {
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
