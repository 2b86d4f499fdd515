//! What every upgradable guard has, and those of a region's lock.

use std::{marker::PhantomData, mem::ManuallyDrop, thread, time::Duration};

use commonhold_layout::LockFlags;
use commonhold_sync::{Release, Taken};

use super::{Refusal, RegionLock, counted, handed_over, reading::Readable, refusal};
use crate::{LockError, Mapping, RegionError};

/// A lock that this thread holds upgradable. It is its thread's: neither `Send` nor `Sync`.
#[derive(Debug)]
pub(crate) struct Upgradable<'a, L: Readable<'a>> {
    lock: L,
    of: PhantomData<(&'a Mapping, *const ())>,
}

impl<'a, L: Readable<'a>> Upgradable<'a, L> {
    /// Takes it, waiting until `deadline`, or for ever.
    #[inline]
    pub(crate) fn take(lock: L, deadline: Option<u64>) -> Result<(Self, Taken), Refusal> {
        let attachment = lock.mapping().attachment();
        let me = attachment.me()?;
        let view = attachment.my_view();
        let taken = lock.core().upgradable_read(&me, view, deadline).map_err(refusal)?;
        Ok((Self { lock, of: PhantomData }, taken))
    }

    #[inline]
    pub(crate) fn mapping(&self) -> &'a Mapping {
        self.lock.mapping()
    }

    /// Waits until `deadline`, or for ever, until readers have left; `self` is as before if that fails.
    pub(crate) fn upgrade(
        &mut self,
        deadline: Option<u64>,
    ) -> Result<(Upgraded<'_, 'a, L>, Taken), Refusal> {
        let attachment = self.mapping().attachment();
        let me = attachment.me()?;
        let view = attachment.my_view();
        let taken = self.lock.core().upgrade(&me, view, deadline).map_err(refusal)?;
        Ok((Upgraded { lock: self.lock, panicking: thread::panicking(), of: PhantomData }, taken))
    }

    /// Frees it, and says whether it still was this process's.
    pub(crate) fn free(self) -> Result<(), RegionError> {
        ManuallyDrop::new(self).release()
    }

    #[inline]
    fn release(&self) -> Result<(), RegionError> {
        let attachment = self.mapping().attachment();
        let me = attachment.me()?;
        let view = attachment.my_view();
        self.lock.core().unread_upgradable(&me, view).map_err(|_| RegionError::Fenced)
    }
}

impl<'a, L: Readable<'a>> Drop for Upgradable<'a, L> {
    #[inline]
    fn drop(&mut self) {
        // Fails only if this peer was declared dead; then others have the lock already.
        let _ = self.release();
    }
}

/// An upgradable lock, upgraded: this thread writes, until it is dropped.
#[derive(Debug)]
pub(crate) struct Upgraded<'g, 'a, L: Readable<'a>> {
    lock: L,
    /// Whether the thread was panicking when it upgraded.
    panicking: bool,
    of: PhantomData<(&'g mut &'a Mapping, *const ())>,
}

impl<'a, L: Readable<'a>> Upgraded<'_, 'a, L> {
    #[inline]
    pub(crate) fn mapping(&self) -> &'a Mapping {
        self.lock.mapping()
    }

    pub(crate) fn mark_consistent(&self) -> Result<(), RegionError> {
        let me = self.mapping().attachment().me()?;
        self.lock.core().writer().mark_consistent(&me).map_err(|_| RegionError::Fenced)
    }

    pub(crate) fn is_inconsistent(&self) -> bool {
        !self.mapping().attachment().is_forked()
            && self.lock.core().writer().look().flags().contains(LockFlags::INCONSISTENT)
    }

    /// Lets readers in, and says whether the lock still was this process's.
    pub(crate) fn downgrade(self) -> Result<(), RegionError> {
        ManuallyDrop::new(self).release(Release::Done)
    }

    fn release(&self, how: Release) -> Result<(), RegionError> {
        let attachment = self.mapping().attachment();
        let me = attachment.me()?;
        let view = attachment.my_view();
        self.lock.core().downgrade(&me, view, how).map_err(|_| RegionError::Fenced)
    }
}

impl<'a, L: Readable<'a>> Drop for Upgraded<'_, 'a, L> {
    fn drop(&mut self) {
        let half_done = thread::panicking() && !self.panicking;
        let how = if half_done { Release::Inconsistent } else { Release::Done };
        // Fails only if this peer was declared dead; then others have the lock already.
        let _ = self.release(how);
    }
}

impl<'a> RegionLock<'a> {
    /// Takes the lock together with readers, and as the only one that may become their writer.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`] hands over a guard under which the bytes may be half changed;
    /// [`LockError::Deadlock`] if this thread has the lock in any way; [`LockError::Unrecoverable`].
    pub fn upgradable_read(&self) -> Result<UpgradableGuard<'a>, LockError<UpgradableGuard<'a>>> {
        self.upgradable_until(None)
    }

