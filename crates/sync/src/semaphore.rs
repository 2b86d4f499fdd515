//! The semaphore: so many permits, each of which names its holder.
//!
//! A permit is a word, and taking it a compare-and-swap of one's identity into a free one. That costs a
//! search among at most 64 words where a counter would be one addition; but of a counter nobody can say
//! whose permits it lacks, and each death would make the semaphore smaller for ever.
//!
//! A permit that stands for something which is used up, such as an item in a queue, is *spent* instead of
//! released, and comes back when a thread gives it. A spent permit has no holder, so no death loses it.
//!
//! # Invariants
//! 1. A permit is held by one thread at most, named by its word, or free, or spent: permits are neither
//!    made nor lost.
//! 2. A thread that makes a word free signals the event afterwards; a waiter reads the event's number, looks at all
//!    words, and sleeps while the number is the same. So no waiter sleeps beside a free permit for longer than a
//!    slice (its longest sleep before it looks again), and that long only if the thread that freed it died before it
//!    signalled.
//! 3. A signal lowers the event's flag and wakes one waiter. A waiter that has slept raises the flag again when it
//!    goes, with a permit or without, and wakes one more if permits are left: it cannot know whether others sleep.
//! 4. A waiter keeps an announcement until it has its permit: if it dies with a wake-up that was meant for
//!    another waiter, the others are woken. While it sleeps, it announces a *wait*. When it wakes, it announces
//!    instead that it may have others to wake, and only then looks at the words and takes a permit. So if an observer
//!    sees a thread both wait for the semaphore and hold a permit of it, the thread had that permit before it waited:
//!    it waits for one more.
//!
//! # Deaths
//! - The holder: its permit goes to a waiter, or to the next thread that asks for one, which is told so.
//! - The holder, after it released the permit and before it signalled: the permit is free, and sleeping
//!   waiters find it at the end of their slice.
//! - A waiter: nothing but its own wait.
//! - A thread that gives a permit: the permit is given or not; then as for a holder that released it.
//! - A thread that has spent a permit: nothing; other threads give the permit.

use commonhold_layout::{LockFlags, LockWord, Offset};
use commonhold_window::{Point, atomic::AtomicU64};

use crate::{
    Event, Liveness, LockError, Park, Release, Taken, Thread,
    owner_set::{OwnerSet, OwnerSetWatch},
    owner_slots::OwnerSlots,
    store_then_load,
};

/// A semaphore on a word for its event, and one for each permit.
#[derive(Debug, Clone, Copy)]
pub struct Semaphore<'a> {
    freed: Event<'a>,
    permits: OwnerSlots<'a>,
}

/// Which permit a thread holds: what to give to [`Semaphore::release`] or [`Semaphore::spend`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Permit(usize);

impl Permit {
    /// Its number, from 0.
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0
    }
}

impl<'a> Semaphore<'a> {
    /// The semaphore with these permits, whose event word is `event`, at offset `at` of its window.
    #[inline]
    #[must_use]
    pub const fn new(event: &'a AtomicU64, at: Offset, permits: &'a [AtomicU64]) -> Self {
        Self { freed: Event::new(event, at), permits: OwnerSlots(permits) }
    }

    /// Where its event word lies.
    #[inline]
    #[must_use]
    pub const fn at(&self) -> Offset {
        self.freed.at()
    }

    /// How many permits are free now.
    #[must_use]
    pub fn available(&self) -> usize {
        let stuck = |seen: &LockWord| seen.flags().contains(LockFlags::UNRECOVERABLE);
        self.permits.iter().filter(|seen| !seen.is_owned() && !stuck(seen)).count()
    }

    /// Takes a permit without waiting, if one is free or its holder is dead.
    ///
    /// # Errors
    /// As for [`acquire`](Self::acquire).
    pub fn try_acquire(
        &self,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
    ) -> Result<(Taken, Permit), LockError> {
        self.acquire(me, env, Some(0))
    }

    /// Takes a permit, waiting until `deadline`, or for ever; `Some(0)` does not wait.
    ///
    /// A permit that was given back in order is taken first. With [`Taken::OwnerDied`] the last holder of the permit
    /// died, or left it inconsistent.
    ///
    /// # Errors
    /// [`LockError::TimedOut`]; [`LockError::Deadlock`] if the thread holds all permits itself;
    /// [`LockError::Fenced`] if it was declared dead.
    #[inline]
    pub fn acquire(
        &self,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
        deadline: Option<u64>,
    ) -> Result<(Taken, Permit), LockError> {
        if let Some(permit) = self.permits.take_quickly(me) {
            return self.entered(me, env, Taken::Clean, Permit(permit));
        }
        self.acquire_slowly(me, env, deadline)
    }

