//! Waiting by polling, where no wake can be relied on.
//!
//! # What it owns
//! For each thread, how long it has been waiting for its current word. This outlives one call, since
//! locks wait in slices and check between them whether the owner lives.
//!
//! # Invariants
//! 1. A wait that has just begun spins, then yields, then naps; one that goes on
//!    only naps.
//! 2. A nap is an eighth of the time waited so far, within [`NAP_LEAST`] and [`NAP_MOST`]. So a change
//!    is noticed late by one nap at most, and a long wait costs next to nothing.
//!
//! # What it does not do
//! It does not know how to nap: the caller says. Where a futex reaches some of the wakers, a nap is a sleep on it.

use std::{cell::Cell, thread};

use commonhold_window::atomic::{AtomicU64, Ordering};

use super::clock::monotonic_ns;

/// Looks at the word before the first yield.
const LOOKS: u32 = 200;
/// Yields before the first nap.
const YIELDS: u32 = 20;
/// A nap is the time waited so far, divided by this.
const NAP_PART: u64 = 8;
/// Shortest and longest nap, in nanoseconds.
const NAP_LEAST: u64 = 20_000;
const NAP_MOST: u64 = 5_000_000;
/// If a wait for the same value of the same word begins within this time after the last one, in nanoseconds, it
/// continues that one.
const PAUSE_MOST: u64 = 100_000_000;

/// A wait that may go on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Wait {
    /// Its address.
    word: usize,
    expected: u32,
    began: u64,
    ended: u64,
}

thread_local! {
    static LAST: Cell<Wait> = const { Cell::new(Wait { word: 0, expected: 0, began: 0, ended: 0 }) };
}

impl Wait {
    /// A wait that continues `last`, or a new one that begins `now`; and whether it continues.
    fn resume(last: Self, word: usize, expected: u32, now: u64) -> (Self, bool) {
        let same = (last.word, last.expected) == (word, expected);
        let goes_on = same && now.saturating_sub(last.ended) < PAUSE_MOST;
        let began = if goes_on { last.began } else { now };
        (Self { word, expected, began, ended: now }, goes_on)
    }

    const fn nap(&self, now: u64) -> u64 {
        let part = now.saturating_sub(self.began) / NAP_PART;
        // `Ord::clamp` is not const.
        if part < NAP_LEAST {
            NAP_LEAST
        } else if part > NAP_MOST {
            NAP_MOST
        } else {
            part
        }
    }
}

/// The part of a word that a futex compares.
pub(super) fn low_half(word: u64) -> u32 {
    // The mask makes it fit.
    u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0)
}

/// Waits while the low half of `word` is `expected`, until `until` at most. `nap` sleeps until the moment it is
/// given, or shorter.
pub(crate) fn wait(word: &AtomicU64, expected: u32, until: u64, nap: impl Fn(u64)) {
    // Relaxed: the caller loads the word again, with the ordering it needs.
    let changed = || low_half(word.load(Ordering::Relaxed)) != expected;
    let address = std::ptr::from_ref(word).addr();
    let (mut wait, goes_on) = Wait::resume(LAST.get(), address, expected, monotonic_ns());
    if !goes_on && comes_soon(changed) {
        return;
    }
    while !changed() {
        let now = monotonic_ns();
        wait.ended = now;
        if now >= until {
            break;
        }
        nap(until.min(now.saturating_add(wait.nap(now))));
    }
    LAST.set(wait);
}

fn comes_soon(changed: impl Fn() -> bool) -> bool {
    for _ in 0..LOOKS {
        if changed() {
            return true;
        }
        std::hint::spin_loop();
    }
    for _ in 0..YIELDS {
        thread::yield_now();
        if changed() {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn naps_grow_with_the_time_waited_within_their_bounds() {
        let wait = Wait { began: 1_000, ..Wait::default() };
        assert_eq!(wait.nap(0), NAP_LEAST);
        assert_eq!(wait.nap(1_000 + 8_000_000), 1_000_000);
        assert_eq!(wait.nap(u64::MAX), NAP_MOST);
    }

    #[test]
    fn a_wait_continues_if_the_same_value_of_the_same_word_is_awaited_soon_after() {
        let last = Wait { word: 8, expected: 7, began: 5, ended: 1_000 };
        assert_eq!(Wait::resume(last, 8, 7, 2_000).0.began, 5);
        for (word, expected, now) in [(16, 7, 2_000), (8, 6, 2_000), (8, 7, 1_000 + PAUSE_MOST)] {
            let (fresh, goes_on) = Wait::resume(last, word, expected, now);
            assert_eq!((fresh.began, goes_on), (now, false));
        }
    }

    #[test]
    fn the_second_slice_of_a_wait_begins_with_a_nap_as_long_as_the_first_slice_reached() {
        let word = AtomicU64::new(7);
        let naps = RefCell::new(Vec::new());
        let slice = || {
            let begun = monotonic_ns();
            wait(&word, 7, begun + 2_000_000, |to| {
                naps.borrow_mut().push(to - begun);
                while monotonic_ns() < to {}
            });
            naps.take().first().copied()
        };
        // On a busy machine the looks before the first nap may take a whole slice.
        while slice().is_none() {}
        // An eighth of the 2 ms waited so far, less the time between `begun` and the look at the clock in `wait`,
        // which is longer in the first call because its code is loaded then.
        assert!(slice() >= Some(240_000));
        word.store(8, Ordering::Relaxed);
        assert_eq!(slice(), None);
    }
}
