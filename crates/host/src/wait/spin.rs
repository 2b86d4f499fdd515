//! Spinning before a sleep: how often, and whether it is worth it.
//!
//! A thread that looks at a lock word takes its cache line away from the holder, which could have locked and unlocked
//! many times meanwhile. So there are few looks, each after twice the pause before the last. If the lock is held for
//! longer than a spin lasts, spinning only costs. That is learnt for each lock.
//!
//! # Invariants
//! 1. After a spin that did not get the lock, the next waits on this word do not spin: twice as many each time, up to
//!    [`MOST_SKIPPED`]. After a spin that got it, all do.
//! 2. What is learnt is a hint: words share entries, and threads overwrite each other's values.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

/// Looks at the word in one spin.
const LOOKS: u32 = 6;
/// Pause instructions before the first look.
const FIRST_PAUSES: u32 = 4;
/// Waits without a spin, at most, before one is tried again.
const MOST_SKIPPED: u16 = 63;
const ENTRIES: usize = 64;

/// What was learnt about the lock words of one attachment.
#[derive(Debug)]
pub(crate) struct Spinner {
    /// `false` on one processor: the holder does not run while we spin.
    is_worth_it: bool,
    /// In the low byte, how many waits are still to go without a spin; in the high byte, how many they were the last
    /// time.
    lessons: [AtomicU16; ENTRIES],
}

impl Spinner {
    pub(crate) fn new(is_worth_it: bool) -> Self {
        Self { is_worth_it, lessons: [const { AtomicU16::new(0) }; ENTRIES] }
    }

    fn lesson(&self, word: &AtomicU64) -> Option<&AtomicU16> {
        // By address: neighbouring words have different entries.
        self.lessons.get((std::ptr::from_ref(word).addr() / 8) % ENTRIES)
    }

    /// Pauses for the `turn`-th time in a row, from 0. `false` when it is time to sleep.
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

    /// Learns from a spin on `word`: whether the thread `won` the lock without a sleep.
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
    fn a_spin_that_fails_is_tried_less_and_less_often_until_one_succeeds() {
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