    /// Gives a permit back. With [`Release::Inconsistent`] the next holder is told that this one did not
    /// finish.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if the thread does not hold it; nothing has changed then.
    pub fn release(
        &self,
        me: &Thread<'_>,
        env: &impl Park,
        permit: Permit,
        how: Release,
    ) -> Result<(), LockError> {
        self.permits.give_back(me, permit.0, |_| how.left_slot(me.owner()))?;
        Point::PermitFreed.reached();
        self.freed.hand_on(me, env);
        Ok(())
    }

    /// Uses a permit up: it has no holder, and nobody can take it until it is [given](Self::give).
    ///
    /// # Errors
    /// [`LockError::Fenced`] if the thread does not hold it; nothing has changed then.
    pub fn spend(&self, me: &Thread<'_>, permit: Permit) -> Result<(), LockError> {
        self.permits.give_back(me, permit.0, |_| LockWord::SPENT)?;
        Point::PermitSpent.reached();
        Ok(())
    }

    /// Makes one spent permit free. Any thread may have spent it.
    ///
    /// # Errors
    /// [`LockError::NothingSpent`] if no permit is spent; [`LockError::Fenced`] if the caller was declared dead.
    pub fn give(&self, me: &Thread<'_>, env: &impl Park) -> Result<(), LockError> {
        if !me.is_live() {
            return Err(LockError::Fenced);
        }
        let spent = |slot: &usize| self.permits.swap(*slot, LockWord::SPENT, LockWord::FREE);
        if !(0..self.permits.0.len()).any(|slot| spent(&slot)) {
            return Err(LockError::NothingSpent);
        }
        Point::PermitFreed.reached();
        self.freed.hand_on(me, env);
        Ok(())
    }

    #[cold]
    fn acquire_slowly(
        &self,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
        deadline: Option<u64>,
    ) -> Result<(Taken, Permit), LockError> {
        let mut watch = OwnerSetWatch::default();
        let mut slept = false;
        let result = loop {
            if !me.is_live() {
                break Err(LockError::Fenced);
            }
            let number = self.freed.sequence();
            let now = env.now();
            let late = deadline.is_some_and(|deadline| now >= deadline);
            let holders =
                OwnerSet::new(me.owner(), self.permits.iter().filter_map(LockWord::owner));
            let (evidence, slice) = watch.plan(&holders, env, now, late);
            if let Some((permit, taken)) = self.permits.take(me, env, evidence) {
                break Ok((taken, Permit(permit)));
            }
            if self.permits.iter().all(|seen| seen.is_owned_by(me.owner())) {
                break Err(LockError::Deadlock);
            }
            if late {
                break Err(LockError::TimedOut);
            }
            let mine = |owner| env.is_same_thread(me.owner(), owner);
            if self.permits.iter().all(|seen| seen.owner().is_some_and(mine)) {
                break Err(LockError::Deadlock);
            }
            let until = deadline.unwrap_or(u64::MAX).min(now.saturating_add(slice));
            if slice == 0 {
                env.yield_now();
                continue;
            }
            slept = true;
            // Whatever has ended the sleep, the next look tells.
            let _ = self.freed.pause(me, env, number, Some(until), holders.owners());
            self.freed.awake(me);
        };
        if slept {
            self.pass_on(env);
        }
        me.done();
        let (taken, permit) = result?;
        self.entered(me, env, taken, permit)
    }

    /// Leaves the event so that no waiter sleeps beside a free permit.
    fn pass_on(&self, env: &impl Park) {
        self.freed.raise();
        store_then_load();
        if self.available() > 0 {
            self.freed.nudge(env);
        }
    }

    /// Checks that the thread is live. A thread whose peer was fenced must not go on: others would take the permit
    /// from it at once.
    #[inline]
    fn entered(
        &self,
        me: &Thread<'_>,
        env: &impl Park,
        taken: Taken,
        permit: Permit,
    ) -> Result<(Taken, Permit), LockError> {
        Point::PermitTaken.reached();
        if me.is_live() {
            return Ok((taken, permit));
        }
        // If this fails, another thread has taken the permit from us already.
        let _ = self.release(me, env, permit, Release::unchanged(taken));
        Err(LockError::Fenced)
    }
}
