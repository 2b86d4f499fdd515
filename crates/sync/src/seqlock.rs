//! The sequence lock: data that are read without writing anything, and written one change at a time.
//!
//! Writers exclude each other by a mutex word. A second word, the sequence, is odd while one of them
//! changes the data. A reader copies the data and keeps the copy if the sequence was even before and is
//! the same after. (H.-J. Boehm, "Can seqlocks get along with programming language memory models?", MSPC
//! 2012, has the fences.)
//!
//! # Invariants
//! 1. The sequence grows only, and only the owner of the mutex word moves it. A writer that has been
//!    declared dead and goes on cannot finish another's change: its compare-and-swap is from a number
//!    that its heir has left behind.
//! 2. A writer makes the sequence odd after it has read it and *then* seen that the word is still its own.
//!    The other way round, one that was declared dead in between could take its heir's number from it.
//! 3. If the sequence is odd when the word is taken, the new owner is told [`Taken::OwnerDied`], and the
//!    word says so too.
//! 4. A reader stores nothing, nowhere. Its loads are relaxed and its fences apart, which is what memory
//!    that may not be written allows for.
//!
//! # Deaths
//! - Of a writer, in the middle of a change: readers get [`LockError::WriterDied`] until a writer has made
//!   the data whole; the next writer has the lock and is told. Before or after a change: only the next
//!   writer is told; readers go on.
//! - Of a reader: nothing.
//!
//! # What it does not do
//! It does not keep readers from starving: one whose copy takes longer than the writers' pauses gets none.
//! What a writer stores after it was declared dead (ADR 0012) can tear a copy, as it can tear what a mutex
//! protects.

use commonhold_layout::{LockFlags, Offset, Owner};
use commonhold_window::{
    Point,
    atomic::{AtomicU64, Ordering, fence},
};

use crate::{Liveness, LockError, Mutex, Park, Release, Taken, Thread, Verdict, wait::Watch};

/// First pause of a reader that waits for the end of a change, and the longest. Nobody wakes it.
const NAP_LEAST_NS: u64 = 10_000;
const NAP_MOST_NS: u64 = 1_000_000;

/// A sequence lock on two words. The data are the caller's: the lock says when to copy them.
#[derive(Debug, Clone, Copy)]
pub struct SeqLock<'a> {
    words: &'a [AtomicU64; 2],
    at: Offset,
}

/// What a writer has begun: the odd number that it must come back from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Writing(u64);

impl Writing {
    /// Whether readers are kept out by this writer.
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

    /// What writers exclude each other by. Who takes it by itself gets no data.
    #[inline]
    #[must_use]
    pub const fn writer(&self) -> Mutex<'a> {
        Mutex::new(&self.words[0], self.at)
    }

    #[inline]
    const fn sequence(&self) -> &'a AtomicU64 {
        &self.words[1]
    }

    /// A copy of the data, made by `copy` out of relaxed loads; it is called again until nobody has written
    /// meanwhile. Waits for the end of a change until `deadline`, or for ever; `Some(0)` does not wait.
    /// `me` says who asks, if that is known.
    ///
    /// # Errors
    /// [`LockError::WriterDied`], [`LockError::Unrecoverable`]: nobody is there to end the change.
    /// [`LockError::TimedOut`]. [`LockError::Deadlock`]: the change is that of `me`.
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
        // Acquire: pairs with the Release of `finish`; the copy sees what was written up to this number.
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
            // Acquire: if this is the odd number of some change, its owner is seen below.
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

    /// Whether somebody is there to end the change with this number, or it has ended.
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
        // Acquire: whoever freed the word had moved the sequence before, if it did.
        fence(Ordering::Acquire);
        if !nobody || self.sequence().load(Ordering::Relaxed) != odd {
            return Ok(());
        }
        Err(if word.is_unrecoverable() { LockError::Unrecoverable } else { LockError::WriterDied })
    }

    /// Takes the lock to write, waiting until `deadline`, or for ever; `Some(0)` does not wait. Readers are
    /// kept out from [`begin`](Self::begin) on only.
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
        // Relaxed: having the word, we see what its owners before us did.
        if !is_odd(self.sequence().load(Ordering::Relaxed)) {
            return Ok((taken, Writing::default()));
        }
        self.inherit(me, env, taken)
    }

    /// The last writer did not end its change: the number becomes ours, before it can.
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
                // Fails as well: the word is another's already.
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
            // Acquire: the look at the word comes after it.
            let seen = self.sequence().load(Ordering::Acquire);
            if !self.writer().look().is_owned_by(me.owner()) {
                return Err(LockError::Fenced);
            }
            // The next odd number: readers that saw the last one see that it is another's.
            let odd = if is_odd(seen) { seen.wrapping_add(2) } else { seen | 1 };
            // Release: who reads this number in the load above sees whose word it is now.
            let moved =
                self.sequence().compare_exchange(seen, odd, Ordering::AcqRel, Ordering::Relaxed);
            if moved.is_ok() {
                // Release: no store to the data is seen by whoever does not see the odd number.
                fence(Ordering::Release);
                Point::SeqOdd.reached();
                return Ok(Writing(odd));
            }
        }
    }

    /// Lets readers have what was written.
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
        // Release: pairs with the fence in `copy_once`; who sees the even number sees the data.
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
    /// after [`Taken::OwnerDied`], readers stay out if they were.
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
            // It is another's, or somebody has written to the sequence who had no right to.
            let _ = self.writer().unlock(me, env, Release::Inconsistent);
            return Err(error);
        }
        self.writer().unlock(me, env, how)
    }

    /// Whether the owner, that now gives the lock back so, leaves the data whole.
    #[inline]
    #[must_use]
    pub fn is_whole(&self, how: Release) -> bool {
        how == Release::Done && !self.writer().look().flags().contains(LockFlags::INCONSISTENT)
    }

    /// Makes a lock that nobody owns as good as new; the data are as they are.
    ///
    /// # Errors
    /// [`LockError::TimedOut`] if somebody owns it who is not known to be dead; [`LockError::Fenced`].
    pub fn reset(&self, me: &Thread<'_>, env: &(impl Park + Liveness)) -> Result<(), LockError> {
        loop {
            let seen = self.writer().look();
            if seen.owner().is_some_and(|owner| env.verdict(owner) != Verdict::Dead) {
                return Err(LockError::TimedOut);
            }
            // Others may sleep on what the word was.
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
