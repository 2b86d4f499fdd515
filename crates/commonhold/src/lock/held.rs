//! What every exclusive guard has that is held by the word of its lock.

use std::{marker::PhantomData, mem::ManuallyDrop, thread};

use commonhold_host::ForkGuard;
use commonhold_layout::Owner;
use commonhold_sync::{Mutex, Release};

use super::Site;
use crate::{LockError, LockResult};

/// A mutex word that this thread owns. It is its thread's: neither `Send` nor `Sync`.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    site: Site<'a>,
    mutex: Mutex<'a>,
    owner: Owner,
    /// Whether the thread was panicking when it took it, as a whole word: a guard is moved right after it
    /// was made, and the processor stalls where a word is read of which one byte was just written.
    panicking: usize,
    fork: ForkGuard,
    not_send: PhantomData<*const ()>,
}

impl<'a> Held<'a> {
    #[inline(always)]
    pub(crate) fn new(site: Site<'a>, mutex: Mutex<'a>, owner: Owner, fork: ForkGuard) -> Self {
        let panicking = usize::from(thread::panicking());
        Self { site, mutex, owner, panicking, fork, not_send: PhantomData }
    }

    #[inline]
    pub(crate) const fn site(&self) -> Site<'a> {
        self.site
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
        release(self.site, self.mutex, self.owner, self.fork, how)
    }

    pub(crate) fn set_consistent(&self) -> LockResult<()> {
        self.site.ask_live()?;
        let me = self.site.region.attachment().me()?;
        self.mutex.mark_consistent(&me).map_err(|_| self.site.not_ours())
    }
}

/// Not a method, as what follows: a guard whose parts are handed over by value lies in registers, and one that
/// anything on the way asks for by reference lies in memory, also where it is dropped as usual. The
/// processor then waits for those stores before it frees the lock.
#[inline]
fn release(
    site: Site<'_>,
    mutex: Mutex<'_>,
    owner: Owner,
    fork: ForkGuard,
    how: Release,
) -> LockResult<()> {
    let freed = how == Release::Done
        && !fork.is_forked_child()
        && site.region.attachment().is_live()
        && mutex.unlock_quickly(owner);
    if freed { Ok(()) } else { release_slowly(site, mutex, how) }
}

#[cold]
fn release_slowly(site: Site<'_>, mutex: Mutex<'_>, how: Release) -> LockResult<()> {
    site.ask_live()?;
    let attachment = site.region.attachment();
    let me = attachment.me().map_err(LockError::from)?;
    mutex.unlock(&me, attachment.my_view(), how).map_err(|_| site.not_ours())
}

impl Drop for Held<'_> {
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
