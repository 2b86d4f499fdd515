//! The reader/writer lock that every region has.

use std::{mem::ManuallyDrop, sync::atomic::AtomicU64, time::Duration};

use commonhold_host::LinuxPlatform;
use commonhold_layout::Owner;
use commonhold_space::RegionShares;
use commonhold_sync as sync;
use commonhold_sync::{Hold, Release, Taken};

use super::{
    Refusal, counted, handed_over,
    held::Held,
    reading::{Readable, Reading},
    refusal,
};
use crate::{LockError, Mapping, RegionError, attachment::Near};

/// The lock of a region, with its words found.
#[derive(Debug, Clone, Copy)]
pub struct RegionLock<'a> {
    mapping: &'a Mapping,
    words: &'a [AtomicU64; 3],
    near: Near<'a>,
}

impl<'a> Readable<'a> for RegionLock<'a> {
    type Shares = RegionShares<'a, LinuxPlatform>;

    #[inline]
    fn mapping(&self) -> &'a Mapping {
        self.mapping
    }

    #[inline]
    fn near(&self) -> Near<'a> {
        self.near
    }

    #[inline]
    fn core(&self) -> sync::RwLock<'a, Self::Shares> {
        self.near.view().lock_of(self.mapping.mapped(), self.words)
    }

    fn is_counted(&self, me: &sync::Thread<'a>) -> bool {
        counted::holds(self.mapping, me.owner())
    }
}

impl<'a> RegionLock<'a> {
    #[inline(always)]
    pub(crate) fn of(mapping: &'a Mapping) -> Result<Self, RegionError> {
        let near = mapping.attachment().near();
        if near.fork().is_forked_child() {
            return Err(RegionError::Forked);
        }
        match near.view().lock_words(mapping.mapped()) {
            Ok(words) => Ok(Self { mapping, words, near }),
            Err(damage) => Err(RegionError::Damaged(damage)),
        }
    }

    /// See [`Mapping::lock`].
    ///
    /// # Errors
    /// As there.
    #[inline(always)]
    pub fn lock(&self) -> Result<LockGuard<'a>, LockError<LockGuard<'a>>> {
        let asked = match self.near.known_me() {
            Some(me) if self.core().write_quickly(&me, self.near.view()) => {
                Ok((me.owner(), Taken::Clean))
            }
            _ => self.lock_until(None),
        };
        handed_over(asked, |owner| self.guard(owner))
    }

    /// See [`Mapping::try_lock`].
    ///
    /// # Errors
    /// As there.
    pub fn try_lock(&self) -> Result<LockGuard<'a>, LockError<LockGuard<'a>>> {
        handed_over(self.lock_until(Some(0)), |owner| self.guard(owner))
    }

    /// See [`Mapping::lock_for`].
    ///
    /// # Errors
    /// As there.
    pub fn lock_for(&self, timeout: Duration) -> Result<LockGuard<'a>, LockError<LockGuard<'a>>> {
        let deadline = self.mapping.attachment().deadline(timeout);
        handed_over(self.lock_until(Some(deadline)), |owner| self.guard(owner))
    }

    #[cold]
    fn lock_until(self, deadline: Option<u64>) -> Result<(Owner, Taken), Refusal> {
        let attachment = self.mapping.attachment();
        let me = attachment.me()?;
        if counted::holds(self.mapping, me.owner()) {
            // It would wait for itself; the lock knows that only of what stands in the thread's words.
            return Err(Refusal::new(LockError::Deadlock));
        }
        let taken = self.core().write(&me, attachment.my_view(), deadline).map_err(refusal)?;
        if taken == Taken::OwnerDied {
            self.forget_stamp();
        }
        Ok((me.owner(), taken))
    }

    /// The dead owner's stamp is not ours.
    pub(super) fn forget_stamp(&self) {
        if let Ok(core) = self.mapping.attachment().core() {
            core.stamp(self.mapping.handle().region, 0);
        }
    }