    /// As [`upgradable_read`](Self::upgradable_read), but does not wait.
    ///
    /// # Errors
    /// [`LockError::TimedOut`] if somebody living writes, or may become the writer.
    pub fn try_upgradable_read(
        &self,
    ) -> Result<UpgradableGuard<'a>, LockError<UpgradableGuard<'a>>> {
        self.upgradable_until(Some(0))
    }

    /// As [`upgradable_read`](Self::upgradable_read), but waits so long at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`].
    pub fn upgradable_read_for(
        &self,
        timeout: Duration,
    ) -> Result<UpgradableGuard<'a>, LockError<UpgradableGuard<'a>>> {
        self.upgradable_until(Some(self.mapping().attachment().deadline(timeout)))
    }

    fn upgradable_until(
        &self,
        deadline: Option<u64>,
    ) -> Result<UpgradableGuard<'a>, LockError<UpgradableGuard<'a>>> {
        let me = self.mapping().attachment().me()?.owner();
        if counted::holds(self.mapping(), me) {
            return Err(LockError::Deadlock);
        }
        let asked = Upgradable::take(*self, deadline).inspect(|(_, taken)| {
            if *taken == Taken::OwnerDied {
                self.forget_stamp();
            }
        });
        handed_over(asked, UpgradableGuard)
    }
}

/// A region's lock, held together with readers by the only one that may become their writer.
#[derive(Debug)]
#[must_use = "the lock is freed when its guard is dropped"]
pub struct UpgradableGuard<'a>(Upgradable<'a, RegionLock<'a>>);

impl<'a> UpgradableGuard<'a> {
    /// Waits until the readers have left; then this thread writes, until what this returns is dropped, and
    /// holds the lock as before then. So it does if this fails.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`] as for [`RegionLock::lock`]; [`LockError::Deadlock`] if this thread reads under
    /// the lock besides.
    pub fn upgrade(&mut self) -> Result<UpgradedGuard<'_, 'a>, LockError<UpgradedGuard<'_, 'a>>> {
        self.upgrade_until(None)
    }

    /// As [`upgrade`](Self::upgrade), but does not wait.
    ///
    /// # Errors
    /// [`LockError::TimedOut`] if somebody reads.
    pub fn try_upgrade(
        &mut self,
    ) -> Result<UpgradedGuard<'_, 'a>, LockError<UpgradedGuard<'_, 'a>>> {
        self.upgrade_until(Some(0))
    }

    /// As [`upgrade`](Self::upgrade), but waits so long at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`].
    pub fn upgrade_for(
        &mut self,
        timeout: Duration,
    ) -> Result<UpgradedGuard<'_, 'a>, LockError<UpgradedGuard<'_, 'a>>> {
        let deadline = self.0.mapping().attachment().deadline(timeout);
        self.upgrade_until(Some(deadline))
    }

    fn upgrade_until(
        &mut self,
        deadline: Option<u64>,
    ) -> Result<UpgradedGuard<'_, 'a>, LockError<UpgradedGuard<'_, 'a>>> {
        let me = self.0.mapping().attachment().me()?.owner();
        if counted::holds(self.0.mapping(), me) {
            return Err(LockError::Deadlock);
        }
        handed_over(self.0.upgrade(deadline), UpgradedGuard)
    }

    /// Frees the lock, and says whether it still was this process's.
    ///
    /// # Errors
    /// [`RegionError::Fenced`] if this process was declared dead meanwhile.
    pub fn unlock(self) -> Result<(), RegionError> {
        self.0.free()
    }
}

/// A region's lock, held alone by whoever had it upgradable, and has it so again afterwards.
#[derive(Debug)]
#[must_use = "readers are let in when the guard is dropped"]
pub struct UpgradedGuard<'g, 'a>(Upgraded<'g, 'a, RegionLock<'a>>);

impl UpgradedGuard<'_, '_> {
    /// As [`LockGuard::mark_consistent`](crate::LockGuard::mark_consistent).
    ///
    /// # Errors
    /// As there.
    pub fn mark_consistent(&self) -> Result<(), RegionError> {
        self.0.mark_consistent()
    }

    /// As [`LockGuard::is_inconsistent`](crate::LockGuard::is_inconsistent).
    #[must_use]
    pub fn is_inconsistent(&self) -> bool {
        self.0.is_inconsistent()
    }

    /// Lets readers in again, and says whether the lock still was this process's. What is not marked consistent
    /// stays so, for the next.
    ///
    /// # Errors
    /// [`RegionError::Fenced`] if this process was declared dead meanwhile.
    pub fn downgrade(self) -> Result<(), RegionError> {
        self.0.downgrade()
    }
}
