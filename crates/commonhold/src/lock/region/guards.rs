//! The guards of a region's lock.

use std::{cell::Cell, mem::ManuallyDrop, time::Duration};

use commonhold_sync::Release;

use super::{
    super::{
        Guard,
        held::Held,
        reading::Reading,
        upgradable::{Upgradable, Upgraded},
    },
    RegionWords,
};
use crate::LockResult;

/// A region's lock that this thread holds alone.
///
/// # Examples
/// ```
/// use commonhold::{LockGuard, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-lock-guard-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let pair = space.map_or_create("pair", 16)?;
/// let guard: LockGuard<'_> = pair.lock_repairing(|_| {
///     // The second is written last.
///     let second: u64 = pair.get(8)?;
///     Ok(pair.set(0, &second)?)
/// })?;
/// pair.set(0, &7_u64)?;
/// pair.set(8, &7_u64)?;
/// guard.unlock()?;
/// # drop(pair);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "the lock is freed when its guard is dropped"]
pub struct LockGuard<'a> {
    /// The guard's own `drop` frees it: two nested destructors are not inlined.
    held: ManuallyDrop<Held<'a, &'a RegionWords<'a>>>,
    /// 1 if the time since when it is held was recorded. A whole word: see [`Held`].
    stamped: Cell<usize>,
}

impl<'a> LockGuard<'a> {
    #[inline(always)]
    pub(super) fn new(held: Held<'a, &'a RegionWords<'a>>) -> Self {
        Self { held: ManuallyDrop::new(held), stamped: Cell::new(0) }
    }

    /// Records, for lists of locks, since when the lock is held. It reads the clock, so it is only for threads that
    /// hold a lock for long.
    pub fn stamp(&self) {
        let region = self.held.site().region;
        if let Ok(core) = region.attachment().core() {
            core.stamp(region.handle().region, commonhold_host::unix_ms());
            self.stamped.set(1);
        }
    }

    /// Frees the lock and leaves it inconsistent: the data are half changed, and the next owner is told so.
    ///
    /// # Errors
    /// As for [`unlock`](Self::unlock).
    pub fn leave_inconsistent(self) -> LockResult<()> {
        self.free(Release::Inconsistent)
    }

    /// Frees the lock, and reports whether this process still owned it.
    ///
    /// # Errors
    /// [`LockError::Fenced`](crate::LockError::Fenced) if this process was declared dead meanwhile;
    /// [`LockError::Forked`](crate::LockError::Forked).
    pub fn unlock(self) -> LockResult<()> {
        self.free(Release::Done)
    }

    #[inline(always)]
    fn unstamp(&self) {
        if self.stamped.get() != 0 {
            self.held.lock().forget_stamp();
        }
    }
}

impl Guard for LockGuard<'_> {
    fn set_consistent(&self) -> LockResult<()> {
        self.held.set_consistent()
    }

    fn free(self, how: Release) -> LockResult<()> {
        let this = ManuallyDrop::new(self);
        this.unstamp();
        this.held.release(how)
    }
}

impl Drop for LockGuard<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.unstamp();
        self.held.release_on_drop();
    }
}

/// A region's lock that this thread holds together with other readers.
///
/// # Examples
/// ```
/// use commonhold::{ReadGuard, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-read-guard-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let pair = space.map_or_create("pair", 16)?;
/// let guard: ReadGuard<'_> = pair.read_lock()?; // an error if a writer died half way
/// let (first, second): (u64, u64) = (pair.get(0)?, pair.get(8)?);
/// guard.unlock()?;
/// assert_eq!(first, second);
/// # drop(pair);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "the lock is freed when its guard is dropped"]
pub struct ReadGuard<'a>(Reading<'a, &'a RegionWords<'a>>);

impl<'a> ReadGuard<'a> {
    #[inline(always)]
    pub(super) const fn new(reading: Reading<'a, &'a RegionWords<'a>>) -> Self {
        Self(reading)
    }

    /// Frees the lock, and reports whether this process still owned it.
    ///
    /// # Errors
    /// [`LockError::Fenced`](crate::LockError::Fenced) if this process was declared dead meanwhile;
    /// [`LockError::Forked`](crate::LockError::Forked).
    pub fn unlock(self) -> LockResult<()> {
        self.0.free()
    }
}

