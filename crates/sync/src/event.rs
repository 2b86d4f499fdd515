//! The event: a sequence number that can be waited for.
//!
//! A signal is not kept for anybody: it moves the number. Who read the number before the signal sees
//! it moved, whenever it looks. The death of a waiter therefore loses nothing but its own wake-up,
//! and that of a signaller nothing if the number had moved: sleepers see it at the end of their slice
//! at the latest.

use commonhold_layout::{EVENT_STEP, EVENT_WAITERS, Offset, Owner, PendingKind};
use commonhold_window::{
    Point,
    atomic::{AtomicU64, Ordering},
};

use crate::{LockError, Park, SLICE_NS, Thread, Wake};

/// What becomes of the flag that says that somebody may be asleep. It falls with every signal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flag {
    /// Raised again by whoever signals, unless nobody was asleep: one signal cannot know whether more sleep than
    /// it wakes.
    Returns,
    /// It is for others to raise it.
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
        // SeqCst: who looks at a condition after reading the number, while the other side changes the
        // condition and then moves the number, sees one or the other.
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

    /// As [`signal`](Self::signal), and the flag falls: for those who [raise](Self::raise) it again when
    /// they have slept and go, since others may sleep. Then a signal without sleepers wakes in vain once
    /// at most, and not for ever.
    pub(crate) fn hand_on(&self, me: &Thread<'_>, env: &impl Park) {
        self.advance_if(me, env, Wake::One, Flag::Falls, |_| true);
    }

    /// Says that somebody may be asleep.
    pub(crate) fn raise(&self) {
        // SeqCst: who raises it and then looks at what is waited for, while another changes that and then
        // moves the number, sees the change, or the other sees the flag.
        self.word.fetch_or(EVENT_WAITERS, Ordering::SeqCst);
    }

    /// Moves the number and wakes all sleepers, by nobody who could announce it: if the caller dies in between, they
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

    /// Raises the flag again that fell when the word became `moved`. Whoever has signalled meanwhile has woken
    /// nobody, though some may have slept.
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

    /// As [`wait`](Self::wait), and returns `seen` if the death futex of `owner`, for whom it is waited, rings.
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

    /// Says that the caller is awake after a [`pause`](Self::pause), and may take what it slept for: who looks
    /// on must not think that it still waits with that in its hands. If it dies, the others are woken as before.
    pub(crate) fn awake(&self, me: &Thread<'_>) {
        me.announce(PendingKind::Release, self.at);
    }

    /// As [`wait`](Self::wait), or if there are `owners` as [`wait_for`](Self::wait_for) for all of them; and
    /// the announcement stays: if the caller dies before it has done what the wake-up was for, the other
    /// sleepers are woken. The caller ends with [`Thread::done`].
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
