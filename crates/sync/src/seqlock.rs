//! The sequence lock: data that are read without writing anything, and written one change at a time.
//!
//! Writers exclude each other by a mutex word. A second word, the sequence, is odd while one of them
//! changes the data. A reader copies the data and keeps the copy if the sequence was even before and is
//! the same after. (H.-J. Boehm, "Can seqlocks get along with programming language memory models?", MSPC
//! 2012, has the fences.)
//!
//! # Invariants
//! 1. The sequence grows only, and only the owner of the mutex word moves it. A writer that was
//!    declared dead but still runs cannot finish another writer's change: its compare-and-swap expects a number
//!    that the next owner has moved past.
//! 2. A writer makes the sequence odd in three steps: it reads the sequence, *then* checks that the mutex word is
//!    still its own, and then swaps the number that it read for an odd one. If it was declared dead meanwhile, and
//!    the next owner has begun a change, either the check fails or the swap does. In another order it would not be
//!    so: a writer that checks first, is declared dead, and then reads the next owner's odd number, would replace
//!    that number, and the next owner could not end its change.
//! 3. If the sequence is odd when the mutex word is taken, the new owner is told [`Taken::OwnerDied`], and the
//!    word says so too.
//! 4. A reader stores nothing in the lock or the data: it needs no right to write that memory. So its loads are
//!    relaxed, with separate fences.
//!
//! # Deaths
//! - A writer, in the middle of a change: readers get [`LockError::WriterDied`] until a writer has made
//!   the data whole; the next writer has the lock and is told. Before or after a change: only the next
//!   writer is told; readers go on.
//! - A reader: nothing.
//!
//! # What it does not do
//! It does not keep readers from starving: a reader whose copy takes longer than the writers' pauses gets none.
//! What a writer stores after it was declared dead (ADR 0012) can tear a copy, as it can tear what a mutex
//! protects.

use commonhold_layout::{LockFlags, Offset, Owner};
use commonhold_window::{
    Point,
    atomic::{AtomicU64, Ordering, fence},
};

use crate::{Liveness, LockError, Mutex, Park, Release, Taken, Thread, Verdict, wait::Watch};

/// First sleep of a reader that waits for the end of a change, and the longest. Nobody wakes it.
const NAP_LEAST_NS: u64 = 10_000;
const NAP_MOST_NS: u64 = 1_000_000;

/// A sequence lock on two words. The data are the caller's: the lock says when to copy them.
#[derive(Debug, Clone, Copy)]
pub struct SeqLock<'a> {
    words: &'a [AtomicU64; 2],
    at: Offset,
}

/// A change that a writer has begun: the odd number of the sequence that the writer must end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Writing(u64);

impl Writing {
    /// Whether this writer keeps readers out.
    #[inline]
    #[must_use]
    pub const fn has_begun(self) -> bool {
        self.0 != 0
    }
}

const fn is_odd(sequence: u64) -> bool {
    sequence & 1 != 0
}

impl<'a> SeqLock<'a> {
    /// The lock with two words at offset `at` of its window: the writers' mutex and the sequence.
    #[inline]
    #[must_use]
    pub const fn new(words: &'a [AtomicU64; 2], at: Offset) -> Self {
        Self { words, at }
    }

