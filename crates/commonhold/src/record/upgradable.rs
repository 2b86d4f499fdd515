//! The reader/writer lock with its data, held upgradable.

use std::time::Duration;

use super::{
    Field, Plain,
    rwlock::{RecordLock, RwLock},
    value::Value,
};
use crate::{
    LockError, RegionError,
    lock::{
        handed_over,
        upgradable::{Upgradable, Upgraded},
    },
};

impl<'a, T: Plain> RwLock<'a, T> {
    /// Takes the lock together with readers, and as the only one that may become their writer: to look
    /// first, and change only if that is needed, with nobody's change in between.
    ///
    /// What the death of such an owner does: nothing, as of a reader; and while it is upgraded, what that of a
    /// writer does.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`] hands over a guard under which the data may be half changed: they can be repaired
    /// after an [upgrade](RwLockUpgradableGuard::upgrade). [`LockError::Deadlock`] if this thread has the lock in
    /// any way; [`LockError::Unrecoverable`].
    ///
    /// # Examples
    /// ```
    /// use commonhold::{Access, RwLock, Space};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let url = format!("shm:doc-upgradable-{}", std::process::id());
    /// # let space = Space::open_or_format(&url)?;
    /// space.create("cache", RwLock::<[u64; 2]>::SIZE)?;
    /// let mapping = space.map("cache", Access::ReadWrite)?;
    /// let cache = mapping.open::<RwLock<[u64; 2]>>(0)?;
    /// let mut guard = cache.upgradable_read().map_err(|error| error.to_string())?;
    /// // Others read meanwhile, and nobody writes.
    /// let [version, value] = guard.get()?;
    /// if version < 3 {
    ///     let writer = guard.upgrade().map_err(|error| error.to_string())?;
    ///     writer.set(&[3, value + 10])?;
    ///     writer.downgrade()?;
    /// }
    /// assert_eq!(guard.get()?, [3, 10]);
    /// # drop(guard);
    /// # drop(mapping);
    /// # drop(space);
    /// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn upgradable_read(
        &self,
    ) -> Result<RwLockUpgradableGuard<'a, T>, LockError<RwLockUpgradableGuard<'a, T>>> {
        self.upgradable_until(None)
    }

    /// As [`upgradable_read`](Self::upgradable_read), but does not wait.
    ///
    /// # Errors
    /// [`LockError::TimedOut`] if somebody living writes, or may become the writer.
    pub fn try_upgradable_read(
        &self,
    ) -> Result<RwLockUpgradableGuard<'a, T>, LockError<RwLockUpgradableGuard<'a, T>>> {
        self.upgradable_until(Some(0))
    }

    /// As [`upgradable_read`](Self::upgradable_read), but waits so long at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`].
    pub fn upgradable_read_for(
        &self,
        timeout: Duration,
    ) -> Result<RwLockUpgradableGuard<'a, T>, LockError<RwLockUpgradableGuard<'a, T>>> {
        self.upgradable_until(Some(self.lock.mapping.attachment().deadline(timeout)))
    }

    fn upgradable_until(
        &self,
        deadline: Option<u64>,
    ) -> Result<RwLockUpgradableGuard<'a, T>, LockError<RwLockUpgradableGuard<'a, T>>> {
        let value = self.value;
        handed_over(Upgradable::take(self.lock, deadline), |held| RwLockUpgradableGuard {
            held,
            value,
        })
    }
}

/// A reader/writer lock, held together with readers by the only one that may become their writer.
#[derive(Debug)]
#[must_use = "the lock is freed when its guard is dropped"]
pub struct RwLockUpgradableGuard<'a, T> {
    held: Upgradable<'a, RecordLock<'a>>,
    value: Value<'a, T>,
}

impl<T: Plain> RwLockUpgradableGuard<'_, T> {
    /// As [`MutexGuard::get`](crate::MutexGuard::get).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn get(&self) -> Result<T, RegionError> {
        self.value.get(self.held.mapping())
    }

    /// As [`MutexGuard::get_field`](crate::MutexGuard::get_field).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn get_field<F: Plain>(&self, field: Field<T, F>) -> Result<F, RegionError> {
        self.value.get_field(self.held.mapping(), field)
    }
}

