//! The upgradable read lock: held together with readers, and with the right to become the writer.
//!
//! The writer's word names the owner, as it names a writer, with a bit that lets readers in
//! ([`LockFlags::UPGRADABLE`]). So there is one such owner at a time, it excludes writers, and it is known by
//! identity like any owner. To upgrade, it takes the bit out, and then waits for the readers that came before, as
//! a writer does. To downgrade, it puts the bit in again.
//!
//! # Invariants
//! 1. While the bit is set, nobody changes what the lock protects. So a thread that takes over the word of a dead
//!    owner is told of a half-done change only if the bit was not set: the owner was a writer, or had upgraded.
//! 2. No reader goes to sleep on a word that has the bit, since it may come in. But readers that fell asleep while a
//!    writer had the word must be woken when the bit appears. There are three cases:
//!    - The word has the flag `waiters` when an owner takes it with the bit, or puts the bit in (downgrades). The
//!      owner then wakes all sleepers.
//!    - The word was free without `waiters`, and an owner took it with the bit at once. Readers may still sleep: the
//!      writer that freed the word removed the flag, and wakes only one sleeper. If that one is a reader, it comes in
//!      and wakes the next.
//!    - The same, but the woken sleeper wants to own the word. It must wait or give up, and sets `waiters` in a word
//!      that has the bit. A thread that does so wakes all sleepers, once. If it dies before that, its reaper wakes
//!      them.
//!
//! # Deaths
//! - The owner, upgradable: the next owner takes the word as if it had been freed. Readers notice
//!   nothing.
//! - The owner, while it upgrades or after that: as for a writer.
//! - A reader, while an upgrade waits for it: the upgrade waits for it no longer.

use commonhold_layout::{LockFlags, LockWord, Owner, PendingKind};
use commonhold_window::{Point, atomic::Ordering};

use crate::{
    Liveness, LockError, Park, Release, RwLock, Shares, Taken, Thread, Wake, store_then_load,
};

/// The word of an owner that lets readers in, with no other flag.
#[inline]
const fn upgradable(owner: Owner) -> LockWord {
    owner.word().with_flags(LockFlags::UPGRADABLE)
}

impl<S: Shares> RwLock<'_, S> {
    /// Takes the lock to read, together with other readers, and with the right to [`upgrade`](Self::upgrade).
    /// Waits until `deadline`, or for ever, for a writer or another thread with that right.
    ///
    /// With [`Taken::OwnerDied`] what is read may be half changed; after an upgrade it can be repaired.
    ///
    /// # Errors
    /// [`LockError`]; `Deadlock` also if the thread itself holds the lock to read, in one of its words.
    #[inline]
    pub fn upgradable_read(
        &self,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
        deadline: Option<u64>,
    ) -> Result<Taken, LockError> {
        if me.reads(self.key()) {
            // The thread might wait for an owner that waits for it.
            return Err(LockError::Deadlock);
        }
        if self.writer().swap(LockWord::FREE, upgradable(me.owner())) {
            Point::LockAcquired.reached();
            if me.is_live() {
                return Ok(Taken::Clean);
            }
            // As in `lock_quickly`: others would take it from us at once.
            let _ = self.unlock_upgradable(me, env, Taken::Clean);
            return Err(LockError::Fenced);
        }
        self.writer().lock_slow(me, env, deadline, LockFlags::UPGRADABLE)
    }

    /// Gives it back, upgraded or not. `taken` says how it was taken: if the thread was told of a half-done change and
    /// has only read, the next owner is told the same.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if the thread does not own it.
    #[inline]
    pub fn unlock_upgradable(
        &self,
        me: &Thread<'_>,
        env: &impl Park,
        taken: Taken,
    ) -> Result<(), LockError> {
        if self.writer().swap(upgradable(me.owner()), LockWord::FREE) {
            return Ok(());
        }
        self.unread_upgradable_slowly(me, env, taken)
    }

    #[cold]
    fn unread_upgradable_slowly(
        &self,
        me: &Thread<'_>,
        env: &impl Park,
        taken: Taken,
    ) -> Result<(), LockError> {
        let seen = self.writer().look();
        let how = if seen.is_exclusive() {
            Release::Inconsistent
        } else if seen.flags().contains(LockFlags::INCONSISTENT) {
            Release::unchanged(taken)
        } else {
            Release::Done
        };
        self.writer().unlock(me, env, how)
    }

    /// Keeps new readers out, and waits until `deadline`, or for ever, for the present readers to leave; then
    /// the thread is the writer. On an error other than [`LockError::Fenced`] it holds the lock as before.
    ///
    /// # Errors
    /// [`LockError`]; `Deadlock` if the thread itself also holds the lock to read, in one of its words.
    pub fn upgrade(
        &self,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
        deadline: Option<u64>,
    ) -> Result<Taken, LockError> {
        if me.reads(self.key()) {
            return Err(LockError::Deadlock);
        }
        let word = self.change(me, |flags| flags.without(LockFlags::UPGRADABLE))?;
        Point::LockUpgraded.reached();
        store_then_load();
        // SeqCst: pairs with the readers' announcements, as in `write`.
        let mask = self.mask().load(Ordering::SeqCst);
        if mask != 0
            && let Err(error) = self.drain(me, env, mask, deadline)
        {
            self.downgrade(me, env, Release::Done)?;
            return Err(error);
        }
        // `None`: the owner was told who died when it took the lock.
        Ok(Taken::told_by(word.flags(), None))
    }

    /// Lets readers in again. They are told of a half-done change with [`Release::Inconsistent`], and also if one was
    /// found and has not been repaired.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if the thread does not own the lock.
    pub fn downgrade(
        &self,
        me: &Thread<'_>,
        env: &impl Park,
        how: Release,
    ) -> Result<(), LockError> {
        let told = match how {
            Release::Done | Release::AsFound(_) => LockFlags::NONE,
            Release::Inconsistent | Release::GivenUp => LockFlags::INCONSISTENT,
        };
        me.announce(PendingKind::Release, self.at());
        Point::DowngradePending.reached();
        let changed = self.change(me, |flags| flags.with(LockFlags::UPGRADABLE).with(told));
        if let Ok(word) = changed
            && word.flags().contains(LockFlags::WAITERS)
        {
            Point::LockDowngraded.reached();
            env.wake(self.word(), Wake::All);
        }
        me.done();
        changed.map(drop)
    }

    /// Changes the flags of the word, which the thread owns, and returns the new word.
    fn change(
        &self,
        me: &Thread<'_>,
        change: impl Fn(LockFlags) -> LockFlags,
    ) -> Result<LockWord, LockError> {
        loop {
            let seen = self.writer().look();
            if !seen.is_owned_by(me.owner()) {
                return Err(LockError::Fenced);
            }
            let changed = seen.with_flags(change(seen.flags()));
            if self.writer().swap(seen, changed) {
                return Ok(changed);
            }
        }
    }
}
