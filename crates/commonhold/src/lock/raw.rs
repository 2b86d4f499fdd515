//! A mutex on a bare word in the bytes of a region.

use std::time::Duration;

use commonhold_layout::Owner;
use commonhold_sync as sync;
use commonhold_sync::{Release, Taken};

use super::{Refusal, handed_over, held::Held, refusal};
use crate::{LockError, Mapping, RegionError, attachment::Near};

/// A mutex on a bare word in the bytes of a region, which knows nothing of what it protects. What it
/// has to keep is up to its users; a [`Mutex`](crate::Mutex) has its data with it.
#[derive(Debug, Clone, Copy)]
pub struct RawMutex<'a> {
    mapping: &'a Mapping,
    mutex: sync::Mutex<'a>,
    near: Near<'a>,
}

impl<'a> RawMutex<'a> {
    pub(crate) fn of(mapping: &'a Mapping, mutex: sync::Mutex<'a>) -> Self {
        Self { mapping, mutex, near: mapping.attachment().near() }
    }

    /// Takes the mutex, waiting as long as it takes.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`] hands over the guard of a mutex whose owner died.
    #[inline(always)]
    pub fn lock(&self) -> Result<RawMutexGuard<'a>, LockError<RawMutexGuard<'a>>> {
        let asked = match self.near.known_me() {
            Some(me) if self.mutex.lock_quickly(&me) => Ok((me.owner(), Taken::Clean)),
            _ => self.lock_until(None),
        };
        handed_over(asked, |owner| self.guard(owner))
    }

    /// Takes the mutex if that needs no waiting.
    ///
    /// # Errors
    /// [`LockError::TimedOut`] if somebody living holds it.
    pub fn try_lock(&self) -> Result<RawMutexGuard<'a>, LockError<RawMutexGuard<'a>>> {
        handed_over(self.lock_until(Some(0)), |owner| self.guard(owner))
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
        handed_over(self.lock_until(Some(deadline)), |owner| self.guard(owner))
    }

    #[cold]
    fn lock_until(self, deadline: Option<u64>) -> Result<(Owner, Taken), Refusal> {
        let attachment = self.mapping.attachment();
        let me = attachment.me()?;
        let taken = self.mutex.lock(&me, attachment.my_view(), deadline).map_err(refusal)?;
        Ok((me.owner(), taken))
    }

    #[inline(always)]
    fn guard(&self, owner: Owner) -> RawMutexGuard<'a> {
        RawMutexGuard(Held::new(self.mapping, self.mutex, owner, self.near.fork()))
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

/// A mutex, held.
#[derive(Debug)]
#[must_use = "the mutex is freed when its guard is dropped"]
pub struct RawMutexGuard<'a>(Held<'a>);

impl<'a> RawMutexGuard<'a> {
    #[inline]
    pub(crate) const fn mapping(&self) -> &'a Mapping {
        self.0.mapping()
    }

    /// As [`Held::lend`].
    pub(crate) fn lend<R, E>(
        self,
        wait: impl FnOnce(&sync::Mutex<'a>) -> Result<R, E>,
    ) -> Result<(Self, R), E> {
        self.0.lend(wait).map(|(held, result)| (Self(held), result))
    }

    /// As [`LockGuard::mark_consistent`](crate::LockGuard::mark_consistent).
    ///
    /// # Errors
    /// As there.
    #[inline(always)]
    pub fn mark_consistent(&self) -> Result<(), RegionError> {
        self.0.mark_consistent()
    }

    /// As [`LockGuard::is_inconsistent`](crate::LockGuard::is_inconsistent).
    #[must_use]
    pub fn is_inconsistent(&self) -> bool {
        self.0.is_inconsistent()
    }

    /// As [`LockGuard::leave`](crate::LockGuard::leave).
    ///
    /// # Errors
    /// As there.
    pub fn leave(self) -> Result<(), RegionError> {
        self.0.free(Release::Inconsistent)
    }

    /// As [`LockGuard::unlock`](crate::LockGuard::unlock).
    ///
    /// # Errors
    /// As there.
    pub fn unlock(self) -> Result<(), RegionError> {
        self.0.free(Release::Done)
    }
}
