//! A mutex on a bare word in the bytes of a region.

use std::{marker::PhantomData, mem::ManuallyDrop, thread, time::Duration};

use commonhold_host::ForkGuard;
use commonhold_layout::{LockFlags, LockWord};
use commonhold_sync as sync;
use commonhold_sync::{Grip, Release, Taken};

use super::{
    Refusal, handed_over,
    held::{not_ours, release_by},
    refusal,
};
use crate::{LockError, Mapping, RegionError, attachment::Nearest};

/// A mutex on a bare word in the bytes of a region, which knows nothing of what it protects. What it
/// has to keep is up to its users; a [`Mutex`](crate::Mutex) has its data with it.
#[derive(Debug, Clone, Copy)]
pub struct RawMutex<'a> {
    mapping: &'a Mapping,
    mutex: sync::Mutex<'a>,
    /// Of a thread slot, for a bias of the mutex.
    entry: usize,
    near: Nearest<'a>,
}

impl<'a> RawMutex<'a> {
    pub(crate) fn of(mapping: &'a Mapping, mutex: sync::Mutex<'a>) -> Result<Self, RegionError> {
        let near = mapping.attachment().nearest()?;
        Ok(Self { mapping, mutex, entry: mutex.entry(), near })
    }

    /// Takes the mutex, waiting as long as it takes.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`] hands over the guard of a mutex whose owner died.
    #[inline(always)]
    pub fn lock(&self) -> Result<RawMutexGuard<'a>, LockError<RawMutexGuard<'a>>> {
        match self.near.known_me().and_then(|me| self.mutex.lock_by_entry(&me, self.entry)) {
            Some(grip) => Ok(self.guard(grip)),
            None => handed_over(self.lock_until(None), |word| self.held_by(word)),
        }
    }

    /// Takes the mutex if that needs no waiting.
    ///
    /// # Errors
    /// [`LockError::TimedOut`] if somebody living holds it.
    pub fn try_lock(&self) -> Result<RawMutexGuard<'a>, LockError<RawMutexGuard<'a>>> {
        handed_over(self.lock_until(Some(0)), |word| self.held_by(word))
    }

    /// Takes the mutex, waiting so long at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`].
    pub fn lock_for(
        &self,
        timeout: Duration,
    ) -> Result<RawMutexGuard<'a>, LockError<RawMutexGuard<'a>>> {
        let deadline = self.mapping.attachment().deadline(timeout);
        handed_over(self.lock_until(Some(deadline)), |word| self.held_by(word))
    }

    #[cold]
    fn lock_until(self, deadline: Option<u64>) -> Result<(LockWord, Taken), Refusal> {
        let attachment = self.mapping.attachment();
        let me = attachment.me()?;
        // The thread may have used another space since, and not have been known.
        if let Some(grip) = self.mutex.lock_biased(&me) {
            return Ok((grip.word(), Taken::Clean));
        }
        let view = attachment.my_view();
        let taken = self.mutex.lock_biased_slowly(&me, view, deadline).map_err(refusal)?;
        Ok((me.owner().word(), taken))
    }

    #[inline(always)]
    fn guard(&self, grip: Grip<'a>) -> RawMutexGuard<'a> {
        RawMutexGuard::new(self.mapping, self.mutex, grip, self.near.fork())
    }

    /// The guard of what the calling thread holds with this word.
    fn held_by(&self, word: LockWord) -> RawMutexGuard<'a> {
        self.guard(self.mutex.grip(&self.near.just_known(), word))
    }

    /// Makes the mutex as good as new, after the caller has repaired what it protects.
    ///
    /// # Errors
    /// [`RegionError::TimedOut`] if somebody holds it.
    pub fn reset(&self) -> Result<(), RegionError> {
        self.mutex
            .reset(self.mapping.attachment().view()?)
            .map_err(|_| RegionError::TimedOut { name: self.mapping.name().to_owned() })
    }
}

/// A mutex, held. It is its thread's: neither `Send` nor `Sync`.
#[derive(Debug)]
#[must_use = "the mutex is freed when its guard is dropped"]
pub struct RawMutexGuard<'a> {
    mapping: &'a Mapping,
    mutex: sync::Mutex<'a>,
    grip: Grip<'a>,
    fork: ForkGuard,
    /// As in [`Held`](super::held::Held).
    panicking: usize,
    not_send: PhantomData<*const ()>,
}

