//! Once: work that one thread does and all need.
//!
//! The word is that of a mutex until the work is done, and then says [`LockWord::DONE`] for ever. The thread that
//! takes the mutex, the *initialiser*, does the work; the others wait as for a mutex. A word that says `DONE` cannot
//! be taken as a mutex, so a waiter finds that the work is done by the look that a mutex needs anyway.
//!
//! # Invariants
//! 1. `DONE` is written by one compare-and-swap from the identity of the initialiser, after all
//!    of the work: a thread that reads it with Acquire sees the work, and nobody changes the word afterwards.
//! 2. If an initialiser does not complete the work, the next one is told: no thread repeats half-done work without
//!    knowing that ([`Taken::OwnerDied`]).
//! 3. The word is never left unrecoverable: after [`Once::give_back`] it can always be taken.
//!
//! # Deaths
//! - The initialiser: a waiter, or the next thread that comes, becomes the initialiser and is told so.
//! - The initialiser, after `DONE` and before it woke the others: it has announced the wake-up, so its reaper wakes
//!   them; at the latest they see `DONE` at the end of their slice.
//! - A waiter: as with a mutex, nothing but its own wait.

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
    /// The caller has to do the work, and then to call [`Once::complete`], or [`Once::give_back`]. With
    /// [`Taken::OwnerDied`] another thread had begun the work, and died or gave up.
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

    /// Its word, which names the initialiser, or the last one that did not complete the work.
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

    /// As [`begin`](Self::begin), without waiting for a living initialiser.
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

    /// Waits until the work is done, or the caller has to do it. Waits until `deadline`, or for ever; `Some(0)`
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
    /// [`LockError::Fenced`] if the thread is not the initialiser: it was declared dead, and another
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

    /// Gives up the work half done: the next initialiser is told so.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if the thread is not the initialiser.
    pub fn give_back(&self, me: &Thread<'_>, env: &impl Park) -> Result<(), LockError> {
        self.mutex().unlock(me, env, Release::Inconsistent)
    }

    const fn mutex(&self) -> Mutex<'a> {
        Mutex::new(self.word, self.at)
    }
}
