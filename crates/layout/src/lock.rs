//! The word of a mutex: who owns it, and what is known of what it protects.
//!
//! ```text
//! 63            32 31  28 27        16 15       14        13     12        0
//! | incarnation   | flags | thread     | biased | revoked | left | peer slot |
//! ```
//! Bits 0-12, 16-27 and 32-63 name a thread, as an [`Owner`] (`owner.rs`) or, if bit 15 is set, as a [`Bias`]: then
//! bits 32-63 are the number of the bias. A futex compares the low half only, so everything that
//! changes while a thread sleeps on the word lies there.
//!
//! # States
//! `-` is a bit that may be set or not.
//!
//! | state | the word names | left 13 | revoked 14 | biased 15 | waiters 28 | inconsistent 29 | bit 30 | starving 31 |
//! |---|---|---|---|---|---|---|---|---|
//! | free | nobody | 0 | 0 | 0 | 0 | 0 | 0 | - |
//! | owned | the owner | 0 | 0 | 0 | - | - | upgradable: - | - |
//! | free and inconsistent | the thread that left it so | 1 | 0 | 0 | 0 | 1 | 0 | - |
//! | the same | nobody: that thread is not known | 0 | 0 | 0 | 0 | 1 | 0 | - |
//! | unrecoverable | the thread that gave it up | 1 | 0 | 0 | 0 | 0 | unrecoverable: 1 | - |
//! | biased | the thread and the bias | 0 | 0 | 1 | 0 | 0 | 0 | 0 |
//! | revoked | the same | 0 | 1 | 1 | - | 0 | 0 | - |
//!
//! Only the writer's word of a reader/writer lock is ever upgradable, and only that word and the word of a mutex of its
//! own are ever biased. Why bit 30 has two names is said in `slot_word.rs`.
//!
//! # Transitions
//! Each is one compare-and-swap of the whole word; `commonhold-sync` makes them.
//!
//! | from | to | who may |
//! |---|---|---|
//! | free; free and inconsistent | owned, inconsistent as it was | anybody |
//! | owned | free | its owner |
//! | owned | free and inconsistent | its owner, in the middle of a change; of a dead writer, a waiting reader |
//! | owned | unrecoverable | its owner |
//! | owned | owned by another, inconsistent (if it is upgradable, as it was) | anybody, if the owner is dead |
//! | owned | owned, and consistent; or upgradable; or not upgradable any more | its owner |
//! | owned; revoked, with the thread inside | the same, with waiters or starving | a waiter |
//! | owned | biased | its owner that frees it, if no flag is set |
//! | biased | revoked | any other thread that wants it |
//! | biased, revoked | owned by the thread of the bias | that thread, while it is inside |
//! | revoked | free | the thread of the bias, after it was inside; a reader, if the thread is not inside |
//! | revoked | owned | anybody, if the thread is not inside; inconsistent, if it is inside and dead |
//! | biased, revoked | free and inconsistent | a reaper, if the thread died inside |
//! | any, unless a living thread owns it or is inside | free | a thread that resets it |
//!
//! Every other bit pattern is valid too. If a word names an owner that does not exist, the lock has a dead owner.

use core::fmt;

use crate::{
    Bias, Owner, PeerId, ThreadId, limits,
    owner::{INCARNATION_SHIFT, THREAD_SHIFT, thread_in},
};

const FLAGS_MASK: u64 = 0xf << 28;
const LEFT: u64 = 1 << 13;
const BIASED: u64 = 1 << 15;
const REVOKED: u64 = 1 << 14;
const BIAS_PEER_MASK: u64 = REVOKED - 1;

const _: () = assert!(limits::PEERS <= LEFT);

/// What a lock word says besides its owner.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct LockFlags(u64);

