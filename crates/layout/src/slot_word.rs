//! What the words of permits, barrier slots and onces say: they name an owner as a mutex does, and give other
//! meanings to its flags.
//!
//! Every change is one compare-and-swap of the whole word. While somebody owns the word, bits 0-12, 16-27 and 32-63
//! name the [`Owner`](crate::Owner), and bits 13 and 30 are 0.
//!
//! | word | state | bits | made by |
//! |---|---|---|---|
//! | permit | free | none | its holder, when it releases the permit; anybody, if the permit was spent |
//! | permit | held | those of the owner | a thread that takes a free or failed permit, or that of a dead holder |
//! | permit | failed | 29; 13 and the thread that left it, if that is known | its holder, in the middle of its work |
//! | permit | spent | 30 | its holder, when it uses the permit up |
//! | barrier slot | free, held, failed | as of a permit | the participant that leaves; the one that joins |
//! | barrier slot | any of these, and arrived | 28 (even phase), 31 (odd) | the participant; a successor keeps it |
//! | once | as of a mutex, but never biased, upgradable or given up | as of a mutex | as of a mutex |
//! | once | done | 0 and 30 | its owner, after all of the work; nobody changes it again |
//!
//! No thread sleeps on a permit or a barrier slot, but on an event beside them. So bits 28 and 31, which are
//! [`WAITERS`](LockFlags::WAITERS) and [`STARVING`](LockFlags::STARVING) in a mutex, are free for the marks of
//! arrival.
//!
//! Bit 30 has two names, [`UNRECOVERABLE`](LockFlags::UNRECOVERABLE) where nobody owns the word and
//! [`UPGRADABLE`](LockFlags::UPGRADABLE) where a thread does: no word can need both, and the half that a futex
//! compares has no bit to spare. *Spent* and *done* have the first meaning: a thread that waits as for a mutex finds
//! that it can never own such a word, and stops waiting.

use crate::{LockFlags, LockWord};

impl LockWord {
    /// The work of a once word is done: nobody owns the word, and nobody ever will. A waiter that waits as for a mutex
    /// finds it unrecoverable.
    pub const DONE: Self = Self::from_word(Self::SPENT.word() | 1);

    /// A permit of a semaphore that has been used up: nobody owns it, and nobody can take it until a thread gives it.
    pub const SPENT: Self = Self::unowned(LockFlags::UNRECOVERABLE);

    /// In a barrier slot these two bits mean "arrived", for even and odd phases.
    pub const ARRIVED: [LockFlags; 2] = [LockFlags::WAITERS, LockFlags::STARVING];

    /// The mark of a barrier slot whose participant has arrived in a phase.
    #[inline]
    #[must_use]
    pub const fn arrival(phase: u64) -> LockFlags {
        let [even, odd] = Self::ARRIVED;
        if phase.is_multiple_of(2) { even } else { odd }
    }

    /// Whether this is a barrier slot whose participant has arrived in the phase, which is the present one.
    #[inline]
    #[must_use]
    pub const fn has_arrived(self, phase: u64) -> bool {
        self.flags().contains(Self::arrival(phase))
    }
}
