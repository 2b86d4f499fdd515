//! The event: a sequence number that can be waited for.
//!
//! A signal is not stored for a waiter: it moves the number. A thread that read the number before the signal sees
//! it moved, whenever it looks. So the death of a waiter loses nothing but its own wake-up. The death
//! of a signaller loses nothing if the number had moved: sleepers see that at the end of their slice
//! at the latest.

use commonhold_layout::{EVENT_STEP, EVENT_WAITERS, Offset, Owner, PendingKind};
use commonhold_window::{
    Point,
    atomic::{AtomicU64, Ordering},
};

use crate::{LockError, Park, SLICE_NS, Thread, Wake};

/// What becomes of the flag [`EVENT_WAITERS`], which says that a thread may be asleep. Every signal lowers it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flag {
    /// The signaller raises it again, unless nobody was asleep: it cannot know whether more threads sleep than
    /// it wakes.
    Returns,
    /// Other threads raise it again when they need it.
    Falls,
}

/// An event on a word.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    word: &'a AtomicU64,
    at: Offset,
}

impl<'a> Event<'a> {
    /// The event whose word is `word`, at offset `at` of its window.
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

    /// The number now.
    #[inline]
    #[must_use]
    pub fn sequence(&self) -> u64 {
        // SeqCst: pairs with the signaller, which changes the condition and then moves the number. A thread that
        // reads the number and then looks at the condition sees the new condition, or later the number moved.
        self.word.load(Ordering::SeqCst) / EVENT_STEP
    }

    /// Moves the number and wakes at most one sleeper.
    pub fn signal(&self, me: &Thread<'_>, env: &impl Park) {
        self.advance(me, env, Wake::One);
    }

    /// Moves the number and wakes all sleepers.
    pub fn broadcast(&self, me: &Thread<'_>, env: &impl Park) {
        self.advance(me, env, Wake::All);
    }

    /// As [`broadcast`](Self::broadcast), but only if the number still is `from`. Returns whether it was.
    pub(crate) fn broadcast_from(&self, me: &Thread<'_>, env: &impl Park, from: u64) -> bool {
        self.advance_if(me, env, Wake::All, Flag::Falls, |number| number == from)
    }

    /// As [`signal`](Self::signal), but the flag stays down. For waiters that [raise](Self::raise) it again after
    /// they have slept, since others may still sleep. Then of the signals that nobody sleeps for, only the first one
    /// makes a futile wake-up.
    pub(crate) fn hand_on(&self, me: &Thread<'_>, env: &impl Park) {
        self.advance_if(me, env, Wake::One, Flag::Falls, |_| true);
    }

    /// Raises the flag: a thread may be asleep.
    pub(crate) fn raise(&self) {
        // SeqCst: pairs with the swap in `advance_if`. The caller raises the flag and then looks at the condition; a
        // signaller changes the condition and then moves the number. The caller sees the change, or the signaller the
        // flag.
        self.word.fetch_or(EVENT_WAITERS, Ordering::SeqCst);
    }

    /// Moves the number and wakes all sleepers, where no thread can announce that: if the caller dies in between, they
    /// see the number at the end of their slice.
    pub(crate) fn advance_unannounced(&self, env: &impl Park) {
        // SeqCst: pairs with the load in `sequence` and in `wait`.
        self.word.fetch_add(EVENT_STEP, Ordering::SeqCst);
        env.wake(self.word, Wake::All);
    }

    /// Wakes one sleeper, and the number stays.
    pub(crate) fn nudge(&self, env: &impl Park) {
        env.wake(self.word, Wake::One);
    }

    fn advance(&self, me: &Thread<'_>, env: &impl Park, who: Wake) {
        let flag = if who == Wake::All { Flag::Falls } else { Flag::Returns };
        self.advance_if(me, env, who, flag, |_| true);
    }

