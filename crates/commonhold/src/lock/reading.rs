//! What every guard of a reader has.

use std::{marker::PhantomData, mem::ManuallyDrop, time::Duration};

use commonhold_layout::Owner;
use commonhold_sync::{
    LockError as SyncError, QuickWrite, ReadHold, Release, RwLock, Shares, Taken, Thread,
};

use super::{Denied, denied::BoxedLockError, held::ByWord};
use crate::{LockError, LockResult, attachment::LockContext, region::MappedRegion};

/// How long a thread that reads already waits to read again, before a writer that waits for it counts as
/// one that will not give up.
const PATIENCE: Duration = Duration::from_millis(100);

/// A reader/writer lock, with its words found.
pub(crate) trait Readable<'a>: ByWord<'a> {
    /// Where its readers are known.
    type Shares: Shares;

    /// The lock as the core knows it.
    fn core(self) -> RwLock<'a, Self::Shares>;

    /// The region that it lies in.
    #[inline]
    fn region(self) -> &'a MappedRegion {
        self.site().region
    }

    /// Takes it alone if nobody has it, nobody ever read, and nobody has to be asked.
    #[inline(always)]
    fn write_quickly(self) -> Option<Owner> {
        let me = self.context().known_me()?;
        match self.core().write_quickly(&me) {
            QuickWrite::Taken => Some(me.owner()),
            QuickWrite::NotTaken => None,
            QuickWrite::TakenWithReaders => {
                give_back(self);
                None
            }
        }
    }

    /// Takes it to read if nobody writes, and nobody has to be asked.
    #[inline(always)]
    fn read_quickly(self) -> Option<ReadHold<'a>> {
        let me = self.context().known_me()?;
        self.core().read_quickly(&me).map(ReadHold::Word)
    }

    /// Whether the thread reads under it without a word of its own for that.
    fn is_counted(self, me: &Thread<'a>) -> bool {
        let _ = me;
        false
    }

    /// Takes it to read, waiting until `deadline`, or for ever. A thread that
    /// reads under it already is let in again, unless a writer waits. That waits for this thread, so if it does not
    /// give up soon, this is a deadlock.
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

    /// Who has it alone, or left it so.
    fn last_writer(self) -> Option<Owner> {
        self.site().owner(|| self.core().writer().look())
    }
}

/// Takes a lock to read whose last writer has left whole what it protects.
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

/// The same, without waiting: `None` if somebody living writes.
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

/// Does what only reads, and has `repair` make whole first what a dead writer left. A reader cannot do that itself.
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

/// A lock that this thread holds to read. It is its thread's: neither `Send` nor `Sync`.
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

    /// Frees it, and says whether it still was this process's.
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

/// The word was taken, and somebody reads. Fails only if this peer was declared dead; then others have the lock already.
#[cold]
fn give_back<'a>(lock: impl Readable<'a>) {
    let attachment = lock.region().attachment();
    if let Ok(me) = attachment.me() {
        let _ = lock.core().unlock_write(&me, attachment.my_view(), Release::Done);
    }
}

/// As [`free_slowly`], not a method.
#[cold]
fn wake_writer<'a>(lock: impl Readable<'a>) -> LockResult<()> {
    let attachment = lock.region().attachment();
    lock.core().wake_writer(&attachment.me()?, attachment.my_view());
    Ok(())
}

/// Not a method: what is asked for by reference has to lie in memory, on the usual way as well.
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
        // Fails only if this peer was declared dead; then its read locks count no longer.
        let _ = self.release();
    }
}
