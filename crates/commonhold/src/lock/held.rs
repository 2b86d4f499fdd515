//! What every exclusive guard has.

use std::{marker::PhantomData, mem::ManuallyDrop, thread};

use commonhold_host::ForkGuard;
use commonhold_layout::{LockFlags, Owner};
use commonhold_sync::{LockError as SyncError, Mutex, Release};

use crate::{Mapping, RegionError};

/// A mutex word that this thread owns. It is its thread's: neither `Send` nor `Sync`.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    mapping: &'a Mapping,
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
    pub(crate) fn new(
        mapping: &'a Mapping,
        mutex: Mutex<'a>,
        owner: Owner,
        fork: ForkGuard,
    ) -> Self {
        let panicking = usize::from(thread::panicking());
        Self { mapping, mutex, owner, panicking, fork, not_send: PhantomData }
    }

    #[inline]
    pub(crate) const fn mapping(&self) -> &'a Mapping {
        self.mapping
    }

    /// How it is given back when it is dropped.
    #[inline]
    pub(crate) fn how(&self) -> Release {
        release_by(self.panicking)
    }

    /// Frees it, and says whether it still was this process's.
    #[inline]
    pub(crate) fn free(self, how: Release) -> Result<(), RegionError> {
        ManuallyDrop::new(self).release(how)
    }

    /// As [`free`](Self::free), for a guard around this that will not be dropped.
    #[inline(always)]
    pub(crate) fn release(&self, how: Release) -> Result<(), RegionError> {
        release(self.mapping, self.mutex, self.owner, self.fork, how)
    }

    #[inline(always)]
    pub(crate) fn mark_consistent(&self) -> Result<(), RegionError> {
        mark_consistent(self.mapping, self.mutex)
    }

    pub(crate) fn is_inconsistent(&self) -> bool {
        !self.mapping.attachment().is_forked()
            && self.mutex.look().flags().contains(LockFlags::INCONSISTENT)
    }
}

/// Not a method, as what follows: a guard whose parts are handed over by value lies in registers, and one that
/// anything on the way asks for by reference lies in memory, also where it is dropped as usual. The
/// processor then waits for those stores before it frees the lock.
#[inline]
fn release(
    mapping: &Mapping,
    mutex: Mutex<'_>,
    owner: Owner,
    fork: ForkGuard,
    how: Release,
) -> Result<(), RegionError> {
    let freed = how == Release::Done && !fork.is_forked_child() && mutex.unlock_quickly(owner);
    if freed { Ok(()) } else { release_slowly(mapping, mutex, how) }
}

#[cold]
fn mark_consistent(mapping: &Mapping, mutex: Mutex<'_>) -> Result<(), RegionError> {
    let me = mapping.attachment().me()?;
    mutex.mark_consistent(&me).map_err(not_ours)
}

#[cold]
fn release_slowly(mapping: &Mapping, mutex: Mutex<'_>, how: Release) -> Result<(), RegionError> {
    let attachment = mapping.attachment();
    let me = attachment.me()?;
    mutex.unlock(&me, attachment.my_view(), how).map_err(not_ours)
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
pub(super) fn release_by(panicking: usize) -> Release {
    if thread::panicking() && panicking == 0 { Release::Inconsistent } else { Release::Done }
}

/// The only way in which freeing what one holds can fail.
pub(super) const fn not_ours(_: SyncError) -> RegionError {
    RegionError::Fenced
}