    #[inline]
    fn advance_if(
        &self,
        me: &Thread<'_>,
        env: &impl Park,
        who: Wake,
        flag: Flag,
        wanted: impl Fn(u64) -> bool,
    ) -> bool {
        let mut seen = self.word.load(Ordering::Relaxed);
        loop {
            if !wanted(seen / EVENT_STEP) {
                return false;
            }
            let sleepers = seen & EVENT_WAITERS != 0;
            let moved = (seen & !EVENT_WAITERS).wrapping_add(EVENT_STEP);
            if sleepers {
                me.announce(PendingKind::Release, self.at);
                Point::EventAnnounced.reached();
            }
            // SeqCst: pairs with the load in `sequence` and in `wait`.
            match self.word.compare_exchange_weak(seen, moved, Ordering::SeqCst, Ordering::Relaxed)
            {
                Ok(_) if sleepers => {
                    Point::EventMoved.reached();
                    if env.wake_any(self.word, who) && flag == Flag::Returns {
                        self.raise_after(env, moved);
                    }
                    me.done();
                    return true;
                }
                Ok(_) => return true,
                Err(now) => {
                    if sleepers {
                        me.done();
                    }
                    seen = now;
                }
            }
        }
    }

    /// Raises the flag again that was lowered when the word became `moved`. A thread that has signalled meanwhile
    /// found it down and woke nobody, though others may have slept.
    fn raise_after(&self, env: &impl Park, moved: u64) {
        // SeqCst: see `raise`.
        let found = self.word.fetch_or(EVENT_WAITERS, Ordering::SeqCst);
        Point::EventRaised.reached();
        if found & !EVENT_WAITERS != moved {
            env.wake(self.word, Wake::All);
        }
    }

    /// Waits until the number is not `seen`, and returns what it is then.
    ///
    /// # Errors
    /// [`LockError::TimedOut`] at `deadline`; [`LockError::Fenced`] if the caller was declared dead.
    pub fn wait(
        &self,
        me: &Thread<'_>,
        env: &impl Park,
        seen: u64,
        deadline: Option<u64>,
    ) -> Result<u64, LockError> {
        self.sleep(me, env, seen, deadline, &[])
    }

    /// As [`wait`](Self::wait), but returns after one sleep, which ends at `until` or if the death futex of `owner`
    /// fires. If the number has not moved, it returns `seen`.
    pub(crate) fn wait_for(
        &self,
        owner: Owner,
        me: &Thread<'_>,
        env: &impl Park,
        seen: u64,
        until: u64,
    ) -> Result<u64, LockError> {
        self.sleep(me, env, seen, Some(until), &[owner])
    }

    fn sleep(
        &self,
        me: &Thread<'_>,
        env: &impl Park,
        seen: u64,
        deadline: Option<u64>,
        owners: &[Owner],
    ) -> Result<u64, LockError> {
        let result = self.pause(me, env, seen, deadline, owners);
        me.done();
        result
    }

    /// Announces that the caller is awake after a [`pause`](Self::pause), and may take what it slept for: an observer
    /// must not see it wait while it holds that. If it dies, the other sleepers are woken as before.
    pub(crate) fn awake(&self, me: &Thread<'_>) {
        me.announce(PendingKind::Release, self.at);
    }

    /// As [`wait`](Self::wait), or, if there are `owners`, as [`wait_for`](Self::wait_for) for all of them. But
    /// the announcement stays: if the caller dies before it has acted on the wake-up, the other
    /// sleepers are woken. The caller then calls [`Thread::done`].
    pub(crate) fn pause(
        &self,
        me: &Thread<'_>,
        env: &impl Park,
        seen: u64,
        deadline: Option<u64>,
        owners: &[Owner],
    ) -> Result<u64, LockError> {
        let mut turn = 0;
        loop {
            let word = self.word.load(Ordering::SeqCst);
            if word / EVENT_STEP != seen {
                return Ok(word / EVENT_STEP);
            }
            if deadline != Some(0) && env.spin(self.word, turn) {
                turn += 1;
                continue;
            }
            let now = env.now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                return Err(LockError::TimedOut);
            }
            if !me.is_live() {
                return Err(LockError::Fenced);
            }
            me.announce(PendingKind::Event, self.at);
            Point::EventPending.reached();
            let expected = word | EVENT_WAITERS;
            if expected != word
                && self
                    .word
                    .compare_exchange(word, expected, Ordering::SeqCst, Ordering::Relaxed)
                    .is_err()
            {
                continue;
            }
            Point::EventFlagged.reached();
            if owners.is_empty() {
                let slice = now.saturating_add(SLICE_NS);
                env.wait(self.word, expected, deadline.unwrap_or(u64::MAX).min(slice));
                continue;
            }
            env.wait_for(owners, self.word, expected, deadline.unwrap_or(u64::MAX));
            return Ok(self.sequence());
        }
    }
}
