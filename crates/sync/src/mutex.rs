//! The mutex: one word, taken by barging, with a short spin before sleep and a flag against starvation.
//!
//! What of it belongs to the thread that has it is in `bias.rs`; here is what others do about a word that
//! is biased.

use commonhold_layout::{LockFlags, LockWord, Offset, Owner, PendingKind};
use commonhold_window::{
    Point,
    atomic::{AtomicU64, Ordering},
};

use crate::{
    FIRST_SLICE_NS, LOSSES_BEFORE_STARVING, Liveness, LockError, Park, Taken, Thread, Verdict,
    Wake, store_then_load,
    wait::{Step, Wait},
};

/// How an owner frees a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// In order; but if it is still inconsistent, it stays so.
    Done,
    /// Inconsistent: the next owner is told that its predecessor did not finish.
    Inconsistent,
    /// Inconsistent, as it was found: the next owner is told of the one that this one was told of.
    AsFound(Option<Owner>),
    /// Nobody can take it any more, unless it is [reset](Mutex::reset). Of a permit, or a place in a barrier, there is
    /// no such end: it is left inconsistent.
    GivenUp,
}

impl Release {
    /// How to give back, unchanged, what was taken so.
    #[inline]
    #[must_use]
    pub const fn unchanged(taken: Taken) -> Self {
        match taken {
            Taken::Clean => Self::Done,
            Taken::OwnerDied(who) => Self::AsFound(who),
        }
    }

    /// What a word says that `me` frees so; `inconsistent`: it was so when it was taken, and is still.
    pub(crate) const fn left(self, me: Owner, inconsistent: bool) -> LockWord {
        match self {
            Self::Done if !inconsistent => LockWord::FREE,
            Self::Done | Self::Inconsistent => LockWord::left(me, LockFlags::INCONSISTENT),
            Self::AsFound(Some(who)) => LockWord::left(who, LockFlags::INCONSISTENT),
            Self::AsFound(None) => LockWord::unowned(LockFlags::INCONSISTENT),
            Self::GivenUp => LockWord::left(me, LockFlags::UNRECOVERABLE),
        }
    }

    /// What a place says that `me` gives back so. Others could not do without it: one that is given up tells the
    /// next, and is not lost.
    pub(crate) const fn left_place(self, me: Owner) -> LockWord {
        match self {
            Self::GivenUp => Self::Inconsistent.left(me, false),
            how => how.left(me, false),
        }
    }
}

/// A mutex on a word.
#[derive(Debug, Clone, Copy)]
pub struct Mutex<'a> {
    word: &'a AtomicU64,
    at: Offset,
}

/// What a look at a free or taken word led to.
enum Look {
    Taken(Taken),
    Again,
    Sleep(LockWord, Owner, u64),
}

impl<'a> Mutex<'a> {
    /// The mutex whose word is `word`, at offset `at` of its window (which others use to find it when
    /// a waiter died).
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

    /// Where that lies.
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

    /// Takes a mutex that is free and has nothing to tell: the common case of [`lock`](Self::lock), and
    /// small enough to stand wherever a lock is taken. `false` says only that it takes more than this.
    #[inline]
    pub fn lock_quickly(&self, me: &Thread<'_>) -> bool {
        if !self.swap(LockWord::FREE, me.owner().word()) {
            return false;
        }
        Point::LockAcquired.reached();
        // A thread whose peer was fenced must not enter, since others would take the lock from it at
        // once; `lock_slow` finds that out too, and gives back what we could not.
        if me.is_live() {
            return true;
        }
        self.unlock_quickly(me.owner());
        false
    }

    /// Frees a mutex that nobody waits for: the common case of [`unlock`](Self::unlock).
    #[inline]
    pub fn unlock_quickly(&self, owner: Owner) -> bool {
        self.swap(owner.word(), LockWord::FREE)
    }

    /// Takes the mutex if that needs no waiting (a dead owner's mutex needs none).
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

    /// Says that the owner before left what the mutex protects half changed.
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

    /// Makes a mutex that nobody owns as good as new, whatever became of its last owner.
    ///
    /// # Errors
    /// [`LockError::TimedOut`] if somebody owns it who is not known to be dead.
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

