//! The core of every reader's guard.

use std::{marker::PhantomData, mem::ManuallyDrop, time::Duration};

use commonhold_layout::{LockWord, Owner};
use commonhold_sync::{
    LockError as SyncError, MutexHold, QuickWrite, ReadHold, Release, RwLock, Shares, Taken, Thread,
};

use super::{Denied, denied::BoxedLockError, held::Holdable};
use crate::{LockError, LockResult, attachment::LockContext, region::MappedRegion};

/// How long a thread that reads already waits to read again. A writer that still waits then, waits for this thread:
/// that is a deadlock.
const PATIENCE: Duration = Duration::from_millis(100);

/// A reader/writer lock, with the addresses of its words.
pub(crate) trait Readable<'a>: Holdable<'a, HeldHow = MutexHold<'a>> {
    /// Where its readers are counted.
    type Shares: Shares;

    /// The lock of `commonhold_sync`.
    fn core(self) -> RwLock<'a, Self::Shares>;

    /// The entry of a thread slot that serves a bias of its writer.
    fn entry(self) -> usize;

    /// The region that it lies in.
    #[inline]
    fn region(self) -> &'a MappedRegion {
        self.site().region
    }

    /// Takes it alone if no other thread holds it and no thread has ever read under it: then there is no reader to
    /// look for.
    #[inline(always)]
    fn write_quickly(self) -> Option<MutexHold<'a>> {
        self.write_quickly_as(&self.context().known_me()?)
    }

    #[inline(always)]
    fn write_quickly_as(self, me: &Thread<'a>) -> Option<MutexHold<'a>> {
        match self.core().write_quickly(me, self.entry()) {
            QuickWrite::Taken(hold) => Some(hold),
            QuickWrite::NotTaken => None,
            QuickWrite::TakenWithReaders => {
                give_back(self);
                None
            }
        }
    }

    /// Takes it alone, and waits until `deadline`, or for ever. Returns the word that the thread holds it by.
    #[cold]
    fn write_slowly(
        self,
        me: &Thread<'a>,
        deadline: Option<u64>,
    ) -> Result<(LockWord, Taken), SyncError> {
        // The fast path may have failed only because the thread has used another space since.
        if let Some(hold) = self.write_quickly_as(me) {
            return Ok((hold.word(), Taken::Clean));
        }
        let view = self.region().attachment().my_view();
        let taken = self.core().write_biased_slowly(me, view, deadline)?;
        Ok((me.owner().word(), taken))
    }

    /// Takes it to read if no thread writes, and this peer has read under it before.
    #[inline(always)]
    fn read_quickly(self) -> Option<ReadHold<'a>> {
        let me = self.context().known_me()?;
        self.core().read_quickly(&me).map(ReadHold::Word)
    }

    /// Whether the thread reads under it without a `reading` word of its own: see `counted.rs`.
    fn is_counted(self, me: &Thread<'a>) -> bool {
        let _ = me;
        false
    }

    /// Takes it to read, and waits until `deadline`, or for ever. A thread that reads under it already may read
    /// again, unless a writer waits. That writer waits for this thread, so if it does not give up soon, this is a
    /// deadlock.
    #[cold]
    fn read_slowly(self, deadline: Option<u64>) -> Result<(ReadHold<'a>, Taken), Denied> {
        let attachment = self.region().attachment();
        let me = attachment.me()?;
        let reads = me.reads(self.core().key()) || self.is_counted(&me);
        let again = deadline.is_none() && reads;
        let until = if again { Some(attachment.deadline(PATIENCE)) } else { deadline };
        let (taken, hold) = match self.core().read(&me, attachment.my_view(), until) {
            Err(SyncError::TimedOut) if again => return Err(SyncError::Deadlock.into()),
            result => result?,
        };
        if matches!(hold, ReadHold::Share) {
            attachment.counted.enter(self.region().handle(), me.owner());
        }
        Ok((hold, taken))
    }

    /// The writer that holds it, or left it inconsistent.
    fn last_writer(self) -> Option<Owner> {
        self.site().owner(|| self.core().writer().look())
    }
}

