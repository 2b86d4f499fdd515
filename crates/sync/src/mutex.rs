//! The mutex: one word. An owner that frees it does not hand it over: the first thread that changes the free word has
//! the mutex. So a newcomer may *barge*: take it before a waiter that was just woken. This is faster than handing
//! over, since the mutex does not wait for a sleeper. A waiter spins for a short time before it sleeps. One that has
//! slept too often in vain sets the *starving* flag: then newcomers stand back.
//!
//! This file has the operations that do not wait: taking a free mutex, freeing one, marking and resetting it. A thread
//! that may have to wait goes through `mutex/contended.rs`; the thread that a mutex is biased to, through `bias.rs`.

mod contended;

use commonhold_layout::{LockFlags, LockWord, Offset, Owner, PendingKind};
use commonhold_window::{
    Point,
    atomic::{AtomicU64, Ordering},
};

use crate::{Liveness, LockError, Park, Release, Taken, Thread, Verdict, Wake, store_then_load};

/// A mutex on a word.
#[derive(Debug, Clone, Copy)]
pub struct Mutex<'a> {
    word: &'a AtomicU64,
    at: Offset,
}

impl<'a> Mutex<'a> {
    /// The mutex whose word is `word`, at offset `at` of its window. (If a waiter dies, its reaper finds the mutex by
    /// that offset.)
    #[inline]
    #[must_use]
    pub const fn new(word: &'a AtomicU64, at: Offset) -> Self {
        Self { word, at }
    }

