//! Taking a mutex whose word is not plainly free: the thread may have to wait.
//!
//! A contender looks at the word repeatedly. If the mutex is biased, it revokes the bias. If nobody owns the word, or
//! its owner is dead, it takes it. Otherwise it spins, then flags the word, and sleeps. The readers of a
//! reader/writer lock wait for a writer by the same [`Mutex::await_owner`].

use commonhold_layout::{LockFlags, LockWord, Owner};
use commonhold_window::Point;

use super::Mutex;
use crate::{
    FIRST_SLICE_NS, LOSSES_BEFORE_STARVING, Liveness, LockError, Park, Release, Taken, Thread,
    Verdict, Wake,
    wait::{Step, Waiter},
};

/// What a look at a free or taken word led to.
enum Look {
    Taken(Taken),
    Again,
    Sleep(LockWord, Owner, u64),
}

impl Mutex<'_> {
    /// Takes the mutex after [`lock_quickly`](Self::lock_quickly) could not, with the flags `taking` in its word.
    #[cold]
    pub(crate) fn lock_slow(
        &self,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
        deadline: Option<u64>,
        taking: LockFlags,
    ) -> Result<Taken, LockError> {
        if !me.is_live() {
            // The mutex is ours if `lock_quickly` could not give it back, or if we had it before this call: then what
            // it protects may be half changed.
            let _ = self.unlock_slow(me, env, Release::Inconsistent);
            return Err(LockError::Fenced);
        }
        let mut waiter = Waiter::to_own(me, env, deadline, taking);
        let result = loop {
            match self.look_once(&mut waiter) {
                Ok(Look::Taken(taken)) => {
                    waiter.won(self.word);
                    break Ok(taken);
                }
                Ok(Look::Again) => {}
                Ok(Look::Sleep(expected, owner, until)) => {
                    self.sleep(env, expected, owner, until);
                    waiter.slept();
                }
                Err(error) => {
                    if waiter.parked {
                        self.pass_on(env);
                    }
                    break Err(error);
                }
            }
        };
        if result.is_ok() && taking == LockFlags::UPGRADABLE {
            self.let_readers_in(env);
        }
        me.done();
        let taken = result?;
        Point::LockAcquired.reached();
        if me.is_live() {
            return Ok(taken);
        }
        self.give_back(me, env, taken);
        Err(LockError::Fenced)
    }

    fn give_back(&self, me: &Thread<'_>, env: &impl Park, taken: Taken) {
        // If this fails, another thread has taken the mutex from us already.
        let _ = self.unlock_slow(me, env, Release::unchanged(taken));
    }

    fn look_once(&self, waiter: &mut Waiter<'_, impl Park + Liveness>) -> Result<Look, LockError> {
        let env = waiter.env;
        let seen = self.look();
        if seen.is_unrecoverable() {
            return Err(LockError::Unrecoverable);
        }
        if self.revoke(seen) {
            return Ok(Look::Again);
        }
        let Some(owner) = self.owner(seen, env) else {
            if seen.flags().contains(LockFlags::STARVING)
                && !waiter.parked
                && waiter.spin(self.word)
            {
                return Ok(Look::Again);
            }
            return Ok(self.take_free(seen, waiter));
        };
        Ok(match self.await_owner(seen, owner, waiter)? {
            Step::Again => Look::Again,
            // The thread may have left the mutex, by its bias, just before it died.
            Step::Dead if self.owner(seen, env).is_none() => Look::Again,
            Step::Dead => self.take_over(seen, owner, waiter),
            Step::Sleep(expected, owner, until) => Look::Sleep(expected, owner, until),
        })
    }

    /// What a waiter, to own or to read, does next about the word `seen`, whose owner is `owner`.
    pub(crate) fn await_owner(
        &self,
        seen: LockWord,
        owner: Owner,
        waiter: &mut Waiter<'_, impl Park + Liveness>,
    ) -> Result<Step, LockError> {
        let (me, env) = (waiter.me, waiter.env);
        if owner == me.owner() {
            return Err(LockError::Deadlock);
        }
        let barging = waiter.parked || !seen.flags().contains(LockFlags::STARVING);
        if barging && waiter.deadline != Some(0) && waiter.spin(self.word) {
            return Ok(Step::Again);
        }
        let now = env.now();
        let late = waiter.deadline.is_some_and(|deadline| now >= deadline);
        let plan = waiter.watch.plan(owner, env.death_notice(owner), now, late);
        if !env.is_current(owner) || (plan.look && env.verdict(owner) == Verdict::Dead) {
            return Ok(Step::Dead);
        }
        if late {
            return Err(LockError::TimedOut);
        }
        if env.is_same_thread(me.owner(), owner) {
            return Err(LockError::Deadlock);
        }
        if plan.slice_ns == 0 {
            env.yield_now();
            return Ok(Step::Again);
        }
        me.announce(waiter.kind, self.at);
        Point::LockPending.reached();
        let mut flags = seen.flags().with(LockFlags::WAITERS);
        if waiter.losses >= LOSSES_BEFORE_STARVING {
            flags = flags.with(LockFlags::STARVING);
            waiter.raised = true;
        }
        let expected = seen.with_flags(flags);
        if expected != seen && !self.flag(env, seen, expected) {
            return Ok(Step::Again);
        }
        Point::LockFlagged.reached();
        let most = if waiter.is_first_at(seen) { FIRST_SLICE_NS } else { u64::MAX };
        let slice = now.saturating_add(plan.slice_ns.min(most));
        Ok(Step::Sleep(expected, owner, waiter.deadline.unwrap_or(u64::MAX).min(slice)))
    }

    /// Changes flags of a word that has an owner, `waiters` among them.
    ///
    /// Readers that fell asleep while a writer had the lock may still sleep when the owner lets readers in: it wakes
    /// nobody if it did not find `waiters` set. So the waiter that sets `waiters` in such a word wakes them, once.
    fn flag(&self, env: &impl Park, seen: LockWord, flagged: LockWord) -> bool {
        let done = self.swap(seen, flagged);
        if done && seen.is_upgradable() && !seen.flags().contains(LockFlags::WAITERS) {
            self.wake(env, Wake::All);
        }
        done
    }

    /// Wakes the readers that sleep on a word whose owner lets them in.
    pub(crate) fn let_readers_in(&self, env: &impl Park) {
        if self.look().flags().contains(LockFlags::WAITERS) {
            self.wake(env, Wake::All);
        }
    }

    /// Takes a word that nobody owns. The waiter that raised the starving flag lowers it. So does a newcomer that
    /// has stood back for a while: the waiter that raised it may be dead.
    fn take_free(&self, seen: LockWord, waiter: &Waiter<'_, impl Park + Liveness>) -> Look {
        let mut flags = seen.flags();
        if waiter.parked {
            flags = flags.with(LockFlags::WAITERS);
        }
        if waiter.raised || !waiter.parked {
            flags = flags.without(LockFlags::STARVING);
        }
        if !self.swap(seen, waiter.me.owner().word().with_flags(flags.with(waiter.taking))) {
            return Look::Again;
        }
        Look::Taken(Taken::told_by(flags, seen.left_by()))
    }

    /// Takes the word of a dead owner. If that owner let readers in, it has changed nothing.
    fn take_over(
        &self,
        seen: LockWord,
        dead: Owner,
        waiter: &Waiter<'_, impl Park + Liveness>,
    ) -> Look {
        let mut flags = seen.flags().without(LockFlags::UPGRADABLE).with(LockFlags::WAITERS);
        if seen.is_exclusive() {
            flags = flags.with(LockFlags::INCONSISTENT);
        }
        if !self.swap(seen, waiter.me.owner().word().with_flags(flags.with(waiter.taking))) {
            return Look::Again;
        }
        Point::LockTakenOver.reached();
        Look::Taken(Taken::told_by(flags, Some(dead)))
    }

    /// Passes on a wake-up: a sleeper that gives up may have used up one that was meant for another.
    fn pass_on(&self, env: &impl Park) {
        loop {
            let seen = self.look();
            if !seen.is_owned() || seen.bias().is_some() {
                self.wake(env, Wake::One);
                return;
            }
            let flagged = seen.with_flags(seen.flags().with(LockFlags::WAITERS));
            if flagged == seen || self.flag(env, seen, flagged) {
                return;
            }
        }
    }
}
