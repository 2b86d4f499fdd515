//! Once: work that is done by one and needed by all.
//!
//! The word is that of a mutex until the work is done, and then says [`LockWord::DONE`] for ever. Who
//! takes it has the work to do; the others wait as for a mutex. `DONE` is a word that no mutex can be
//! taken by, so every waiter finds out by the look that it takes anyway.
//!
//! # Invariants
//! 1. `DONE` is written by one compare-and-swap from the identity of whoever has the turn, after all
//!    of the work: who reads it with Acquire sees the work, and nobody changes the word afterwards.
//! 2. A turn that did not end in `DONE` is told to the next: nobody does half-done work again without
//!    knowing ([`Taken::OwnerDied`]).
//! 3. A word is never left unrecoverable: giving a turn back always leaves it to be taken.
//!
//! # Deaths
//! - The initialiser: whoever waits, or comes next, has the turn and is told so.
//! - The initialiser, after `DONE` and before it woke the others: whoever reaps it wakes them, since it
//!   has announced that; at the latest they see `DONE` at the end of their slice.
//! - A waiter: as with a mutex, nothing but its own turn.

use commonhold_layout::{LockFlags, LockWord, Offset, PendingKind};
use commonhold_window::{
    Point,
    atomic::{AtomicU64, Ordering},
};

use crate::{Liveness, LockError, Mutex, Park, Release, Taken, Thread, Wake};

/// Work that is done once, on a word.
#[derive(Debug, Clone, Copy)]
pub struct Once<'a> {
    word: &'a AtomicU64,
    at: Offset,
}

/// What [`Once::begin`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Start {
    /// The work is done, and what it wrote is visible.
    Done,
    /// The caller has to do it, and then to call [`Once::complete`], or [`Once::give_back`]. With
    /// [`Taken::OwnerDied`] somebody has begun it before, and died or gave up.
    Mine(Taken),
}

impl<'a> Once<'a> {
    /// The work whose word is `word`, at offset `at` of its window.
    #[inline]
    #[must_use]
    pub const fn new(word: &'a AtomicU64, at: Offset) -> Self {
        Self { word, at }
    }

    /// Where its word lies.
    #[inline]
    #[must_use]
    pub const fn at(&self) -> Offset {
        self.at
    }

    /// Its word, which says whose turn it is, or whose it was last.
    #[must_use]
    pub fn look(&self) -> LockWord {
        self.mutex().look()
    }

    /// Whether the work is done; if so, what it wrote is visible.
    #[inline]
    #[must_use]
    pub fn is_done(&self) -> bool {
        // Acquire: pairs with the swap in `complete`.
        self.word.load(Ordering::Acquire) == LockWord::DONE.word()
    }

    /// [`begin`](Self::begin) without waiting (for a dead initialiser there is no need to).
    ///
    /// # Errors
    /// [`LockError`]; `TimedOut` if a living thread is at work.
    pub fn try_begin(
        &self,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
    ) -> Result<Start, LockError> {
        self.begin(me, env, Some(0))
    }

    /// Waits until the work is done or is the caller's to do, until `deadline`, or for ever; `Some(0)`
    /// does not wait.
    ///
    /// # Errors
    /// [`LockError`]; `Deadlock` if the calling thread is at work itself.
    #[inline]
    pub fn begin(
        &self,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
        deadline: Option<u64>,
    ) -> Result<Start, LockError> {
        if self.is_done() {
            return Ok(Start::Done);
        }
        self.begin_slowly(me, env, deadline)
    }

    #[cold]
    fn begin_slowly(
        &self,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
        deadline: Option<u64>,
    ) -> Result<Start, LockError> {
        match self.mutex().lock(me, env, deadline) {
            Ok(taken) => Ok(Start::Mine(taken)),
            Err(LockError::Unrecoverable) if self.is_done() => Ok(Start::Done),
            Err(error) => Err(error),
        }
    }

    /// Says that the work is done.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if the thread does not have the turn: it was declared dead, and another
    /// does, or has done, the work.
    pub fn complete(&self, me: &Thread<'_>, env: &impl Park) -> Result<(), LockError> {
        loop {
            let seen = self.mutex().look();
            if !seen.is_owned_by(me.owner()) {
                return Err(LockError::Fenced);
            }
            let waiters = seen.flags().contains(LockFlags::WAITERS);
            if waiters {
                me.announce(PendingKind::Release, self.at);
                Point::UnlockPending.reached();
            }
            // The swap is SeqCst, and so a Release: pairs with the load in `is_done`.
            if !self.mutex().swap(seen, LockWord::DONE) {
                continue;
            }
            Point::OnceDone.reached();
            if waiters {
                env.wake(self.word, Wake::All);
                Point::UnlockWoken.reached();
                me.done();
            }
            return Ok(());
        }
    }

    /// Gives the turn back with the work half done: the next is told so.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if the thread does not have the turn.
    pub fn give_back(&self, me: &Thread<'_>, env: &impl Park) -> Result<(), LockError> {
        self.mutex().unlock(me, env, Release::Inconsistent)
    }

    const fn mutex(&self) -> Mutex<'a> {
        Mutex::new(self.word, self.at)
    }
}