    #[inline(always)]
    fn guard(&self, owner: Owner) -> LockGuard<'a> {
        let held = Held::new(self.mapping, self.core().writer(), owner, self.near.fork());
        LockGuard { held, stamped: 0 }
    }

    /// See [`Mapping::read_lock`].
    ///
    /// # Errors
    /// As there.
    #[inline(always)]
    pub fn read_lock(&self) -> Result<ReadGuard<'a>, LockError<ReadGuard<'a>>> {
        let asked = match self.read_quickly() {
            Some(hold) => Ok((hold, Taken::Clean)),
            None => self.read_until(None),
        };
        handed_over(asked, |hold| ReadGuard(Reading::new(*self, hold)))
    }

    /// See [`Mapping::try_read_lock`].
    ///
    /// # Errors
    /// As there.
    pub fn try_read_lock(&self) -> Result<ReadGuard<'a>, LockError<ReadGuard<'a>>> {
        handed_over(self.read_until(Some(0)), |hold| ReadGuard(Reading::new(*self, hold)))
    }

    /// See [`Mapping::read_lock_for`].
    ///
    /// # Errors
    /// As there.
    pub fn read_lock_for(
        &self,
        timeout: Duration,
    ) -> Result<ReadGuard<'a>, LockError<ReadGuard<'a>>> {
        let deadline = self.mapping.attachment().deadline(timeout);
        handed_over(self.read_until(Some(deadline)), |hold| ReadGuard(Reading::new(*self, hold)))
    }

    #[cold]
    fn read_until(self, deadline: Option<u64>) -> Result<(Hold<'a>, Taken), Refusal> {
        let me = self.mapping.attachment().me()?;
        self.read_slowly(&me, deadline).map_err(refusal)
    }

    /// See [`Mapping::reset_lock`].
    ///
    /// # Errors
    /// As there.
    pub fn reset(&self) -> Result<(), RegionError> {
        let view = self.mapping.attachment().view()?;
        let held = |_| RegionError::TimedOut { name: self.mapping.name().to_owned() };
        self.core().writer().reset(view).map_err(held)
    }
}

/// A region's lock, held alone.
#[derive(Debug)]
#[must_use = "the lock is freed when its guard is dropped"]
pub struct LockGuard<'a> {
    held: Held<'a>,
    /// 1 if others were told since when it is held. A whole word: see [`Held`].
    stamped: usize,
}

impl LockGuard<'_> {
    /// Says that what the lock protects has been repaired.
    ///
    /// # Errors
    /// [`RegionError::Fenced`] if this process was declared dead meanwhile.
    #[inline(always)]
    pub fn mark_consistent(&self) -> Result<(), RegionError> {
        self.held.mark_consistent()
    }

    /// Whether the lock's last owner died, or gave up, and nobody has repaired anything since.
    #[must_use]
    pub fn is_inconsistent(&self) -> bool {
        self.held.is_inconsistent()
    }

    /// Records for others since when the lock is held. It costs a look at the clock, so it is left to
    /// those who hold a lock for long.
    pub fn stamp(&mut self) {
        let mapping = self.held.mapping();
        if let Ok(core) = mapping.attachment().core() {
            core.stamp(mapping.handle().region, commonhold_host::unix_ms());
            self.stamped = 1;
        }
    }

    /// Frees the lock, and leaves it inconsistent for the next.
    ///
    /// # Errors
    /// As for [`unlock`](Self::unlock).
    pub fn leave(self) -> Result<(), RegionError> {
        self.free(Release::Inconsistent)
    }

    /// Frees the lock, and says whether it still was this process's.
    ///
    /// # Errors
    /// [`RegionError::Fenced`] if this process was declared dead meanwhile; nothing was changed then.
    pub fn unlock(self) -> Result<(), RegionError> {
        self.free(Release::Done)
    }

    fn free(self, how: Release) -> Result<(), RegionError> {
        let this = ManuallyDrop::new(self);
        this.unstamp();
        this.held.release(how)
    }

    #[inline]
    fn unstamp(&self) {
        if self.stamped != 0 {
            let mapping = self.held.mapping();
            if let Ok(core) = mapping.attachment().core() {
                core.stamp(mapping.handle().region, 0);
            }
        }
    }
}

impl Drop for LockGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.unstamp();
    }
}

/// A region's lock, held together with other readers.
#[derive(Debug)]
#[must_use = "the lock is freed when its guard is dropped"]
pub struct ReadGuard<'a>(Reading<'a, RegionLock<'a>>);

impl ReadGuard<'_> {
    /// Frees the lock, and says whether it still was this process's.
    ///
    /// # Errors
    /// [`RegionError::Fenced`] if this process was declared dead meanwhile.
    pub fn unlock(self) -> Result<(), RegionError> {
        self.0.free()
    }
}
