//! Bias: how a thread takes and frees, by words of its own, a mutex that no other thread wants.
//!
//! A lock word that is *biased* names a thread that may take the lock without changing the word. Two words of the
//! thread's slot, an *entry*, say whether it has taken the lock. The first is a [`BiasTarget`], the second a
//! [`BiasState`]; `docs/SPEC.md` calls them place and turn:
//! ```text
//! place | 63 left 48 | 47                     offset of the lock's word 3 | 2 0 | 0 candidate |
//! turn  | 63 missed 48 | 47 0 33 | 32 inside | 31                            number of the bias 0 |
//! ```
//! A *candidate* is a lock that the thread has freed by its word. After `left` more such frees, the next one biases
//! the lock to the thread. Without the candidate bit, the entry is for a bias of the lock at that offset; 0: it is
//! empty.
//!
//! In each thread slot only one entry, given by [`bias_entry`], can be for a certain lock, so two locks may compete
//! for it. No two biases of a thread slot have the same number. If the number of the entry is not that of the lock
//! word, the entry is for another bias, and the thread is not inside.

use crate::{Offset, PeerId, ThreadId, thread_word};

/// Number of frees of one lock by its word after which the thread's next free biases the lock to it. The count
/// starts anew if a thread waits for the lock, or another lock takes the entry.
pub const BIAS_AFTER: u64 = 32;
/// A thread gives up a bias after so many frees of other locks with the same entry since it last used the bias.
pub const BIAS_MISSES: u64 = 64;

const CANDIDATE: u64 = 1;
const COUNT_SHIFT: u32 = 48;
const COUNT_STEP: u64 = 1 << COUNT_SHIFT;
const INSIDE: u64 = 1 << 32;

const _: () = assert!(thread_word::BIAS_COUNT == 4, "an entry is chosen by two bits");

/// Which entry of a thread slot can be for the lock at `at`.
#[inline]
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "two bits are left")]
pub const fn bias_entry(at: Offset) -> usize {
    // The exclusive or of all pairs of bits of the word's index: neighbours, and locks whose distance is a power of
    // two, seldom have the same entry.
    let mut folded = at.get() >> 3;
    let mut by = 32;
    while by > 1 {
        folded ^= folded >> by;
        by /= 2;
    }
    (folded & (thread_word::BIAS_COUNT as u64 - 1)) as usize
}

/// A bias, as the lock word names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bias {
    /// The peer slot of the thread.
    pub peer: PeerId,
    /// Its thread slot.
    pub thread: ThreadId,
    /// Its number among the biases of the thread slot. Not 0.
    pub number: u32,
}

/// The first word of an entry: for which lock it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BiasTarget(u64);

impl BiasTarget {
    /// No lock.
    pub const EMPTY: Self = Self(0);

    /// Reads a word.
    #[inline]
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The word.
    #[inline]
    #[must_use]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// The lock at `at`, biased.
    #[inline]
    #[must_use]
    pub const fn new(at: Offset) -> Self {
        Self(at.get())
    }

    /// The lock at `at`, freed for the first time.
    #[inline]
    #[must_use]
    pub const fn candidate(at: Offset) -> Self {
        Self(at.get() | CANDIDATE | (BIAS_AFTER - 1) << COUNT_SHIFT)
    }

    /// The same candidate, freed once more; `None` if this free should bias it.
    #[inline]
    #[must_use]
    pub const fn freed(self) -> Option<Self> {
        match self.0.checked_sub(COUNT_STEP) {
            Some(word) => Some(Self(word)),
            None => None,
        }
    }

    /// Whether this is the lock at `at` as a candidate.
    #[inline]
    #[must_use]
    pub const fn is_candidate(self, at: Offset) -> bool {
        self.0 << (64 - COUNT_SHIFT) == (at.get() | CANDIDATE) << (64 - COUNT_SHIFT)
    }

    /// The offset of the lock that the entry has a bias for, if it has one.
    #[inline]
    #[must_use]
    pub const fn biased(self) -> Option<Offset> {
        if self.0 & 7 == 0 && self.0 != 0 { Offset::new(self.0) } else { None }
    }
}

/// The second word of an entry: the number of the bias, and whether the thread is inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BiasState(u64);

impl BiasState {
    /// Reads a word.
    #[inline]
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The word.
    #[inline]
    #[must_use]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// The bias with this number; the thread is outside, and no other lock has missed the entry.
    #[inline]
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number as u64)
    }

    /// The number of the bias.
    #[inline]
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the low half is meant")]
    pub const fn number(self) -> u32 {
        self.0 as u32
    }

    /// Whether the thread is inside, or is about to check whether it may be.
    #[inline]
    #[must_use]
    pub const fn is_inside(self) -> bool {
        self.0 & INSIDE != 0
    }

    /// The same bias, with the thread inside.
    #[inline]
    #[must_use]
    pub const fn inside(self) -> Self {
        Self(self.number() as u64 | INSIDE)
    }

    /// The same bias, with the thread outside.
    #[inline]
    #[must_use]
    pub const fn outside(self) -> Self {
        Self(self.number() as u64)
    }

    /// The same bias, after the thread has freed another lock of the entry; `None` if the bias should be given up.
    #[inline]
    #[must_use]
    pub const fn missed(self) -> Option<Self> {
        if self.0 >> COUNT_SHIFT < BIAS_MISSES { Some(Self(self.0 + COUNT_STEP)) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn a_candidate_is_biased_when_it_was_freed_often_enough() {
        let at = Offset::new(4096).unwrap();
        let mut place = BiasTarget::candidate(at);
        let mut freed = 1;
        while let Some(next) = place.freed() {
            assert!(next.is_candidate(at) && next.biased().is_none());
            assert!(!next.is_candidate(Offset::new(4104).unwrap()));
            place = next;
            freed += 1;
        }
        assert_eq!(freed, BIAS_AFTER);
        assert_eq!(BiasTarget::EMPTY.biased(), None);
        assert!(!BiasTarget::EMPTY.is_candidate(at) && !BiasTarget::new(at).is_candidate(at));
        assert_eq!(BiasTarget::new(at).biased(), Some(at));
    }

    #[test]
    fn a_bias_that_is_missed_often_ends_and_one_that_is_used_does_not() {
        let mut turn = BiasState::new(7);
        let mut missed = 0;
        while let Some(next) = turn.missed() {
            turn = next;
            missed += 1;
        }
        assert_eq!(missed, BIAS_MISSES);
        assert_eq!((turn.number(), turn.is_inside()), (7, false));
        assert!(turn.inside().is_inside() && turn.inside().outside() == BiasState::new(7));
    }

    #[test]
    fn neighbours_seldom_have_the_same_entry() {
        for step in [8, 16, 24, 64, 128, 4096, 1 << 21] {
            let entries: Vec<_> =
                (1..=65).map(|i| bias_entry(Offset::new(i * step).unwrap())).collect();
            let differ = entries.windows(2).filter(|pair| pair[0] != pair[1]).count();
            assert!(differ > 40, "{step}: {differ} of 64");
            let most = (0..4).map(|entry| entries.iter().filter(|e| **e == entry).count()).max();
            assert!(most.unwrap() <= 32, "{step}: {most:?} of 65");
        }
    }

    proptest! {
        #[test]
        fn every_entry_lies_in_the_slot(at in 0_u64..1 << 45) {
            let entry = bias_entry(Offset::new(at * 8).unwrap());
            prop_assert!(thread_word::BIAS + 2 * entry + 1 < thread_word::COUNT);
        }
    }
}
