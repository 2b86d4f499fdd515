//! What every exclusive guard has that is held by the word of its lock.

use std::{marker::PhantomData, mem::ManuallyDrop, thread};

use commonhold_layout::Owner;
use commonhold_sync::{Mutex, Release};

use super::Site;
use crate::{LockError, LockResult, attachment::LockContext};

/// A lock that one thread can have alone, by a word that names it: with its parts found.
pub(crate) trait ByWord<'a>: Copy {
    /// Where it lies.
    fn site(self) -> Site<'a>;

    /// What its fast path reads.
    fn context(self) -> &'a LockContext<'a>;

    /// The word.
    fn writer(self) -> Mutex<'a>;
}

/// A lock whose word this thread owns. It is its thread's: neither `Send` nor `Sync`.
#[derive(Debug)]
pub(crate) struct Held<'a, L: ByWord<'a>> {
    lock: L,
    owner: Owner,
    /// Whether the thread was panicking when it took it, as a whole word: a guard is moved right after it
    /// was made, and the processor stalls where a word is read of which one byte was just written.
    panicking: usize,
    of: PhantomData<(&'a (), *const ())>,
}

impl<'a, L: ByWord<'a>> Held<'a, L> {
    #[inline(always)]
    pub(crate) fn new(lock: L, owner: Owner) -> Self {
        let panicking = usize::from(thread::panicking());
        Self { lock, owner, panicking, of: PhantomData }
    }

    #[inline]
    pub(crate) const fn lock(&self) -> L {
        self.lock
    }

    #[inline]
    pub(crate) fn site(&self) -> Site<'a> {
        self.lock.site()
    }

    #[inline]
    pub(crate) fn context(&self) -> &'a LockContext<'a> {
        self.lock.context()
    }

    /// How it is given back when it is dropped.
    #[inline]
    pub(crate) fn how(&self) -> Release {
        release_by(self.panicking)
    }

    /// Frees it, and says whether it still was this process's.
    #[inline]
    pub(crate) fn free(self, how: Release) -> LockResult<()> {
        ManuallyDrop::new(self).release(how)
    }

    /// As [`free`](Self::free), for a guard around this that will not be dropped.
    #[inline(always)]
    pub(crate) fn release(&self, how: Release) -> LockResult<()> {
        release(self.lock, self.owner, how)
    }

    pub(crate) fn set_consistent(&self) -> LockResult<()> {
        let site = self.site();
        site.ask_live()?;
        let me = site.region.attachment().me()?;
        self.lock.writer().mark_consistent(&me).map_err(|_| site.not_ours())
    }
}

/// Not a method, as what follows: a guard whose parts are handed over by value lies in registers, and one that
/// anything on the way asks for by reference lies in memory, also where it is dropped as usual. The
/// processor then waits for those stores before it frees the lock.
#[inline]
fn release<'a>(lock: impl ByWord<'a>, owner: Owner, how: Release) -> LockResult<()> {
    let freed = how == Release::Done
        && lock.context().is_live_here()
        && lock.writer().unlock_quickly(owner);
    if freed { Ok(()) } else { release_slowly(lock, how) }
}

#[cold]
fn release_slowly<'a>(lock: impl ByWord<'a>, how: Release) -> LockResult<()> {
    let site = lock.site();
    site.ask_live()?;
    let attachment = site.region.attachment();
    let me = attachment.me().map_err(LockError::from)?;
    lock.writer().unlock(&me, attachment.my_view(), how).map_err(|_| site.not_ours())
}

impl<'a, L: ByWord<'a>> Drop for Held<'a, L> {
    #[inline(always)]
    fn drop(&mut self) {
        // Fails only if this peer was declared dead; then others have the lock already.
        let _ = self.release(self.how());
    }
}

/// How a guard is given back when it is dropped, if its thread was already panicking when it was made, or not.
#[inline]
pub(crate) fn release_by(panicking: usize) -> Release {
    if thread::panicking() && panicking == 0 { Release::Inconsistent } else { Release::Done }
}