    /// Its word.
    #[inline]
    pub(crate) const fn word(&self) -> &'a AtomicU64 {
        self.word
    }

    /// Where its word lies.
    #[inline]
    #[must_use]
    pub const fn at(&self) -> Offset {
        self.at
    }

    /// What the word says now.
    #[inline]
    #[must_use]
    pub fn look(&self) -> LockWord {
        // SeqCst: see `store_then_load`; readers of an `RwLock` come here after counting themselves.
        LockWord::from_word(self.word.load(Ordering::SeqCst))
    }

    /// Takes a mutex whose word is [`LockWord::FREE`]: the common case of [`lock`](Self::lock), small enough to be
    /// inlined wherever a lock is taken. `false`: [`lock`](Self::lock) must follow.
    #[inline]
    pub fn lock_quickly(&self, me: &Thread<'_>) -> bool {
        if !self.swap(LockWord::FREE, me.owner().word()) {
            return false;
        }
        Point::LockAcquired.reached();
        // A thread whose peer was fenced must not enter, since others would take the lock from it at
        // once. If the unlock below fails, `lock_slow` finds the same out and gives the lock back.
        if me.is_live() {
            return true;
        }
        self.unlock_quickly(me.owner());
        false
    }

    /// Frees a mutex whose word names `owner` and has no flag: the common case of [`unlock`](Self::unlock).
    #[inline]
    pub fn unlock_quickly(&self, owner: Owner) -> bool {
        self.swap(owner.word(), LockWord::FREE)
    }

    /// Takes the mutex without waiting, if it is free or its owner is dead.
    ///
    /// # Errors
    /// [`LockError`]; `TimedOut` if a living owner has it.
    pub fn try_lock(
        &self,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
    ) -> Result<Taken, LockError> {
        self.lock(me, env, Some(0))
    }

    /// Takes the mutex, waiting until `deadline` on the clock of [`Park::now`], or for ever; `Some(0)`
    /// does not wait.
    ///
    /// # Errors
    /// [`LockError`].
    #[inline]
    pub fn lock(
        &self,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
        deadline: Option<u64>,
    ) -> Result<Taken, LockError> {
        if self.lock_quickly(me) {
            return Ok(Taken::Clean);
        }
        self.lock_slow(me, env, deadline, LockFlags::NONE)
    }

    /// Frees the mutex.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if the thread does not own it; nothing has changed then.
    #[inline]
    pub fn unlock(&self, me: &Thread<'_>, env: &impl Park, how: Release) -> Result<(), LockError> {
        if how == Release::Done && self.unlock_quickly(me.owner()) {
            return Ok(());
        }
        self.unlock_slow(me, env, how)
    }

    /// Says that what the mutex protects has been repaired.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if the thread does not own it.
    pub fn mark_consistent(&self, me: &Thread<'_>) -> Result<(), LockError> {
        loop {
            let seen = self.look();
            if !seen.is_owned_by(me.owner()) {
                return Err(LockError::Fenced);
            }
            if self.swap(seen, seen.with_flags(seen.flags().without(LockFlags::INCONSISTENT))) {
                Point::LockConsistent.reached();
                return Ok(());
            }
        }
    }

    /// Says that the previous owner left what the mutex protects half changed.
    pub(crate) fn mark_inconsistent(&self, me: &Thread<'_>) -> Result<(), LockError> {
        loop {
            let seen = self.look();
            if !seen.is_owned_by(me.owner()) {
                return Err(LockError::Fenced);
            }
            if self.swap(seen, seen.with_flags(seen.flags().with(LockFlags::INCONSISTENT))) {
                return Ok(());
            }
        }
    }

    /// Makes a mutex as good as new if it has no owner, or its owner is dead.
    ///
    /// # Errors
    /// [`LockError::TimedOut`] if it has an owner that is not known to be dead.
    pub fn reset(&self, env: &(impl Park + Liveness)) -> Result<(), LockError> {
        loop {
            let seen = self.look();
            if self.revoke(seen) {
                continue;
            }
            if self.owner(seen, env).is_some_and(|owner| env.verdict(owner) != Verdict::Dead) {
                return Err(LockError::TimedOut);
            }
            if self.swap(seen, LockWord::FREE) {
                Point::LockReset.reached();
                env.wake(self.word, Wake::All);
                return Ok(());
            }
        }
    }

    /// Revokes the bias of a word whose bias is not revoked yet. `true`: it had one, and the caller must look at the
    /// word again.
    pub(crate) fn revoke(&self, seen: LockWord) -> bool {
        let Some(_) = seen.bias() else { return false };
        let revoked = seen == seen.revoked();
        if !revoked && self.swap(seen, seen.revoked()) {
            Point::BiasRevoked.reached();
        }
        !revoked
    }

    /// The owner of the mutex: the one that this word names, or the thread of a revoked bias while it is inside.
    pub(crate) fn owner(&self, seen: LockWord, env: &impl Liveness) -> Option<Owner> {
        match seen.bias() {
            Some(bias) => {
                // Needed also if another thread revoked the bias.
                store_then_load();
                env.inside(bias, self.at)
            }
            None => seen.owner(),
        }
    }

    /// Changes the word from `from` to `to`, if nobody else has changed it.
    #[inline]
    pub(crate) fn swap(&self, from: LockWord, to: LockWord) -> bool {
        // SeqCst. It is the Release that frees a lock, and the Acquire that takes it and pairs with that Release, so
        // that the last owner's writes are visible. And a writer's scan for readers comes after it (Dekker).
        self.word
            .compare_exchange(from.word(), to.word(), Ordering::SeqCst, Ordering::Relaxed)
            .is_ok()
    }

    pub(crate) fn sleep(&self, env: &impl Park, expected: LockWord, owner: Owner, until: u64) {
        env.wait_for(&[owner], self.word, expected.word(), until);
    }

    pub(crate) fn wake(&self, env: &impl Park, who: Wake) {
        env.wake(self.word, who);
    }

    #[cold]
    pub(crate) fn unlock_slow(
        &self,
        me: &Thread<'_>,
        env: &impl Park,
        how: Release,
    ) -> Result<(), LockError> {
        loop {
            let seen = self.look();
            if !seen.is_owned_by(me.owner()) {
                return Err(LockError::Fenced);
            }
            let waiters = seen.flags().contains(LockFlags::WAITERS);
            let inconsistent = seen.flags().contains(LockFlags::INCONSISTENT);
            let left = how.left(me.owner(), inconsistent);
            let freed = left.with_flags(left.flags().with(seen.flags().only(LockFlags::STARVING)));
            let wake = if how == Release::GivenUp { Wake::All } else { Wake::One };
            if waiters {
                me.announce(PendingKind::Release, self.at);
                Point::UnlockPending.reached();
            }
            if !self.swap(seen, freed) {
                continue;
            }
            if waiters {
                Point::UnlockFreed.reached();
                self.wake(env, wake);
                Point::UnlockWoken.reached();
                me.done();
            }
            return Ok(());
        }
    }
}