impl LockFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// A thread may be asleep on the word: the owner must wake one when it frees the lock.
    pub const WAITERS: Self = Self(1 << 28);
    /// An owner died, or left, with the data half changed.
    pub const INCONSISTENT: Self = Self(1 << 29);
    /// In a word that nobody owns: an owner gave the lock up, and nobody may take it any more.
    pub const UNRECOVERABLE: Self = Self(1 << 30);
    /// The same bit, in a word that somebody owns: the owner lets readers in, and may upgrade.
    pub const UPGRADABLE: Self = Self(1 << 30);
    /// A waiter has lost too often: threads that have not slept yet stand back.
    pub const STARVING: Self = Self(1 << 31);

    /// Whether all of `other` is set.
    #[inline]
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These flags and `other`.
    #[inline]
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These flags without `other`.
    #[inline]
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Those of these flags that are in `other` as well.
    #[inline]
    #[must_use]
    pub const fn only(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Debug for LockFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Self::WAITERS, "waiters"),
            (Self::INCONSISTENT, "inconsistent"),
            (Self::UNRECOVERABLE, "unrecoverable or upgradable"),
            (Self::STARVING, "starving"),
        ];
        f.debug_set()
            .entries(names.iter().filter(|(flag, _)| self.contains(*flag)).map(|(_, name)| name))
            .finish()
    }
}

impl Owner {
    /// The word that names this owner and nothing else.
    #[inline]
    #[must_use]
    pub const fn word(self) -> LockWord {
        LockWord(self.bits())
    }
}

impl From<Owner> for LockWord {
    #[inline(always)]
    fn from(owner: Owner) -> Self {
        owner.word()
    }
}

/// The value of a lock word. Every bit pattern is a valid value; one with an owner that does not
/// exist is a lock whose owner is dead.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LockWord(u64);

impl LockWord {
    /// Free, without any flag.
    pub const FREE: Self = Self(0);

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

    /// The owner of the lock, if it has one.
    #[inline]
    #[must_use]
    pub const fn owner(self) -> Option<Owner> {
        if self.is_left() { None } else { Owner::from_bits(self.0) }
    }

    /// The thread that left the lock with what it protects half changed, or gave it up. `None` if it is not known, or
    /// if the lock has an owner.
    #[inline]
    #[must_use]
    pub const fn left_by(self) -> Option<Owner> {
        if self.is_left() { Owner::from_bits(self.0 & !LEFT) } else { None }
    }

    #[inline]
    const fn is_left(self) -> bool {
        self.0 & (LEFT | BIASED) == LEFT
    }

    /// The thread slot that it names, if it names an owner or a bias.
    #[inline]
    #[must_use]
    pub const fn thread(self) -> ThreadId {
        thread_in(self.0)
    }

    /// Whether anybody owns the lock.
    #[inline]
    #[must_use]
    pub const fn is_owned(self) -> bool {
        self.0 >> INCARNATION_SHIFT != 0 && !self.is_left()
    }

    /// Whether somebody owns the lock and lets readers in: it has the lock upgradable.
    #[inline]
    #[must_use]
    pub const fn is_upgradable(self) -> bool {
        self.is_owned() && self.flags().contains(LockFlags::UPGRADABLE)
    }

    /// Whether somebody owns the lock and keeps readers out.
    #[inline]
    #[must_use]
    pub const fn is_exclusive(self) -> bool {
        self.is_owned() && !self.flags().contains(LockFlags::UPGRADABLE)
    }

    /// Whether nobody owns the lock, and nobody ever will unless it is reset.
    #[inline]
    #[must_use]
    pub const fn is_unrecoverable(self) -> bool {
        !self.is_owned() && self.flags().contains(LockFlags::UNRECOVERABLE)
    }

    /// Whether a reader may come in at once: no writer, no starving waiter, and no change left half done.
    #[inline]
    #[must_use]
    pub const fn welcomes_readers(self) -> bool {
        const BUT: LockFlags = LockFlags::INCONSISTENT.with(LockFlags::STARVING);
        self.0 == Self::FREE.0 || self.is_upgradable() && self.flags().only(BUT).0 == 0
    }

