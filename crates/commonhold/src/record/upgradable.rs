//! The upgradable guards of the reader/writer lock with its data.

use std::{fmt, time::Duration};

use super::rwlock::{RecordWords, RwLock};
use crate::{
    LockResult, Part, Plain, Reading, Writing,
    data::{Gate, Span, reads, writes},
    lock::upgradable::{Upgradable, Upgraded},
};

impl<T: Plain> RwLock<T> {
    /// Takes the lock together with readers, as the only thread that may become the writer. So a thread can read
    /// first, and change the data only if that is needed, without another thread's change in between.
    ///
    /// The death of such an owner does nothing, like that of a reader; while it is upgraded, it counts as the death
    /// of a writer.
    ///
    /// # Errors
    /// As for [`read`](Self::read); [`LockError::Deadlock`](crate::LockError::Deadlock) if this thread holds the
    /// lock in any way.
    ///
    /// # Examples
    /// ```
    /// use commonhold::{RwLock, Space};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let url = format!("shm:doc-upgradable-{}", std::process::id());
    /// # let space = Space::open_or_format(&url)?;
    /// let cache = space.record::<RwLock<[u64; 2]>>("cache")?.repaired_by(|cache| {
    ///     cache.set([0; 2]);
    ///     Ok(())
    /// });
    /// let mut guard = cache.upgradable_read()?;
    /// // Others may read meanwhile, but no thread writes.
    /// let [version, value] = guard.get();
    /// if version < 3 {
    ///     let writer = guard.upgrade()?;
    ///     writer.set([3, value + 10]);
    ///     writer.downgrade()?;
    /// }
    /// assert_eq!(guard.at(0)?.get(), 3);
    /// # drop(guard);
    /// # drop(cache);
    /// # drop(space);
    /// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn upgradable_read(&self) -> LockResult<RwLockUpgradableGuard<'_, T>> {
        self.upgradable_until(None)
    }

    /// As [`upgradable_read`](Self::upgradable_read), but does not wait; `None` if a living thread writes, or may
    /// become the writer.
    ///
    /// # Errors
    /// As for [`upgradable_read`](Self::upgradable_read).
    pub fn try_upgradable_read(&self) -> LockResult<Option<RwLockUpgradableGuard<'_, T>>> {
        let held = self.after_repair(Some(0), || Upgradable::take_at_once(self.words()))?;
        Ok(held.map(|held| RwLockUpgradableGuard { lock: self, held }))
    }

    /// As [`upgradable_read`](Self::upgradable_read), but waits for `timeout` at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`](crate::LockError::TimedOut), and as for [`upgradable_read`](Self::upgradable_read).
    pub fn upgradable_read_for(
        &self,
        timeout: Duration,
    ) -> LockResult<RwLockUpgradableGuard<'_, T>> {
        self.upgradable_until(self.deadline(timeout))
    }

    fn upgradable_until(&self, deadline: Option<u64>) -> LockResult<RwLockUpgradableGuard<'_, T>> {
        let held = self.after_repair(deadline, || Upgradable::take(self.words(), deadline))?;
        Ok(RwLockUpgradableGuard { lock: self, held })
    }
}

/// A reader/writer lock that this thread holds together with readers, as the only thread that may become the
/// writer.
///
/// # Examples
/// ```
/// use commonhold::{RwLock, RwLockUpgradableGuard, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-rwlock-upgradable-guard-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let limits = space.record::<RwLock<[u32; 2]>>("limits")?.repaired_by(|limits| {
///     limits.set([10, 20]);
///     Ok(())
/// });
/// let mut guard: RwLockUpgradableGuard<'_, [u32; 2]> = limits.upgradable_read()?;
/// if guard.at(1)?.get() < 25 {
///     guard.upgrade()?.at(1)?.set(25);
/// }
/// guard.unlock()?;
/// # drop(limits);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[must_use = "the lock is freed when its guard is dropped"]
pub struct RwLockUpgradableGuard<'a, T: Plain> {
    lock: &'a RwLock<T>,
    held: Upgradable<'a, &'a RecordWords<'a>>,
}

impl<T: Plain> fmt::Debug for RwLockUpgradableGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLockUpgradableGuard").field("lock", self.lock).finish_non_exhaustive()
    }
}

