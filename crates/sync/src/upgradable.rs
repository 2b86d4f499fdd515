//! The third way to hold a reader/writer lock: with readers, and with the right to become its writer.
//!
//! The owner stands in the writer's word, as a writer does, with a bit that lets readers in
//! ([`LockFlags::UPGRADABLE`]). So there is one of it, it excludes writers, and it is known by identity
//! like any owner. To upgrade it takes the bit out, and then waits for the readers that came before, as
//! a writer does; to downgrade it puts the bit in again.
//!
//! # Invariants
//! 1. While the bit is set, nobody changes what the lock protects. Who takes the word over from a dead
//!    owner with the bit tells nobody of a half-done change; from one that had upgraded, it does.
//! 2. Readers do not sleep on a word that has the bit. Those who fell asleep before are woken: by whoever
//!    takes the word with the bit, or puts it in, if it finds `waiters` set; and by whoever sets `waiters`
//!    in such a word. (An owner that barges in finds no `waiters`, though readers may sleep: then a
//!    wake-up is on its way to somebody, and if that one goes back to sleep, it sets the flag.)
//!
//! # Deaths
//! - Of the owner, upgradable: the next owner takes the word as if it had been freed. Readers notice
//!   nothing.
//! - Of the owner while it upgrades, or after that: as of a writer.
//! - Of a reader for which an upgrade waits: it is waited for no longer.

use commonhold_layout::{LockFlags, LockWord, Owner, PendingKind};
use commonhold_window::{Point, atomic::Ordering};

use crate::{
    Liveness, LockError, Park, Release, RwLock, Shares, Taken, Thread, Wake, store_then_load,
};

/// The word of an owner that lets readers in, when there is nothing else to tell.
#[inline]
const fn upgradable(owner: Owner) -> LockWord {
    owner.word().with_flags(LockFlags::UPGRADABLE)
}

impl<S: Shares> RwLock<'_, S> {
    /// Takes the lock to read, together with other readers, and with the right to [`upgrade`](Self::upgrade);
    /// waits until `deadline`, or for ever, for whoever has that right or writes.
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
            // It might wait for an owner that waits for it.
            return Err(LockError::Deadlock);
        }
        if self.writer().swap(LockWord::FREE, upgradable(me.owner())) {
            Point::LockAcquired.reached();
            if me.is_live() {
                return Ok(Taken::Clean);
            }
            // As in `lock_slow`: others would take it from us at once.
            let _ = self.unlock_upgradable(me, env, Taken::Clean);
            return Err(LockError::Fenced);
        }
        self.writer().lock_slow(me, env, deadline, LockFlags::UPGRADABLE)
    }

    /// Gives it back, upgraded or not. `taken` says how it was taken: who was told of a half-done change and has only
    /// read leaves that to the next.
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

    /// Keeps readers out, and waits until `deadline`, or for ever, until those that are in have left; then
    /// the thread writes. On an error other than [`LockError::Fenced`] it holds the lock as before.
    ///
    /// # Errors
    /// [`LockError`]; `Deadlock` if the thread itself reads under the lock besides.
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
        // By whom, the owner was told when it took the lock.
        Ok(Taken::told_by(word.flags(), None))
    }

    /// Lets readers in again. With [`Release::Inconsistent`] they are told of a half-done change, as they are
    /// if one was found and nobody has repaired it.
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

    /// Changes the flags of the word, of which the thread is the owner, and returns what it is then.
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