impl<'a, T> RwLockUpgradableGuard<'a, T> {
    /// Waits until the readers have left; then this thread writes, until what this returns is dropped, and
    /// holds the lock as before then. So it does if this fails.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`] hands over the guard if an owner before this one died in the middle of a change;
    /// [`LockError::Deadlock`] if this thread reads under the lock besides.
    pub fn upgrade(
        &mut self,
    ) -> Result<RwLockUpgradedGuard<'_, 'a, T>, LockError<RwLockUpgradedGuard<'_, 'a, T>>> {
        self.upgrade_until(None)
    }

    /// As [`upgrade`](Self::upgrade), but does not wait.
    ///
    /// # Errors
    /// [`LockError::TimedOut`] if somebody living reads.
    pub fn try_upgrade(
        &mut self,
    ) -> Result<RwLockUpgradedGuard<'_, 'a, T>, LockError<RwLockUpgradedGuard<'_, 'a, T>>> {
        self.upgrade_until(Some(0))
    }

    /// As [`upgrade`](Self::upgrade), but waits so long at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`].
    pub fn upgrade_for(
        &mut self,
        timeout: Duration,
    ) -> Result<RwLockUpgradedGuard<'_, 'a, T>, LockError<RwLockUpgradedGuard<'_, 'a, T>>> {
        let deadline = self.held.mapping().attachment().deadline(timeout);
        self.upgrade_until(Some(deadline))
    }

    fn upgrade_until(
        &mut self,
        deadline: Option<u64>,
    ) -> Result<RwLockUpgradedGuard<'_, 'a, T>, LockError<RwLockUpgradedGuard<'_, 'a, T>>> {
        let value = self.value;
        handed_over(self.held.upgrade(deadline), |held| RwLockUpgradedGuard { held, value })
    }

    /// Frees the lock, and says whether it still was this process's.
    ///
    /// # Errors
    /// [`RegionError::Fenced`] if this process was declared dead meanwhile, [`RegionError::Forked`].
    pub fn unlock(self) -> Result<(), RegionError> {
        self.held.free()
    }
}

/// A reader/writer lock, held alone by whoever had it upgradable, and has it so again afterwards.
#[derive(Debug)]
#[must_use = "readers are let in when the guard is dropped"]
pub struct RwLockUpgradedGuard<'g, 'a, T> {
    held: Upgraded<'g, 'a, RecordLock<'a>>,
    value: Value<'a, T>,
}

impl<T: Plain> RwLockUpgradedGuard<'_, '_, T> {
    /// As [`MutexGuard::get`](crate::MutexGuard::get).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn get(&self) -> Result<T, RegionError> {
        self.value.get(self.held.mapping())
    }

    /// As [`MutexGuard::set`](crate::MutexGuard::set).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn set(&self, value: &T) -> Result<(), RegionError> {
        self.value.set(self.held.mapping(), value)
    }

    /// As [`MutexGuard::update`](crate::MutexGuard::update).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> Result<R, RegionError> {
        self.value.update(self.held.mapping(), change)
    }

    /// As [`MutexGuard::get_field`](crate::MutexGuard::get_field).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn get_field<F: Plain>(&self, field: Field<T, F>) -> Result<F, RegionError> {
        self.value.get_field(self.held.mapping(), field)
    }

    /// As [`MutexGuard::set_field`](crate::MutexGuard::set_field).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn set_field<F: Plain>(&self, field: Field<T, F>, value: &F) -> Result<(), RegionError> {
        self.value.set_field(self.held.mapping(), field, value)
    }
}

impl<T> RwLockUpgradedGuard<'_, '_, T> {
    /// As [`LockGuard::mark_consistent`](crate::LockGuard::mark_consistent).
    ///
    /// # Errors
    /// As there.
    pub fn mark_consistent(&self) -> Result<(), RegionError> {
        self.held.mark_consistent()
    }

    /// As [`LockGuard::is_inconsistent`](crate::LockGuard::is_inconsistent).
    #[must_use]
    pub fn is_inconsistent(&self) -> bool {
        self.held.is_inconsistent()
    }

    /// Lets readers in again, and says whether the lock still was this process's. Data that are not marked
    /// consistent stay so, for the next.
    ///
    /// # Errors
    /// [`RegionError::Fenced`] if this process was declared dead meanwhile, [`RegionError::Forked`].
    pub fn downgrade(self) -> Result<(), RegionError> {
        self.held.downgrade()
    }
}
