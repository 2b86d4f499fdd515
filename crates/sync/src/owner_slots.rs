//! Owner slots: an array of words that each name an owner; a caller may take any free one. The permits of a semaphore,
//! and the slots of a barrier.
//!
//! # Invariants
//! 1. A slot is taken, marked and given back by one compare-and-swap each, of a word with its owner's whole identity.
//!    So no slot is lost: the word says who has it, and a dead owner's slot is taken over.
//! 2. A thread that takes over a dead owner's slot, or takes one whose owner gave up, is told so
//!    ([`Taken::OwnerDied`]).

use commonhold_layout::{LockFlags, LockWord, Owner};
use commonhold_window::atomic::{AtomicU64, Ordering};

use crate::{Liveness, LockError, Taken, Thread, Verdict};

/// Whether to look for evidence of an owner's death, which costs a system call or two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeathCheck {
    /// Do not look: an owner is dead only if that is known already.
    Cached,
    /// Look for evidence.
    Probe,
}

impl DeathCheck {
    /// Whether `owner` is dead, or has ended.
    pub(crate) fn proves_dead(self, env: &impl Liveness, owner: Owner) -> bool {
        !env.is_current(owner) || (self == Self::Probe && env.verdict(owner) == Verdict::Dead)
    }
}

/// The words of the slots.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnerSlots<'a>(pub(crate) &'a [AtomicU64]);

impl OwnerSlots<'_> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = LockWord> + '_ {
        self.0.iter().map(look)
    }

    /// The word of a slot. A slot that does not exist is free.
    pub(crate) fn look(&self, slot: usize) -> LockWord {
        self.0.get(slot).map_or(LockWord::FREE, look)
    }

    pub(crate) fn swap(&self, slot: usize, from: LockWord, to: LockWord) -> bool {
        self.0.get(slot).is_some_and(|word| swap(word, from, to))
    }

    /// Takes a slot: one that was given back in order, else one whose owner gave up, else one whose owner is dead. The
    /// flags of the slot stay, except [`LockFlags::INCONSISTENT`].
    pub(crate) fn take(
        &self,
        me: &Thread<'_>,
        env: &impl Liveness,
        evidence: DeathCheck,
    ) -> Option<(usize, Taken)> {
        let is_whole = |seen: LockWord| !seen.flags().contains(LockFlags::INCONSISTENT);
        let dead = |owner| evidence.proves_dead(env, owner);
        self.find(me, |seen| is_free(seen) && is_whole(seen))
            .or_else(|| self.find(me, is_free))
            .or_else(|| self.find(me, |seen| seen.owner().is_some_and(dead)))
    }

    /// Takes the first slot that is free and was given back in order, by one pass over the words.
    #[inline]
    pub(crate) fn take_quickly(&self, me: &Thread<'_>) -> Option<usize> {
        self.beginning_with_mine(me)
            .find(|(_, word)| {
                word.load(Ordering::Relaxed) == LockWord::FREE.word()
                    && swap(word, LockWord::FREE, me.owner().word())
            })
            .map(|(slot, _)| slot)
    }

    /// All slots with their indices. Each thread begins at another one, so that not all compete for the first word.
    #[inline]
    fn beginning_with_mine(&self, me: &Thread<'_>) -> impl Iterator<Item = (usize, &AtomicU64)> {
        let owner = me.owner();
        let mine = usize::from(owner.peer().get()) + usize::from(owner.thread().index());
        let count = self.0.len();
        self.0.iter().enumerate().cycle().skip(mine.checked_rem(count).unwrap_or(0)).take(count)
    }

    fn find(&self, me: &Thread<'_>, wanted: impl Fn(LockWord) -> bool) -> Option<(usize, Taken)> {
        self.beginning_with_mine(me).find_map(|(slot, word)| {
            let seen = look(word);
            if !wanted(seen) {
                return None;
            }
            let taken = match seen.owner() {
                None => Taken::told_by(seen.flags(), seen.left_by()),
                dead => Taken::OwnerDied(dead),
            };
            let flags = seen.flags().without(LockFlags::INCONSISTENT);
            swap(word, seen, me.owner().word().with_flags(flags)).then_some((slot, taken))
        })
    }

    /// Gives a slot back: its word becomes what `left` makes of it.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if the thread does not have the slot.
    pub(crate) fn give_back(
        &self,
        me: &Thread<'_>,
        slot: usize,
        left: impl Fn(LockWord) -> LockWord,
    ) -> Result<(), LockError> {
        loop {
            let seen = self.look(slot);
            if !seen.is_owned_by(me.owner()) {
                return Err(LockError::Fenced);
            }
            if self.swap(slot, seen, left(seen)) {
                return Ok(());
            }
        }
    }
}

/// Whether a slot can be taken without asking whether an owner is dead.
fn is_free(seen: LockWord) -> bool {
    !seen.is_owned() && !seen.flags().contains(LockFlags::UNRECOVERABLE)
}

fn look(word: &AtomicU64) -> LockWord {
    // SeqCst: see `store_then_load`; the participants of a barrier look at each other's words here.
    LockWord::from_word(word.load(Ordering::SeqCst))
}

#[inline]
fn swap(word: &AtomicU64, from: LockWord, to: LockWord) -> bool {
    // SeqCst, and so Acquire and Release: what was written before a slot was given back is visible to
    // the thread that takes it; and a participant's look at the others comes after its arrival (Dekker).
    word.compare_exchange(from.word(), to.word(), Ordering::SeqCst, Ordering::Relaxed).is_ok()
}