    /// The mutex by which writers exclude each other.
    #[inline]
    #[must_use]
    pub const fn writer(&self) -> Mutex<'a> {
        Mutex::new(&self.words[0], self.at)
    }

    #[inline]
    const fn sequence(&self) -> &'a AtomicU64 {
        &self.words[1]
    }

    /// A copy of the data, which `copy` makes by relaxed loads; it is called again until no writer has written
    /// meanwhile. Waits for the end of a change until `deadline`, or for ever; `Some(0)` does not wait.
    /// `me` is the caller, if it is known.
    ///
    /// # Errors
    /// [`LockError::WriterDied`], [`LockError::Unrecoverable`]: the change has no living writer to end it.
    /// [`LockError::TimedOut`]. [`LockError::Deadlock`]: the writer is `me`.
    #[inline]
    pub fn read<R>(
        &self,
        me: impl FnOnce() -> Option<Owner>,
        env: &(impl Park + Liveness),
        deadline: Option<u64>,
        mut copy: impl FnMut() -> R,
    ) -> Result<R, LockError> {
        match self.copy_once(&mut copy) {
            Some(value) => Ok(value),
            None => self.read_slowly(me(), env, deadline, copy),
        }
    }

    #[inline]
    fn copy_once<R>(&self, copy: &mut impl FnMut() -> R) -> Option<R> {
        let before = self.sequence().load(Ordering::Relaxed);
        // Acquire: pairs with the Release in `finish`; the copy sees what was written up to this number.
        fence(Ordering::Acquire);
        if is_odd(before) {
            return None;
        }
        let value = copy();
        // Acquire: pairs with the Release fence in `begin`. If the copy has seen any store of a change, the
        // load below sees the odd number that came before it.
        fence(Ordering::Acquire);
        (self.sequence().load(Ordering::Relaxed) == before).then_some(value)
    }

    #[cold]
    fn read_slowly<R>(
        &self,
        me: Option<Owner>,
        env: &(impl Park + Liveness),
        deadline: Option<u64>,
        mut copy: impl FnMut() -> R,
    ) -> Result<R, LockError> {
        let (mut turn, mut nap) = (0, NAP_LEAST_NS);
        let mut watch = Watch::default();
        loop {
            if let Some(value) = self.copy_once(&mut copy) {
                return Ok(value);
            }
            if deadline != Some(0) && env.spin(self.sequence(), turn) {
                turn += 1;
                continue;
            }
            turn = 0;
            let now = env.now();
            let late = deadline.is_some_and(|deadline| now >= deadline);
            // Acquire: pairs with the Release of the swap in `begin`. If this is the odd number of a change, the mutex
            // word that is read below is that of the change's owner, or later.
            let seen = self.sequence().load(Ordering::Relaxed);
            fence(Ordering::Acquire);
            if is_odd(seen) {
                self.see_writer(seen, me, env, &mut watch, now, late)?;
            }
            if late {
                return Err(LockError::TimedOut);
            }
            if is_odd(seen) {
                let until = deadline.unwrap_or(u64::MAX).min(now.saturating_add(nap));
                env.wait(self.sequence(), seen, until);
                nap = (nap * 2).min(NAP_MOST_NS);
            }
        }
    }

    /// Checks that the change with this odd number has a living owner to end it, or has ended.
    fn see_writer(
        &self,
        odd: u64,
        me: Option<Owner>,
        env: &impl Liveness,
        watch: &mut Watch,
        now: u64,
        late: bool,
    ) -> Result<(), LockError> {
        let word = self.writer().look();
        let nobody = match word.owner() {
            None => true,
            Some(owner) if Some(owner) == me => return Err(LockError::Deadlock),
            Some(owner) if !late && me.is_some_and(|me| env.is_same_thread(me, owner)) => {
                return Err(LockError::Deadlock);
            }
            Some(owner) => {
                let plan = watch.plan(owner, env.death_notice(owner), now, late);
                !env.is_current(owner) || (plan.look && env.verdict(owner) == Verdict::Dead)
            }
        };
        // Acquire: pairs with the swap that freed the word; a writer that ended its change moved the sequence before.
        fence(Ordering::Acquire);
        if !nobody || self.sequence().load(Ordering::Relaxed) != odd {
            return Ok(());
        }
        Err(if word.is_unrecoverable() { LockError::Unrecoverable } else { LockError::WriterDied })
    }

    /// Takes the lock to write, waiting until `deadline`, or for ever; `Some(0)` does not wait. Readers are not
    /// kept out before [`begin`](Self::begin).
    ///
    /// # Errors
    /// [`LockError`].
    #[inline]
    pub fn write(
        &self,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
        deadline: Option<u64>,
    ) -> Result<(Taken, Writing), LockError> {
        let taken = self.writer().lock(me, env, deadline)?;
        // Relaxed: the mutex word is ours, so we see what its earlier owners did.
        if !is_odd(self.sequence().load(Ordering::Relaxed)) {
            return Ok((taken, Writing::default()));
        }
        self.inherit(me, env, taken)
    }

    /// Takes over a change that the last writer did not end: moves the sequence to a new odd number, so that the last
    /// writer, should it still run, cannot end the change.
    #[cold]
    fn inherit(
        &self,
        me: &Thread<'_>,
        env: &impl Park,
        taken: Taken,
    ) -> Result<(Taken, Writing), LockError> {
        let told = if taken.is_owner_died() { taken } else { Taken::OwnerDied(None) };
        let begun = self.begin(me, Writing::default());
        let marked =
            begun.and_then(|writing| self.writer().mark_inconsistent(me).map(|()| writing));
        match marked {
            Ok(writing) => Ok((told, writing)),
            Err(error) => {
                // Fails too: another thread has the word already.
                let _ = self.writer().unlock(me, env, Release::Inconsistent);
                Err(error)
            }
        }
    }

    /// Keeps readers out, if `writing` does not do so yet: to be called before each store to the data.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if the thread does not own the lock.
    #[inline]
    pub fn begin(&self, me: &Thread<'_>, writing: Writing) -> Result<Writing, LockError> {
        if writing.has_begun() {
            return Ok(writing);
        }
        loop {
            // Acquire: the look at the word comes after this load. Pairs with the Release of the swap below.
            let seen = self.sequence().load(Ordering::Acquire);
            if !self.writer().look().is_owned_by(me.owner()) {
                return Err(LockError::Fenced);
            }
            // The next odd number: a reader that saw the last one sees that this is another change.
            let odd = if is_odd(seen) { seen.wrapping_add(2) } else { seen | 1 };
            // Release: pairs with the load above; a writer that reads this number there sees that the word is now
            // ours.
            let moved =
                self.sequence().compare_exchange(seen, odd, Ordering::AcqRel, Ordering::Relaxed);
            if moved.is_ok() {
                // Release: pairs with the second fence in `copy_once`; a reader that sees a store to the data sees the
                // odd number.
                fence(Ordering::Release);
                Point::SeqOdd.reached();
                return Ok(Writing(odd));
            }
        }
    }

    /// Ends the change: readers may copy what was written.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if another writer has taken over.
    #[inline]
    pub fn finish(&self, writing: Writing) -> Result<(), LockError> {
        if !writing.has_begun() {
            return Ok(());
        }
        Point::SeqWritten.reached();
        let even = writing.0.wrapping_add(1);
        // Release: pairs with the first fence in `copy_once`; a reader that sees the even number sees the data.
        match self.sequence().compare_exchange(
            writing.0,
            even,
            Ordering::Release,
            Ordering::Relaxed,
        ) {
            Ok(_) => {
                Point::SeqEven.reached();
                Ok(())
            }
            Err(_) => Err(LockError::Fenced),
        }
    }

    /// Gives the lock back. With [`Release::Inconsistent`], or if the data have not been marked consistent
    /// after [`Taken::OwnerDied`], a change that was begun does not end, and readers stay out.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if the thread does not own it.
    #[inline]
    pub fn unlock_write(
        &self,
        me: &Thread<'_>,
        env: &impl Park,
        writing: Writing,
        how: Release,
    ) -> Result<(), LockError> {
        if self.is_whole(how)
            && let Err(error) = self.finish(writing)
        {
            // Another writer has taken over, or the sequence was overwritten against the protocol.
            let _ = self.writer().unlock(me, env, Release::Inconsistent);
            return Err(error);
        }
        self.writer().unlock(me, env, how)
    }

    /// Whether the owner leaves the data whole if it gives the lock back as `how`.
    #[inline]
    #[must_use]
    pub fn is_whole(&self, how: Release) -> bool {
        how == Release::Done && !self.writer().look().flags().contains(LockFlags::INCONSISTENT)
    }

    /// Makes a lock as good as new if it has no owner, or its owner is dead. The data are not changed.
    ///
    /// # Errors
    /// [`LockError::TimedOut`] if it has an owner that is not known to be dead; [`LockError::Fenced`].
    pub fn reset(&self, me: &Thread<'_>, env: &(impl Park + Liveness)) -> Result<(), LockError> {
        loop {
            let seen = self.writer().look();
            if seen.owner().is_some_and(|owner| env.verdict(owner) != Verdict::Dead) {
                return Err(LockError::TimedOut);
            }
            // Other threads may sleep on the word.
            if self.writer().swap(seen, me.owner().word().with_flags(LockFlags::WAITERS)) {
                break;
            }
        }
        if is_odd(self.sequence().load(Ordering::Relaxed)) {
            let writing = self.begin(me, Writing::default())?;
            self.finish(writing)?;
        }
        self.writer().unlock(me, env, Release::Done)
    }
}