/// A region's lock that this thread holds together with readers, as the only thread that may become the writer.
///
/// # Examples
/// ```
/// use commonhold::{Space, UpgradableGuard};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-upgradable-guard-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let seed = space.map_or_create("seed", 8)?;
/// let lock = seed.region_lock()?;
/// let mut guard: UpgradableGuard<'_> = lock.upgradable_read()?; // an error if a writer died half way
/// if seed.get::<u64>(0)? == 0 {
///     let writer = guard.upgrade()?;
///     seed.set(0, &42_u64)?;
///     writer.downgrade()?;
/// }
/// guard.unlock()?;
/// # drop((lock, seed));
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "the lock is freed when its guard is dropped"]
pub struct UpgradableGuard<'a>(Upgradable<'a, &'a RegionWords<'a>>);

impl<'a> UpgradableGuard<'a> {
    pub(super) const fn new(held: Upgradable<'a, &'a RegionWords<'a>>) -> Self {
        Self(held)
    }

    /// Waits until the readers have left. Then this thread writes until the returned guard is dropped. After that,
    /// and if this fails, it holds the lock as before.
    ///
    /// # Errors
    /// [`LockError::Deadlock`](crate::LockError::Deadlock) if this thread also holds a read lock of it; [`LockError::OwnerDied`](crate::LockError::OwnerDied) if this thread
    /// has left a change of its own half done.
    pub fn upgrade(&mut self) -> LockResult<UpgradedGuard<'_, 'a>> {
        self.0.upgrade(None).map(UpgradedGuard)
    }

    /// As [`upgrade`](Self::upgrade), but does not wait; `None` if another thread reads.
    ///
    /// # Errors
    /// As for [`upgrade`](Self::upgrade).
    pub fn try_upgrade(&mut self) -> LockResult<Option<UpgradedGuard<'_, 'a>>> {
        Ok(self.0.upgrade_at_once()?.map(UpgradedGuard))
    }

    /// As [`upgrade`](Self::upgrade), but waits for `timeout` at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`](crate::LockError::TimedOut), and as for [`upgrade`](Self::upgrade).
    pub fn upgrade_for(&mut self, timeout: Duration) -> LockResult<UpgradedGuard<'_, 'a>> {
        self.0.upgrade(Some(timeout)).map(UpgradedGuard)
    }

    /// Frees the lock, and reports whether this process still owned it.
    ///
    /// # Errors
    /// [`LockError::Fenced`](crate::LockError::Fenced) if this process was declared dead meanwhile; [`LockError::Forked`](crate::LockError::Forked).
    pub fn unlock(self) -> LockResult<()> {
        self.0.free()
    }
}

/// A region's lock that was upgraded: this thread holds it alone, and upgradable again after this guard.
///
/// # Examples
/// ```
/// use commonhold::{Space, UpgradedGuard};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-upgraded-guard-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let pair = space.map_or_create("pair", 16)?;
/// let lock = pair.region_lock()?;
/// let mut guard = lock.upgradable_read()?; // an error if a writer died half way
/// let writer: UpgradedGuard<'_, '_> = guard.upgrade()?;
/// pair.set(0, &7_u64)?;
/// if let Err(error) = pair.set(8, &7_u64) {
///     writer.leave_inconsistent()?; // others are told that only one of the two is written
///     return Err(error.into());
/// }
/// writer.downgrade()?;
/// guard.unlock()?;
/// # drop((lock, pair));
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "readers are let in when the guard is dropped"]
pub struct UpgradedGuard<'g, 'a>(Upgraded<'g, 'a, &'a RegionWords<'a>>);

impl UpgradedGuard<'_, '_> {
    /// Lets readers in again, and reports whether this process still owned the lock.
    ///
    /// # Errors
    /// [`LockError::Fenced`](crate::LockError::Fenced) if this process was declared dead meanwhile; [`LockError::Forked`](crate::LockError::Forked).
    pub fn downgrade(self) -> LockResult<()> {
        self.0.downgrade()
    }

    /// Lets readers in and leaves the lock inconsistent: the data are half changed, and readers and the next owner
    /// are told so.
    ///
    /// # Errors
    /// As for [`downgrade`](Self::downgrade).
    pub fn leave_inconsistent(self) -> LockResult<()> {
        self.0.leave_inconsistent()
    }
}