impl<'a> RawMutexGuard<'a> {
    #[inline(always)]
    fn new(mapping: &'a Mapping, mutex: sync::Mutex<'a>, grip: Grip<'a>, fork: ForkGuard) -> Self {
        let panicking = usize::from(thread::panicking());
        Self { mapping, mutex, grip, fork, panicking, not_send: PhantomData }
    }

    #[inline]
    pub(crate) const fn mapping(&self) -> &'a Mapping {
        self.mapping
    }

    /// Lends the mutex to `wait`, by its word alone; that frees it, and has taken it again unless it fails.
    pub(crate) fn lend<R>(
        self,
        me: &sync::Thread<'_>,
        wait: impl FnOnce(&sync::Mutex<'a>) -> Result<R, sync::LockError>,
    ) -> Result<(Self, R), sync::LockError> {
        let lent = ManuallyDrop::new(self);
        let grip = lent.mutex.own(me, lent.grip)?;
        let result = wait(&lent.mutex)?;
        Ok((Self::new(lent.mapping, lent.mutex, grip, lent.fork), result))
    }

    /// As [`LockGuard::mark_consistent`](crate::LockGuard::mark_consistent).
    ///
    /// # Errors
    /// As there.
    #[inline(always)]
    pub fn mark_consistent(&self) -> Result<(), RegionError> {
        mark_consistent(self.mapping, self.mutex, self.grip.word())
    }

    /// As [`LockGuard::is_inconsistent`](crate::LockGuard::is_inconsistent).
    #[must_use]
    pub fn is_inconsistent(&self) -> bool {
        !self.mapping.attachment().is_forked()
            && self.mutex.look().flags().contains(LockFlags::INCONSISTENT)
    }

    /// As [`LockGuard::leave`](crate::LockGuard::leave).
    ///
    /// # Errors
    /// As there.
    pub fn leave(self) -> Result<(), RegionError> {
        ManuallyDrop::new(self).release(Release::Inconsistent)
    }

    /// As [`LockGuard::unlock`](crate::LockGuard::unlock).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn unlock(self) -> Result<(), RegionError> {
        ManuallyDrop::new(self).release(Release::Done)
    }

    #[inline(always)]
    fn release(&self, how: Release) -> Result<(), RegionError> {
        if release_quickly(self.mutex, self.grip, self.fork, how) {
            return Ok(());
        }
        release_slowly(self.mapping, self.mutex, self.grip.word(), how)
    }
}

impl Drop for RawMutexGuard<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        let how = release_by(self.panicking);
        if !release_quickly(self.mutex, self.grip, self.fork, how) {
            drop_slowly(self.mapping, self.mutex, self.grip.word(), how);
        }
    }
}

#[inline(always)]
fn release_quickly(mutex: sync::Mutex<'_>, grip: Grip<'_>, fork: ForkGuard, how: Release) -> bool {
    how == Release::Done && !fork.is_forked_child() && mutex.unlock_biased(grip)
}

/// What follows takes its parts by value, and as few as it can: see [`Held`](super::held::Held).
#[cold]
fn mark_consistent(
    mapping: &Mapping,
    mutex: sync::Mutex<'_>,
    held_by: LockWord,
) -> Result<(), RegionError> {
    let me = mapping.attachment().me()?;
    mutex.mark_consistent_biased(&me, mutex.grip(&me, held_by)).map_err(not_ours)
}

#[cold]
fn release_slowly(
    mapping: &Mapping,
    mutex: sync::Mutex<'_>,
    held_by: LockWord,
    how: Release,
) -> Result<(), RegionError> {
    let attachment = mapping.attachment();
    let me = attachment.me()?;
    let grip = mutex.grip(&me, held_by);
    mutex.unlock_biased_slowly(&me, attachment.my_view(), grip, how).map_err(not_ours)
}

#[cold]
fn drop_slowly(mapping: &Mapping, mutex: sync::Mutex<'_>, held_by: LockWord, how: Release) {
    // Fails only if this peer was declared dead; then others have the lock already.
    let _ = release_slowly(mapping, mutex, held_by, how);
}