    /// The word of a mutex that is biased to a thread.
    #[inline]
    #[must_use]
    pub const fn biased(bias: Bias) -> Self {
        Self(
            bias.peer.get() as u64 & BIAS_PEER_MASK
                | BIASED
                | (bias.thread.index() as u64) << THREAD_SHIFT
                | (bias.number as u64) << INCARNATION_SHIFT,
        )
    }

    /// Whether a mutex is biased with this word.
    #[inline]
    #[must_use]
    pub const fn is_biased(self) -> bool {
        self.0 & BIASED != 0
    }

    /// The bias of a mutex with this word, revoked or not, if it has one.
    #[inline]
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "each part is cut out on purpose")]
    pub const fn bias(self) -> Option<Bias> {
        if !self.is_biased() {
            return None;
        }
        Some(Bias {
            peer: PeerId::new((self.0 & BIAS_PEER_MASK) as u16),
            thread: self.thread(),
            number: (self.0 >> INCARNATION_SHIFT) as u32,
        })
    }

    /// Whether a mutex with this word is biased by `bias`, revoked or not.
    #[inline]
    #[must_use]
    pub const fn is_biased_by(self, bias: Bias) -> bool {
        self.0 & !(FLAGS_MASK | REVOKED) == Self::biased(bias).0
    }

    /// This word of a biased mutex, revoked: the thread of the bias may not enter any more.
    #[inline]
    #[must_use]
    pub const fn revoked(self) -> Self {
        Self(self.0 | REVOKED)
    }

    /// Its flags.
    #[inline]
    #[must_use]
    pub const fn flags(self) -> LockFlags {
        LockFlags(self.0 & FLAGS_MASK)
    }

    /// Whether `owner` owns the lock.
    #[inline]
    #[must_use]
    pub const fn is_owned_by(self, owner: Owner) -> bool {
        self.0 & !FLAGS_MASK == owner.bits()
    }

    /// This word with other flags.
    #[inline]
    #[must_use]
    pub const fn with_flags(self, flags: LockFlags) -> Self {
        Self((self.0 & !FLAGS_MASK) | flags.0)
    }

    /// A word that nobody owns.
    #[inline]
    #[must_use]
    pub const fn unowned(flags: LockFlags) -> Self {
        Self(flags.0)
    }

    /// A word that nobody owns, and that names the thread which left it so. In damaged bytes, `by` may be an owner
    /// that cannot exist: then the word names nobody.
    #[inline]
    #[must_use]
    pub const fn left(by: Owner, flags: LockFlags) -> Self {
        if by.peer().get() as u64 >= LEFT {
            return Self::unowned(flags);
        }
        Self(by.bits() | LEFT | flags.0)
    }
}