impl<'a, T: Plain> RwLockUpgradableGuard<'a, T> {
    #[inline]
    fn part(&self) -> Part<'_, T, Reading> {
        Part::new(Span::new(self.lock.data(), Gate::Context(self.held.context())))
    }

    /// Waits until the readers have left. Then this thread writes until the returned guard is dropped. After that,
    /// and if this fails, it holds the lock as before.
    ///
    /// # Errors
    /// [`LockError::Deadlock`](crate::LockError::Deadlock) if this thread also holds a read lock of it;
    /// [`OwnerDied`](crate::LockError::OwnerDied) if this thread has left a change of its own half done.
    pub fn upgrade(&mut self) -> LockResult<RwLockUpgradedGuard<'_, 'a, T>> {
        let lock = self.lock;
        self.held.upgrade(None).map(|held| RwLockUpgradedGuard { lock, held })
    }

    /// As [`upgrade`](Self::upgrade), but does not wait; `None` if a living thread reads.
    ///
    /// # Errors
    /// As for [`upgrade`](Self::upgrade).
    pub fn try_upgrade(&mut self) -> LockResult<Option<RwLockUpgradedGuard<'_, 'a, T>>> {
        let lock = self.lock;
        Ok(self.held.upgrade_at_once()?.map(|held| RwLockUpgradedGuard { lock, held }))
    }

    /// As [`upgrade`](Self::upgrade), but waits for `timeout` at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`](crate::LockError::TimedOut), and as for [`upgrade`](Self::upgrade).
    pub fn upgrade_for(&mut self, timeout: Duration) -> LockResult<RwLockUpgradedGuard<'_, 'a, T>> {
        let lock = self.lock;
        self.held.upgrade(Some(timeout)).map(|held| RwLockUpgradedGuard { lock, held })
    }

    /// Frees the lock, and reports whether this process still owned it.
    ///
    /// # Errors
    /// [`LockError::Fenced`](crate::LockError::Fenced) if this process was declared dead meanwhile;
    /// [`LockError::Forked`](crate::LockError::Forked).
    pub fn unlock(self) -> LockResult<()> {
        self.held.free()
    }
}

reads!(
    ['a, T: Plain] ['a, F: Plain, const N: usize]
    RwLockUpgradableGuard<'a, T>, RwLockUpgradableGuard<'a, [F; N]>, Reading
);

/// A reader/writer lock that was upgraded: this thread holds it alone, and upgradable again after this guard.
///
/// # Examples
/// ```
/// use commonhold::{RwLock, RwLockUpgradedGuard, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-rwlock-upgraded-guard-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let limits = space.record::<RwLock<[u32; 2]>>("limits")?.repaired_by(|limits| {
///     limits.set([10, 20]);
///     Ok(())
/// });
/// let mut guard = limits.upgradable_read()?;
/// let writer: RwLockUpgradedGuard<'_, '_, [u32; 2]> = guard.upgrade()?;
/// writer.at(0)?.set(15);
/// writer.at(1)?.set(25);
/// writer.downgrade()?;
/// guard.unlock()?;
/// # drop(limits);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[must_use = "readers are let in when the guard is dropped"]
pub struct RwLockUpgradedGuard<'g, 'a, T: Plain> {
    lock: &'a RwLock<T>,
    held: Upgraded<'g, 'a, &'a RecordWords<'a>>,
}

impl<T: Plain> fmt::Debug for RwLockUpgradedGuard<'_, '_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLockUpgradedGuard").field("lock", self.lock).finish_non_exhaustive()
    }
}

impl<T: Plain> RwLockUpgradedGuard<'_, '_, T> {
    #[inline]
    fn part(&self) -> Part<'_, T> {
        Part::new(Span::new(self.lock.data(), Gate::Context(self.held.context())))
    }

    /// Lets readers in again, and reports whether this process still owned the lock.
    ///
    /// # Errors
    /// [`LockError::Fenced`](crate::LockError::Fenced) if this process was declared dead meanwhile;
    /// [`LockError::Forked`](crate::LockError::Forked).
    pub fn downgrade(self) -> LockResult<()> {
        self.held.downgrade()
    }

    /// Lets readers in and leaves the lock inconsistent: the data are half changed, and readers and the next owner
    /// are told so.
    ///
    /// # Errors
    /// As for [`downgrade`](Self::downgrade).
    pub fn leave_inconsistent(self) -> LockResult<()> {
        self.held.leave_inconsistent()
    }
}

reads!(
    ['g, 'a, T: Plain] ['g, 'a, F: Plain, const N: usize]
    RwLockUpgradedGuard<'g, 'a, T>, RwLockUpgradedGuard<'g, 'a, [F; N]>, Writing
);
writes!(['g, 'a, T: Plain] RwLockUpgradedGuard<'g, 'a, T>);
