//! The writer's bias: a thread that has written alone for a while takes and frees the lock by words of its own.
//!
//! The writer's word is biased as that of a [`Mutex`](crate::Mutex) (`bias.rs`), as long as no peer has ever read. A
//! reader ends a bias as a contender does: it revokes it, and looks whether its thread is inside. After that no thread
//! biases the word again, since the reader's bit is set in the mask.
//!
//! # Invariants
//! 1. A reader comes in only after it has announced itself and then seen that the word is not biased.
//! 2. A word becomes biased only when the writer that owns it frees it. That writer has looked for readers, and readers
//!    that came later found its word. So no reader is inside when the word becomes biased; and by invariant 1, none is
//!    as long as it is biased. That is why a thread that enters by its bias does not look for readers.
//! 3. A thread that tries its bias, and finds it revoked, says for a moment that it is inside. A reader may have seen
//!    that, and sleep. The thread itself takes the word next, by [`RwLock::write_biased_slowly`], and wakes the reader
//!    when it frees the word. (That fails at once for a thread which reads itself. But then its bias had ended before it
//!    read, so that no reader asks whether the thread is inside by it.)
//!
//! # Deaths
//! As for a mutex. A reader that dies after it has revoked a bias leaves nothing: the next thread goes on with the
//! word as it is.

use commonhold_layout::{LockWord, Owner};
use commonhold_window::atomic::Ordering;

use super::{QuickWrite, RwLock, Shares};
use crate::{Liveness, LockError, MutexHold, Park, Release, Taken, Thread};

impl<S: Shares> RwLock<'_, S> {
    /// Takes the lock to write if no peer has ever read, and it is free or biased to the thread: the common case.
    /// `entry` is [`Mutex::entry`](crate::Mutex::entry) of the [writer's side](Self::writer).
    #[inline]
    pub fn write_quickly<'t>(&self, me: &Thread<'t>, entry: usize) -> QuickWrite<MutexHold<'t>> {
        let writer = self.writer();
        self.write_unread(|| writer.lock_by_entry(me, entry), MutexHold::is_biased)
    }

    /// Takes the lock to write after [`write_quickly`](Self::write_quickly) could not. Then the word names the thread
    /// as its owner. Waits until `deadline`, or for ever; `Some(0)` does not wait.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    #[cold]
    pub fn write_biased_slowly(
        &self,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
        deadline: Option<u64>,
    ) -> Result<Taken, LockError> {
        self.writer().forget_bias(me);
        self.write_slowly(me, env, deadline)
    }

    /// Gives the write lock back if nobody waits for it. `false`:
    /// [`unlock_write_slowly`](Self::unlock_write_slowly) must follow, before the thread takes any lock.
    #[inline]
    pub fn unlock_write_quickly(&self, hold: MutexHold<'_>) -> bool {
        if !hold.is_biased() && self.was_read() {
            return self.writer().swap(hold.word(), LockWord::FREE);
        }
        self.writer().unlock_biased(hold)
    }

    /// Gives the write lock back after [`unlock_write_quickly`](Self::unlock_write_quickly) returned `false`, or
    /// without a call of it.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if the thread does not hold it; nothing has changed then.
    #[cold]
    pub fn unlock_write_slowly(
        &self,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
        hold: MutexHold<'_>,
        how: Release,
    ) -> Result<(), LockError> {
        if !hold.is_biased() && self.was_read() {
            return self.writer().unlock_slow(me, env, how);
        }
        self.writer().unlock_biased_slowly(me, env, hold, how)
    }

    /// Whether a peer has ever read: then a bias would be ended again soon.
    #[inline]
    fn was_read(&self) -> bool {
        // Relaxed: no more than a hint. A reader that comes now revokes a bias that is made now.
        self.mask().load(Ordering::Relaxed) != 0
    }

    /// What the writer's word says to a reader, and the writer that keeps it out. If the word is biased and its thread
    /// is outside, this ends the bias first.
    pub(super) fn look_for_writer(
        &self,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
    ) -> (LockWord, Option<Owner>) {
        let writer = self.writer();
        loop {
            let seen = writer.look();
            let Some(bias) = seen.bias() else {
                return (seen, seen.owner().filter(|_| seen.is_exclusive()));
            };
            if writer.revoke(seen) {
                continue;
            }
            match writer.owner(seen, env) {
                Some(owner) => return (seen, Some(owner)),
                None => writer.end_bias(me, env, bias),
            }
        }
    }
}