/// Takes a lock to read, if it is consistent.
#[cold]
pub(crate) fn read_whole<'a, L: Readable<'a>>(
    lock: L,
    deadline: Option<u64>,
) -> Result<ReadHold<'a>, BoxedLockError> {
    match lock.read_slowly(deadline) {
        Ok((hold, Taken::Clean)) => Ok(hold),
        Ok((hold, Taken::OwnerDied(who))) => {
            drop(Reading::new(lock, hold));
            Err(Box::new(LockError::OwnerDied(lock.site().place(who))))
        }
        Err(denied) => Err(Box::new(lock.site().error(denied, lock.last_writer()))),
    }
}

/// The same without waiting: `None` if a living thread writes.
#[cold]
pub(crate) fn read_at_once<'a, L: Readable<'a>>(lock: L) -> LockResult<Option<ReadHold<'a>>> {
    match lock.read_slowly(Some(0)) {
        Err(Denied::Sync(SyncError::TimedOut)) => Ok(None),
        Ok((hold, Taken::Clean)) => Ok(Some(hold)),
        Ok((hold, Taken::OwnerDied(who))) => {
            drop(Reading::new(lock, hold));
            Err(LockError::OwnerDied(lock.site().place(who)))
        }
        Err(denied) => Err(lock.site().error(denied, lock.last_writer())),
    }
}

/// Calls `attempt`, which reads, and calls `repair` as long as a dead writer has left the data inconsistent. A
/// reader cannot repair them under its own lock.
pub(crate) fn after_repair<R>(
    mut attempt: impl FnMut() -> LockResult<R>,
    mut repair: impl FnMut() -> LockResult<()>,
) -> LockResult<R> {
    loop {
        match attempt() {
            // Between the repair and the next attempt another writer may die.
            Err(LockError::OwnerDied(_)) => repair()?,
            result => return result,
        }
    }
}

/// A lock that this thread holds to read. It stays in its thread: neither `Send` nor `Sync`.
#[derive(Debug)]
pub(crate) struct Reading<'a, L: Readable<'a>> {
    lock: L,
    hold: ReadHold<'a>,
    of: PhantomData<(&'a (), *const ())>,
}

impl<'a, L: Readable<'a>> Reading<'a, L> {
    #[inline(always)]
    pub(crate) fn new(lock: L, hold: ReadHold<'a>) -> Self {
        Self { lock, hold, of: PhantomData }
    }

    #[inline]
    pub(crate) fn context(&self) -> &'a LockContext<'a> {
        self.lock.context()
    }

    /// Frees the lock, and reports whether this process still held it.
    pub(crate) fn free(self) -> LockResult<()> {
        ManuallyDrop::new(self).release()
    }

    #[inline(always)]
    fn release(&self) -> LockResult<()> {
        match self.hold {
            ReadHold::Word(word) if self.lock.context().is_live_here() => {
                if self.lock.core().unlock_read_quickly(word) {
                    Ok(())
                } else {
                    wake_writer(self.lock)
                }
            }
            hold => free_slowly(self.lock, hold),
        }
    }
}

/// Frees a word that was taken while other threads read. That fails only if this peer was declared dead; then
/// others have taken over the lock.
#[cold]
fn give_back<'a>(lock: impl Readable<'a>) {
    let attachment = lock.region().attachment();
    if let Ok(me) = attachment.me() {
        let _ = lock.core().unlock_write(&me, attachment.my_view(), Release::Done);
    }
}

/// A function and not a method, for the reason at [`free_slowly`].
#[cold]
fn wake_writer<'a>(lock: impl Readable<'a>) -> LockResult<()> {
    let attachment = lock.region().attachment();
    lock.core().wake_writer(&attachment.me()?, attachment.my_view());
    Ok(())
}

/// A function and not a method: a guard taken by reference has to lie in memory, also on the fast path.
#[cold]
fn free_slowly<'a>(lock: impl Readable<'a>, hold: ReadHold<'_>) -> LockResult<()> {
    let attachment = lock.region().attachment();
    let me = attachment.me()?;
    if matches!(hold, ReadHold::Share) {
        attachment.counted.leave(lock.region().handle(), me.owner());
    }
    lock.core().unlock_read(&me, attachment.my_view(), hold).map_err(|_| lock.site().not_ours())
}

impl<'a, L: Readable<'a>> Drop for Reading<'a, L> {
    #[inline(always)]
    fn drop(&mut self) {
        // Fails only if this peer was declared dead; then its read locks do not count any more.
        let _ = self.release();
    }
}
