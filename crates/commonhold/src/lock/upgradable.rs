//! The core of every upgradable guard.

use std::{marker::PhantomData, mem::ManuallyDrop, thread, time::Duration};

use commonhold_sync::{LockError as SyncError, Release, Taken};

use super::{Denied, reading::Readable};
use crate::{LockError, LockResult, attachment::LockContext, region::MappedRegion};

/// A lock that this thread holds upgradable. It stays in its thread: neither `Send` nor `Sync`.
#[derive(Debug)]
pub(crate) struct Upgradable<'a, L: Readable<'a>> {
    lock: L,
    of: PhantomData<(&'a MappedRegion, *const ())>,
}

impl<'a, L: Readable<'a>> Upgradable<'a, L> {
    /// Takes it if it is consistent, and waits until `deadline`, or for ever.
    pub(crate) fn take(lock: L, deadline: Option<u64>) -> LockResult<Self> {
        Self::taken(lock, deadline)
            .map_err(|denied| lock.site().error(denied, lock.last_writer()))?
    }

    /// The same without waiting: `None` if a living thread holds it upgradable, or alone.
    pub(crate) fn take_at_once(lock: L) -> LockResult<Option<Self>> {
        match Self::taken(lock, Some(0)) {
            Ok(taken) => taken.map(Some),
            Err(Denied::Sync(SyncError::TimedOut)) => Ok(None),
            Err(denied) => Err(lock.site().error(denied, lock.last_writer())),
        }
    }

    fn taken(lock: L, deadline: Option<u64>) -> Result<LockResult<Self>, Denied> {
        let attachment = lock.region().attachment();
        let me = attachment.me()?;
        if lock.is_counted(&me) {
            return Err(SyncError::Deadlock.into());
        }
        let taken = lock.core().upgradable_read(&me, attachment.my_view(), deadline)?;
        let held = Self { lock, of: PhantomData };
        Ok(match taken {
            Taken::Clean => Ok(held),
            Taken::OwnerDied(who) => {
                let freed = ManuallyDrop::new(held).release(taken);
                freed.and_then(|()| Err(LockError::OwnerDied(lock.site().place(who))))
            }
        })
    }

    #[inline]
    pub(crate) fn context(&self) -> &'a LockContext<'a> {
        self.lock.context()
    }

    fn region(&self) -> &'a MappedRegion {
        self.lock.region()
    }

    fn deadline(&self, timeout: Duration) -> Option<u64> {
        Some(self.region().attachment().deadline(timeout))
    }

    /// Waits until the readers have left, for `timeout` at most if there is one. If this fails, `self` is as
    /// before.
    pub(crate) fn upgrade(&mut self, timeout: Option<Duration>) -> LockResult<Upgraded<'_, 'a, L>> {
        let deadline = timeout.and_then(|timeout| self.deadline(timeout));
        let lock = self.lock;
        self.upgraded(deadline).map_err(|denied| lock.site().error(denied, None))?
    }

    /// The same without waiting: `None` if another thread reads.
    pub(crate) fn upgrade_at_once(&mut self) -> LockResult<Option<Upgraded<'_, 'a, L>>> {
        let lock = self.lock;
        match self.upgraded(Some(0)) {
            Ok(upgraded) => upgraded.map(Some),
            Err(Denied::Sync(SyncError::TimedOut)) => Ok(None),
            Err(denied) => Err(lock.site().error(denied, None)),
        }
    }

    fn upgraded(
        &mut self,
        deadline: Option<u64>,
    ) -> Result<LockResult<Upgraded<'_, 'a, L>>, Denied> {
        let attachment = self.region().attachment();
        let me = attachment.me()?;
        if self.lock.is_counted(&me) {
            return Err(SyncError::Deadlock.into());
        }
        let taken = self.lock.core().upgrade(&me, attachment.my_view(), deadline)?;
        let panicking = thread::panicking();
        let upgraded = Upgraded { lock: self.lock, panicking, of: PhantomData };
        Ok(match taken {
            Taken::Clean => Ok(upgraded),
            // This guard itself left it inconsistent, when it was upgraded before.
            Taken::OwnerDied(_) => {
                let place = self.lock.site().place(Some(me.owner()));
                upgraded.downgrade().and_then(|()| Err(LockError::OwnerDied(place)))
            }
        })
    }

    /// Frees the lock, and reports whether this process still owned it.
    pub(crate) fn free(self) -> LockResult<()> {
        ManuallyDrop::new(self).release(Taken::Clean)
    }

    #[inline]
    fn release(&self, taken: Taken) -> LockResult<()> {
        let attachment = self.region().attachment();
        self.lock.site().ask_live()?;
        let me = attachment.me()?;
        let view = attachment.my_view();
        let freed = self.lock.core().unlock_upgradable(&me, view, taken);
        freed.map_err(|_| self.lock.site().not_ours())
    }
}

impl<'a, L: Readable<'a>> Drop for Upgradable<'a, L> {
    #[inline]
    fn drop(&mut self) {
        // Fails only if this peer was declared dead; then others have taken over the lock.
        let _ = self.release(Taken::Clean);
    }
}

/// An upgraded lock: this thread writes until it drops this.
#[derive(Debug)]
pub(crate) struct Upgraded<'g, 'a, L: Readable<'a>> {
    lock: L,
    /// Whether the thread was panicking when it upgraded.
    panicking: bool,
    of: PhantomData<(&'g mut &'a MappedRegion, *const ())>,
}

impl<'a, L: Readable<'a>> Upgraded<'_, 'a, L> {
    #[inline]
    pub(crate) fn context(&self) -> &'a LockContext<'a> {
        self.lock.context()
    }

    /// Lets readers in, and reports whether this process still owned the lock.
    pub(crate) fn downgrade(self) -> LockResult<()> {
        ManuallyDrop::new(self).release(Release::Done)
    }

    /// The same, and leaves the lock inconsistent: the data are half changed.
    pub(crate) fn leave_inconsistent(self) -> LockResult<()> {
        ManuallyDrop::new(self).release(Release::Inconsistent)
    }

    fn release(&self, how: Release) -> LockResult<()> {
        let attachment = self.lock.region().attachment();
        self.lock.site().ask_live()?;
        let me = attachment.me()?;
        let view = attachment.my_view();
        self.lock.core().downgrade(&me, view, how).map_err(|_| self.lock.site().not_ours())
    }
}

impl<'a, L: Readable<'a>> Drop for Upgraded<'_, 'a, L> {
    fn drop(&mut self) {
        let half_done = thread::panicking() && !self.panicking;
        let how = if half_done { Release::Inconsistent } else { Release::Done };
        // Fails only if this peer was declared dead; then others have taken over the lock.
        let _ = self.release(how);
    }
}