impl fmt::Debug for LockWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("LockWord");
        match self.bias() {
            Some(bias) => {
                debug.field("bias", &bias).field("revoked", &(self.0 & REVOKED != 0));
            }
            None => {
                debug.field("owner", &self.owner()).field("left_by", &self.left_by());
            }
        }
        debug.field("flags", &self.flags()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn flags_lie_in_the_half_that_a_futex_compares() {
        let all = LockFlags::WAITERS
            .with(LockFlags::INCONSISTENT)
            .with(LockFlags::UNRECOVERABLE)
            .with(LockFlags::STARVING);
        assert_eq!(LockWord::unowned(all).word() >> 32, 0);
        assert!(!LockWord::unowned(all).is_owned());
    }

    #[test]
    fn one_bit_says_unrecoverable_of_a_word_without_an_owner_and_upgradable_of_one_with() {
        let owner = Owner::new(PeerId::new(3), 7, ThreadId::FIRST).unwrap().word();
        let upgradable = owner.with_flags(LockFlags::UPGRADABLE);
        let given_up = LockWord::unowned(LockFlags::UNRECOVERABLE);
        assert!(upgradable.is_upgradable() && !upgradable.is_unrecoverable());
        assert!(given_up.is_unrecoverable() && !given_up.is_upgradable());
        assert!(owner.is_exclusive() && !upgradable.is_exclusive() && !given_up.is_exclusive());
        let welcome = [LockWord::FREE, upgradable];
        assert!(welcome.iter().all(|word| word.welcomes_readers()));
        let told = upgradable.with_flags(LockFlags::UPGRADABLE.with(LockFlags::INCONSISTENT));
        assert!(
            [owner, given_up, LockWord::DONE, told].iter().all(|word| !word.welcomes_readers())
        );
    }

    proptest! {
        #[test]
        fn a_bias_survives_the_round_trip_and_is_no_owner_that_exists(
            peer in 0_u16..4096, thread in 0_u16..4096, number in 1_u32..,
        ) {
            let thread = ThreadId::from_bits(thread);
            let bias = Bias { peer: PeerId::new(peer), thread, number };
            let word = LockWord::biased(bias);
            prop_assert_eq!(word.bias(), Some(bias));
            let marked = word.revoked().with_flags(LockFlags::WAITERS.with(LockFlags::STARVING));
            prop_assert_eq!(marked.bias(), Some(bias));
            prop_assert!(marked.is_biased_by(bias) && marked != word);
            let next = Bias { number: number.wrapping_add(1), ..bias };
            prop_assert!(!word.is_biased_by(next));
            prop_assert!(word.owner().unwrap().peer().get() >= 4096);
            let owner = Owner::new(bias.peer, number, thread).unwrap();
            prop_assert!(!word.is_owned_by(owner) && owner.word().bias().is_none());
        }

        #[test]
        fn a_left_word_names_the_thread_that_left_it_and_has_no_owner(
            peer in 0_u16..4096, incarnation in 1_u32.., thread in 0_u16..4096,
        ) {
            let owner = Owner::new(PeerId::new(peer), incarnation, ThreadId::from_bits(thread)).unwrap();
            let word = LockWord::left(owner, LockFlags::INCONSISTENT);
            prop_assert_eq!(word.left_by(), Some(owner));
            prop_assert!(word.owner().is_none() && !word.is_owned() && !word.is_owned_by(owner));
            prop_assert!(word.bias().is_none() && !word.welcomes_readers());
            prop_assert!(owner.word().left_by().is_none());
            let flagged = word.with_flags(LockFlags::UNRECOVERABLE);
            prop_assert!(flagged.is_unrecoverable() && flagged.left_by() == Some(owner));
        }

        /// Any bits may be the owner in damaged bytes, and become the thread that left the next word.
        #[test]
        fn no_word_is_left_and_owned_or_biased_at_once(word: u64, incarnation in 1_u64..1 << 32) {
            let damaged = LockWord::from_word(word & u64::from(u32::MAX) | incarnation << 32);
            let named = [damaged.owner(), damaged.left_by()];
            prop_assert!(named.iter().flatten().count() == 1);
            prop_assert!(damaged.is_owned() == damaged.owner().is_some());
            prop_assert!(damaged.bias().is_none() || damaged.is_owned());
            if let Some(owner) = damaged.owner() {
                let left = LockWord::left(owner, LockFlags::INCONSISTENT);
                prop_assert!(!left.is_owned() && left.owner().is_none() && left.bias().is_none());
                prop_assert!(left.flags() == LockFlags::INCONSISTENT);
                let exists = owner.peer().get() < 4096;
                prop_assert!(left.left_by() == Some(owner) || !exists && left.left_by().is_none());
            }
        }

        #[test]
        fn an_owner_survives_the_round_trip(
            peer in 0_u16..4096, incarnation in 1_u32.., thread in 0_u16..4096,
        ) {
            let owner = Owner::new(PeerId::new(peer), incarnation, ThreadId::from_bits(thread)).unwrap();
            let word = owner.word().with_flags(LockFlags::STARVING.with(LockFlags::WAITERS));
            prop_assert_eq!(word.owner(), Some(owner));
            prop_assert!(word.is_owned_by(owner));
            prop_assert!(word.flags().contains(LockFlags::STARVING));
            prop_assert!(!word.flags().contains(LockFlags::INCONSISTENT));
        }
    }
}
