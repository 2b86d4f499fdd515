//! Looking again before sleeping: how often, and whether it is worth it.
//!
//! Who looks at the word of a lock takes its cache line away from the holder, who would have done many turns on it. So
//! there are few looks, each after twice the pause of the last. And where they do not help, since the lock is held for
//! longer than they last, they only cost: that is learnt, for each lock.
//!
//! # Invariants
//! 1. A spin that did not end in the lock keeps the next ones on this word from being tried, twice as many each time, up to
//!    [`MOST_SKIPPED`]; one that did lets all be tried again.
//! 2. What is learnt is a hint: words share entries, and threads overwrite each other's.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

/// Looks in a row.
const LOOKS: u32 = 6;
/// Pauses before the first look.
const FIRST_PAUSES: u32 = 4;
/// Waits without a spin, at most, before one is tried again.
const MOST_SKIPPED: u16 = 63;
const ENTRIES: usize = 64;

/// What is known of the words of one attachment.
#[derive(Debug)]
pub(crate) struct Spinner {
    /// On one processor nobody gives the lock back while we spin.
    is_worth_it: bool,
    /// Of each entry, how many waits are still to go without a spin, and in the upper half how many that were the last time.
    lessons: [AtomicU16; ENTRIES],
}

impl Spinner {
    pub(crate) fn new(is_worth_it: bool) -> Self {
        Self { is_worth_it, lessons: [const { AtomicU16::new(0) }; ENTRIES] }
    }

    fn lesson(&self, word: &AtomicU64) -> Option<&AtomicU16> {
        // The address of a word of a lock: neighbours have entries of their own.
        self.lessons.get((std::ptr::from_ref(word).addr() / 8) % ENTRIES)
    }

    /// The `turn`-th pause in a row, from 0; `false` when it is time to sleep.
    pub(crate) fn pause(&self, word: &AtomicU64, turn: u32) -> bool {
        if turn >= LOOKS || !self.is_worth_it || (turn == 0 && self.skips(word)) {
            return false;
        }
        for _ in 0..FIRST_PAUSES << turn {
            std::hint::spin_loop();
        }
        true
    }

    fn skips(&self, word: &AtomicU64) -> bool {
        let Some(lesson) = self.lesson(word) else { return false };
        let seen = lesson.load(Ordering::Relaxed);
        let left = seen & 0xff;
        if left > 0 {
            lesson.store(seen - 1, Ordering::Relaxed);
        }
        left > 0
    }

    /// Whether the lock was had without a sleep.
    pub(crate) fn learn(&self, word: &AtomicU64, won: bool) {
        let Some(lesson) = self.lesson(word) else { return };
        let skipped = lesson.load(Ordering::Relaxed) >> 8;
        let next = if won { 0 } else { (2 * skipped + 1).min(MOST_SKIPPED) };
        lesson.store(next << 8 | next, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spins(spinner: &Spinner, word: &AtomicU64) -> u32 {
        (0..).find(|turn| !spinner.pause(word, *turn)).unwrap()
    }

    #[test]
    fn a_spin_ends_and_is_not_tried_on_one_processor() {
        let word = AtomicU64::new(0);
        assert_eq!(spins(&Spinner::new(true), &word), LOOKS);
        assert_eq!(spins(&Spinner::new(false), &word), 0);
    }

    #[test]
    fn what_did_not_help_is_tried_more_and_more_seldom_until_it_helps() {
        let (spinner, word) = (Spinner::new(true), AtomicU64::new(0));
        let mut waits_without = Vec::new();
        for _ in 0..8 {
            spinner.learn(&word, false);
            waits_without.push((0..1000).position(|_| spins(&spinner, &word) > 0).unwrap());
        }
        assert_eq!(waits_without, [1, 3, 7, 15, 31, 63, 63, 63]);
        spinner.learn(&word, true);
        assert_eq!(spins(&spinner, &word), LOOKS);
    }
}