    /// Changes the word from `from` to `to`, if nobody else has changed it.
    #[inline]
    pub(crate) fn swap(&self, from: LockWord, to: LockWord) -> bool {
        // SeqCst does for both directions: Acquire pairs with the Release of whoever freed the lock, so
        // that its writes are visible; and a writer's scan for readers comes after it (Dekker).
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
    pub(crate) fn lock_slow(
        &self,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
        deadline: Option<u64>,
        taking: LockFlags,
    ) -> Result<Taken, LockError> {
        if !me.is_live() {
            // It is ours if `lock_quickly` could not give it back, or if we have had it all the time: then what it
            // protects may be half changed.
            let _ = self.unlock_slow(me, env, Release::Inconsistent);
            return Err(LockError::Fenced);
        }
        let mut wait = Wait::taking(taking);
        let result = loop {
            match self.look_once(me, env, deadline, &mut wait) {
                Ok(Look::Taken(taken)) => {
                    wait.won(env, self.word);
                    break Ok(taken);
                }
                Ok(Look::Again) => {}
                Ok(Look::Sleep(expected, owner, until)) => {
                    self.sleep(env, expected, owner, until);
                    wait.slept();
                }
                Err(error) => {
                    if wait.parked {
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
        // A failure means that it has been taken from us already: nothing to give back.
        let _ = self.unlock_slow(me, env, Release::unchanged(taken));
    }

    fn look_once(
        &self,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
        deadline: Option<u64>,
        wait: &mut Wait,
    ) -> Result<Look, LockError> {
        let seen = self.look();
        if seen.is_unrecoverable() {
            return Err(LockError::Unrecoverable);
        }
        if self.revoke(seen) {
            return Ok(Look::Again);
        }
        let Some(owner) = self.owner(seen, env) else {
            if seen.flags().contains(LockFlags::STARVING)
                && !wait.parked
                && wait.spin(env, self.word)
            {
                return Ok(Look::Again);
            }
            return Ok(self.take_free(seen, me, wait));
        };
        Ok(
            match self.await_owner(PendingKind::Exclusive, seen, owner, me, env, deadline, wait)? {
                Step::Again => Look::Again,
                // It may have left its bias just before it died.
                Step::Dead if self.owner(seen, env).is_none() => Look::Again,
                Step::Dead => self.take_over(seen, owner, me, wait),
                Step::Sleep(expected, owner, until) => Look::Sleep(expected, owner, until),
            },
        )
    }

    /// Ends the bias of a word that has one, and says whether it had: then the word is to be looked at again.
    fn revoke(&self, seen: LockWord) -> bool {
        let Some(_) = seen.bias() else { return false };
        let revoked = seen == seen.revoked();
        if !revoked && self.swap(seen, seen.revoked()) {
            Point::BiasRevoked.reached();
        }
        !revoked
    }

    /// Who has the mutex, by this word or by the bias that is revoked in it.
    pub(crate) fn owner(&self, seen: LockWord, env: &impl Liveness) -> Option<Owner> {
        match seen.bias() {
            Some(bias) => {
                // Whether it was we or another who revoked it.
                store_then_load();
                env.inside(bias, self.at)
            }
            None => seen.owner(),
        }
    }

    /// What a waiter of either kind does next about a word that `owner` has.
    #[allow(
        clippy::too_many_arguments,
        reason = "the state of one wait, and nothing that goes together"
    )]
    pub(crate) fn await_owner(
        &self,
        kind: PendingKind,
        seen: LockWord,
        owner: Owner,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
        deadline: Option<u64>,
        wait: &mut Wait,
    ) -> Result<Step, LockError> {
        if owner == me.owner() {
            return Err(LockError::Deadlock);
        }
        let barging = wait.parked || !seen.flags().contains(LockFlags::STARVING);
        if barging && deadline != Some(0) && wait.spin(env, self.word) {
            return Ok(Step::Again);
        }
        let now = env.now();
        let late = deadline.is_some_and(|deadline| now >= deadline);
        let plan = wait.plan(owner, env.bell(owner), now, late);
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
            env.give_way();
            return Ok(Step::Again);
        }
        me.announce(kind, self.at);
        Point::LockPending.reached();
        let mut flags = seen.flags().with(LockFlags::WAITERS);
        if wait.losses >= LOSSES_BEFORE_STARVING {
            flags = flags.with(LockFlags::STARVING);
            wait.raised = true;
        }
        let expected = seen.with_flags(flags);
        if expected != seen && !self.flag(env, seen, expected) {
            return Ok(Step::Again);
        }
        Point::LockFlagged.reached();
        let most = if wait.is_first_at(seen) { FIRST_SLICE_NS } else { u64::MAX };
        let slice = now.saturating_add(plan.slice_ns.min(most));
        Ok(Step::Sleep(expected, owner, deadline.unwrap_or(u64::MAX).min(slice)))
    }

    /// Changes flags of a word that somebody owns, `waiters` among them.
    ///
    /// Readers who sleep since a writer had the lock are not woken by an owner that lets readers in, if it
    /// had no reason to think that anybody sleeps. Who sets `waiters` for such an owner does so, once.
    fn flag(&self, env: &impl Park, seen: LockWord, flagged: LockWord) -> bool {
        let done = self.swap(seen, flagged);
        if done && seen.is_upgradable() && !seen.flags().contains(LockFlags::WAITERS) {
            self.wake(env, Wake::All);
        }
        done
    }

    /// Wakes the readers that sleep on a word of which the owner lets them in.
    pub(crate) fn let_readers_in(&self, env: &impl Park) {
        if self.look().flags().contains(LockFlags::WAITERS) {
            self.wake(env, Wake::All);
        }
    }

    /// Takes a word that nobody owns. Who raised the starving flag takes it down; so does who has
    /// stood back for its turn and found that nobody came, since the one that raised it may be dead.
    fn take_free(&self, seen: LockWord, me: &Thread<'_>, wait: &Wait) -> Look {
        let mut flags = seen.flags();
        if wait.parked {
            flags = flags.with(LockFlags::WAITERS);
        }
        if wait.raised || !wait.parked {
            flags = flags.without(LockFlags::STARVING);
        }
        if !self.swap(seen, me.owner().word().with_flags(flags.with(wait.taking))) {
            return Look::Again;
        }
        Look::Taken(Taken::told_by(flags, seen.left_by()))
    }

    /// Takes a word whose owner has been fenced. One that let readers in has changed nothing.
    fn take_over(&self, seen: LockWord, dead: Owner, me: &Thread<'_>, wait: &Wait) -> Look {
        let mut flags = seen.flags().without(LockFlags::UPGRADABLE).with(LockFlags::WAITERS);
        if seen.is_exclusive() {
            flags = flags.with(LockFlags::INCONSISTENT);
        }
        if !self.swap(seen, me.owner().word().with_flags(flags.with(wait.taking))) {
            return Look::Again;
        }
        Point::LockTakenOver.reached();
        Look::Taken(Taken::told_by(flags, Some(dead)))
    }

    /// A sleeper that gives up may have used up the wake-up meant for the next one.
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
