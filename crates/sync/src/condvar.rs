//! The condition variable: an event, and a wait for it that frees the mutex of the condition meanwhile.
//!
//! # Invariants
//! 1. A waiter reads the event's number under the mutex, and frees the mutex after that. A notifier changes the
//!    condition under the mutex and then moves the number, so the waiter sees it moved.
//! 2. A waiter returns with the mutex held, and with how it was taken. If the mutex was inconsistent when the wait
//!    began, the waiter frees it as inconsistent, and the next owner is told.
//! 3. A wait may end for no reason, and does so after [`RECHECK_NS`] at the latest: the caller looks at the condition
//!    again. So no wait depends on a notification: the notifier may die before it notifies.
//!
//! # Deaths
//! - The notifier, while it holds the mutex: at the end of a slice ([`SLICE_NS`], the longest sleep) a waiter finds
//!   that the owner of the mutex is dead, takes the mutex over, and is told so.
//! - The notifier, after it freed the mutex and before it notified: no notification comes, and the waiter looks at
//!   the condition after [`RECHECK_NS`] at the latest (invariant 3). It is the same if the notifier died with the
//!   mutex, and the next owner repairs what the condition is about but does not notify.
//! - The notifier, after it moved the number and before it woke a sleeper: its reaper wakes the
//!   sleepers; at the latest they see the number at the end of their slice.
//! - A waiter: nothing. A notification moves the number for all waiters. If the one that it woke dies, the others see
//!   the number at the end of their slice.

use commonhold_layout::{LockFlags, Offset, Owner};
use commonhold_window::{Point, atomic::AtomicU64};

use crate::{
    Event, Liveness, LockError, Mutex, Park, Release, SLICE_NS, Taken, Thread,
    owner_slots::DeathCheck,
};

/// Longest wait that ends for no reason.
const RECHECK_NS: u64 = 1_000_000_000;

/// A condition variable on a word.
#[derive(Debug, Clone, Copy)]
pub struct Condvar<'a>(Event<'a>);

/// Why a wait has ended.
///
/// # Examples
/// ```
/// # use commonhold_sync::Waited;
/// fn tell(waited: Waited) {
///     match waited {
///         Waited::Notified => println!("the condition may hold now"),
///         Waited::TimedOut => println!("the mutex is held, and the time is up"),
///     }
/// }
/// tell(Waited::TimedOut);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Waited {
    /// A notification came, or the wait ended for no reason: look at the condition again.
    Notified,
    /// The time is up.
    TimedOut,
}

impl<'a> Condvar<'a> {
    /// The condition variable whose word is `word`, at offset `at` of its window.
    #[inline]
    #[must_use]
    pub const fn new(word: &'a AtomicU64, at: Offset) -> Self {
        Self(Event::new(word, at))
    }

    /// Wakes one waiter; the others look at the condition again at the end of their slice.
    pub fn notify_one(&self, me: &Thread<'_>, env: &impl Park) {
        self.0.signal(me, env);
    }

    /// Wakes all waiters.
    pub fn notify_all(&self, me: &Thread<'_>, env: &impl Park) {
        self.0.broadcast(me, env);
    }

    /// Frees `mutex`, which the thread holds, waits to be notified until `deadline`, or for ever, and takes
    /// the mutex again, however long that takes.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if the thread does not hold the mutex, or was declared dead; otherwise as for
    /// [`Mutex::lock`]. The thread does not hold the mutex then.
    pub fn wait(
        &self,
        mutex: &Mutex<'_>,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
        deadline: Option<u64>,
    ) -> Result<(Taken, Waited), LockError> {
        let number = self.0.sequence();
        mutex.unlock(me, env, Release::Done)?;
        Point::CondvarFreed.reached();
        let waited = self.sleep(mutex, me, env, number, deadline);
        me.done();
        // If `waited` is an error, the thread is fenced, and this fails too.
        let taken = mutex.lock(me, env, None)?;
        waited.map(|waited| (taken, waited))
    }

    fn sleep(
        &self,
        mutex: &Mutex<'_>,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
        number: u64,
        deadline: Option<u64>,
    ) -> Result<Waited, LockError> {
        let mut now = env.now();
        let doubt = now.saturating_add(RECHECK_NS);
        let mut holder = None;
        loop {
            let slice = now.saturating_add(SLICE_NS).min(deadline.unwrap_or(u64::MAX));
            match self.0.pause(me, env, number, Some(slice), &[]) {
                Ok(_) => return Ok(Waited::Notified),
                Err(LockError::TimedOut) => now = env.now(),
                Err(error) => return Err(error),
            }
            if deadline.is_some_and(|deadline| now >= deadline) {
                return Ok(Waited::TimedOut);
            }
            if now >= doubt || is_hurt(mutex, env, &mut holder) {
                return Ok(Waited::Notified);
            }
        }
    }
}

/// Whether a waiter must return because of the mutex: its owner is dead, or has left it inconsistent or unrecoverable.
/// Evidence is looked for only if the owner is the one of the last look, `before`.
fn is_hurt(mutex: &Mutex<'_>, env: &impl Liveness, before: &mut Option<Owner>) -> bool {
    let seen = mutex.look();
    let Some(owner) = mutex.owner(seen, env) else {
        return !seen.is_biased() && seen.flags() != LockFlags::NONE;
    };
    let known = before.replace(owner) == Some(owner);
    (if known { DeathCheck::Probe } else { DeathCheck::Cached }).proves_dead(env, owner)
}
