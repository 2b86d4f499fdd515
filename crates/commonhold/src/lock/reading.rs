//! What every guard of a reader has.

use std::{marker::PhantomData, mem::ManuallyDrop, time::Duration};

use commonhold_sync::{Hold, LockError, RwLock, Shares, Taken, Thread};

use super::counted;
use crate::{Mapping, RegionError, attachment::Near};

/// How long a thread that reads already waits to read again, before a writer that waits for it counts as
/// one that will not give up.
const PATIENCE: Duration = Duration::from_millis(100);

/// A reader/writer lock, with its words found.
pub(crate) trait Readable<'a>: Copy {
    /// Where its readers are known.
    type Shares: Shares;

    /// The mapping that keeps it where it is.
    fn mapping(&self) -> &'a Mapping;

    /// What the usual way looks at.
    fn near(&self) -> Near<'a>;

    /// The lock as the core knows it.
    fn core(&self) -> RwLock<'a, Self::Shares>;

    /// Takes it to read if nobody writes, and nobody has to be asked.
    #[inline(always)]
    fn read_quickly(self) -> Option<Hold<'a>> {
        let me = self.near().known_me()?;
        self.core().read_quickly(&me).map(Hold::Word)
    }

    /// Whether the thread reads under it without a word of its own for that.
    fn is_counted(&self, me: &Thread<'a>) -> bool {
        let _ = me;
        false
    }

    /// Takes it to read, waiting until `deadline`, or for ever; the core's error as it is, but for one: a thread that
    /// reads under it already is let in again, unless a writer waits. That waits for this thread, so if it does not
    /// give up soon, this is a deadlock.
    #[cold]
    fn read_slowly(
        self,
        me: &Thread<'a>,
        deadline: Option<u64>,
    ) -> Result<(Hold<'a>, Taken), LockError> {
        let reads = me.reads(self.core().key()) || self.is_counted(me);
        let again = deadline.is_none() && reads;
        let patience = || self.mapping().attachment().deadline(PATIENCE);
        let until = if again { Some(patience()) } else { deadline };
        let (taken, hold) = match self.core().read(me, self.near().view(), until) {
            Err(LockError::TimedOut) if again => return Err(LockError::Deadlock),
            result => result?,
        };
        if matches!(hold, Hold::Share) {
            counted::enter(self.mapping(), me.owner());
        }
        Ok((hold, taken))
    }
}

/// A lock that this thread holds to read. It is its thread's: neither `Send` nor `Sync`.
#[derive(Debug)]
pub(crate) struct Reading<'a, L: Readable<'a>> {
    lock: L,
    hold: Hold<'a>,
    not_send: PhantomData<*const ()>,
}

impl<'a, L: Readable<'a>> Reading<'a, L> {
    #[inline(always)]
    pub(crate) fn new(lock: L, hold: Hold<'a>) -> Self {
        Self { lock, hold, not_send: PhantomData }
    }

    #[inline]
    pub(crate) fn mapping(&self) -> &'a Mapping {
        self.lock.mapping()
    }

    /// Frees it, and says whether it still was this process's.
    pub(crate) fn free(self) -> Result<(), RegionError> {
        ManuallyDrop::new(self).release()
    }

    #[inline(always)]
    fn release(&self) -> Result<(), RegionError> {
        match self.hold {
            Hold::Word(word) if self.lock.near().is_live_here() => {
                if self.lock.core().unread_quickly(word) { Ok(()) } else { wake_writer(self.lock) }
            }
            hold => free_slowly(self.lock, hold),
        }
    }
}

/// As [`free_slowly`], not a method.
#[cold]
fn wake_writer<'a>(lock: impl Readable<'a>) -> Result<(), RegionError> {
    let attachment = lock.mapping().attachment();
    lock.core().wake_writer(&attachment.me()?, attachment.my_view());
    Ok(())
}

/// Not a method: what is asked for by reference has to lie in memory, on the usual way as well.
#[cold]
fn free_slowly<'a>(lock: impl Readable<'a>, hold: Hold<'_>) -> Result<(), RegionError> {
    let attachment = lock.mapping().attachment();
    let me = attachment.me()?;
    if matches!(hold, Hold::Share) {
        counted::leave(lock.mapping(), me.owner());
    }
    lock.core().unread(&me, attachment.my_view(), hold).map_err(|_| RegionError::Fenced)
}

impl<'a, L: Readable<'a>> Drop for Reading<'a, L> {
    #[inline(always)]
    fn drop(&mut self) {
        // Fails only if this peer was declared dead; then its read locks count no longer.
        let _ = self.release();
    }
}
