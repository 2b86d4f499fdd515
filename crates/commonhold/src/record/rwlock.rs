//! The reader/writer lock that has its data with it.

use std::{sync::atomic::AtomicU64, time::Duration};

use commonhold_host::LinuxPlatform;
use commonhold_layout::{Offset, Owner, RecordKind, record_words, thread_word};
use commonhold_space::RecordShares;
use commonhold_sync as sync;
use commonhold_sync::{Hold, Release, Taken};

use super::{Field, Plain, Plan, Record, open, value::Value};
use crate::{
    LockError, Mapping, RegionError,
    attachment::Near,
    lock::{
        Refusal, handed_over,
        held::Held,
        reading::{Readable, Reading},
        refusal,
    },
};

type Words<T> = Plan<T, { record_words::RW_LOCK }>;

/// A reader/writer lock and the `T` that it protects, in the bytes of a region.
///
/// What a death does: that of a reader, nothing, and writers do not wait for it; that of a writer is told
/// to all who take the lock, by [`LockError::OwnerDied`], until a writer has repaired the data and said
/// so; that of one who waits, nothing.
///
/// A thread can read under four locks in bytes at a time, the fifth is
/// [`RegionError::TooManyReadLocks`]. It is not recursive.
///
/// # Examples
/// ```
/// use commonhold::{Access, RwLock, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-typed-rwlock-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// space.create("limits", RwLock::<[u32; 3]>::SIZE)?;
/// let mapping = space.map("limits", Access::ReadWrite)?;
/// let limits = mapping.open::<RwLock<[u32; 3]>>(0)?;
/// limits.write().map_err(|error| error.to_string())?.set(&[10, 20, 30])?;
/// let guard = limits.read().map_err(|error| error.to_string())?;
/// assert_eq!(guard.get()?, [10, 20, 30]);
/// # drop(guard);
/// # drop(mapping);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RwLock<'a, T> {
    pub(super) lock: RecordLock<'a>,
    pub(super) value: Value<'a, T>,
}

impl<T> Clone for RwLock<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for RwLock<'_, T> {}

/// The lock alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordLock<'a> {
    pub(super) mapping: &'a Mapping,
    words: &'a [AtomicU64; record_words::RW_LOCK],
    at: Offset,
    near: Near<'a>,
}

impl<'a> Readable<'a> for RecordLock<'a> {
    type Shares = RecordShares<'a, LinuxPlatform>;

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
        self.near.view().record_lock(self.words, self.at, self.mapping.handle())
    }
}

impl<'a, T: Plain> Record<'a> for RwLock<'a, T> {
    const SIZE: u64 = Words::<T>::SIZE;

    fn open(mapping: &'a Mapping, offset: u64) -> Result<Self, RegionError> {
        let opened = open::<T, _>(mapping, offset, RecordKind::RwLock)?;
        let near = mapping.attachment().near();
        let lock = RecordLock { mapping, words: opened.words, at: opened.at, near };
        Ok(Self { lock, value: Value::of(opened.data) })
    }
}

impl<T: Plain> RwLock<'_, T> {
    /// Bytes that it takes, a multiple of 8.
    pub const SIZE: u64 = Words::<T>::SIZE;
    /// Where in them its `T` begins.
    pub const DATA: u64 = Words::<T>::DATA;
}

impl<'a, T: Plain> RwLock<'a, T> {
    /// Takes the lock together with other readers, waiting as long as it takes.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`] hands over a guard under which the data may be half changed; only a writer
    /// can repair them. [`LockError::Deadlock`] if this thread writes; [`LockError::Unrecoverable`];
    /// [`RegionError::TooManyReadLocks`].
    #[inline(always)]
    pub fn read(&self) -> Result<RwLockReadGuard<'a, T>, LockError<RwLockReadGuard<'a, T>>> {
        let asked = match self.lock.read_quickly() {
            Some(hold) => Ok((hold, Taken::Clean)),
            None => self.read_until(None),
        };
        handed_over(asked, |hold| self.reading(hold))
    }

    /// As [`read`](Self::read), but does not wait.
    ///
    /// # Errors
    /// [`LockError::TimedOut`] if somebody living writes.
    pub fn try_read(&self) -> Result<RwLockReadGuard<'a, T>, LockError<RwLockReadGuard<'a, T>>> {
        handed_over(self.read_until(Some(0)), |hold| self.reading(hold))
    }

    /// As [`read`](Self::read), but waits so long at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`].
    pub fn read_for(
        &self,
        timeout: Duration,
    ) -> Result<RwLockReadGuard<'a, T>, LockError<RwLockReadGuard<'a, T>>> {
        let deadline = self.lock.mapping.attachment().deadline(timeout);
        handed_over(self.read_until(Some(deadline)), |hold| self.reading(hold))
    }

    #[cold]
    fn read_until(self, deadline: Option<u64>) -> Result<(Hold<'a>, Taken), Refusal> {
        let me = self.lock.mapping.attachment().me()?;
        self.lock.read_slowly(&me, deadline).map_err(|error| match error {
            sync::LockError::TooManyReaders => {
                RegionError::TooManyReadLocks { most: thread_word::READING_COUNT }.into()
            }
            error => refusal(error),
        })
    }

    #[inline(always)]
    fn reading(&self, hold: Hold<'a>) -> RwLockReadGuard<'a, T> {
        RwLockReadGuard { reading: Reading::new(self.lock, hold), value: self.value }
    }

    /// Takes the lock alone, waiting as long as it takes.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`] hands over the guard of a lock whose writer died;
    /// [`LockError::Deadlock`] if this thread has the lock, to read or to write;
    /// [`LockError::Unrecoverable`].
    #[inline(always)]
    pub fn write(&self) -> Result<RwLockWriteGuard<'a, T>, LockError<RwLockWriteGuard<'a, T>>> {
        let near = self.lock.near;
        let asked = match near.known_me() {
            Some(me) if self.lock.core().write_quickly(&me, near.view()) => {
                Ok((me.owner(), Taken::Clean))
            }
            _ => self.write_until(None),
        };
        handed_over(asked, |owner| self.guard(owner))
    }

    /// As [`write`](Self::write), but does not wait.
    ///
    /// # Errors
    /// [`LockError::TimedOut`] if somebody living has it.
    pub fn try_write(&self) -> Result<RwLockWriteGuard<'a, T>, LockError<RwLockWriteGuard<'a, T>>> {
        handed_over(self.write_until(Some(0)), |owner| self.guard(owner))
    }

    /// As [`write`](Self::write), but waits so long at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`].
    pub fn write_for(
        &self,
        timeout: Duration,
    ) -> Result<RwLockWriteGuard<'a, T>, LockError<RwLockWriteGuard<'a, T>>> {
        let deadline = self.lock.mapping.attachment().deadline(timeout);
        handed_over(self.write_until(Some(deadline)), |owner| self.guard(owner))
    }

    #[cold]
    fn write_until(self, deadline: Option<u64>) -> Result<(Owner, Taken), Refusal> {
        let attachment = self.lock.mapping.attachment();
        let me = attachment.me()?;
        let taken = self.lock.core().write(&me, attachment.my_view(), deadline).map_err(refusal)?;
        Ok((me.owner(), taken))
    }

    #[inline(always)]
    fn guard(&self, owner: Owner) -> RwLockWriteGuard<'a, T> {
        let (lock, fork) = (self.lock, self.lock.near.fork());
        let held = Held::new(lock.mapping, lock.core().writer(), owner, fork);
        RwLockWriteGuard { held, value: self.value }
    }

    /// Makes the lock as good as new. What it protects stays as it is.
    ///
    /// # Errors
    /// [`RegionError::TimedOut`] if somebody writes.
    pub fn reset(&self) -> Result<(), RegionError> {
        let view = self.lock.mapping.attachment().view()?;
        let held = |_| RegionError::TimedOut { name: self.lock.mapping.name().to_owned() };
        self.lock.core().writer().reset(view).map_err(held)
    }
}

/// A reader/writer lock, held together with other readers.
#[derive(Debug)]
#[must_use = "the lock is freed when its guard is dropped"]
pub struct RwLockReadGuard<'a, T> {
    reading: Reading<'a, RecordLock<'a>>,
    value: Value<'a, T>,
}

impl<T: Plain> RwLockReadGuard<'_, T> {
    /// As [`MutexGuard::get`](crate::MutexGuard::get).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn get(&self) -> Result<T, RegionError> {
        self.value.get(self.reading.mapping())
    }

    /// As [`MutexGuard::get_field`](crate::MutexGuard::get_field).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn get_field<F: Plain>(&self, field: Field<T, F>) -> Result<F, RegionError> {
        self.value.get_field(self.reading.mapping(), field)
    }
}

impl<T> RwLockReadGuard<'_, T> {
    /// Frees the lock, and says whether it still was this process's.
    ///
    /// # Errors
    /// [`RegionError::Fenced`] if this process was declared dead meanwhile, [`RegionError::Forked`].
    pub fn unlock(self) -> Result<(), RegionError> {
        self.reading.free()
    }
}

/// A reader/writer lock, held alone.
#[derive(Debug)]
#[must_use = "the lock is freed when its guard is dropped"]
pub struct RwLockWriteGuard<'a, T> {
    held: Held<'a>,
    value: Value<'a, T>,
}

impl<T: Plain> RwLockWriteGuard<'_, T> {
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

impl<T> RwLockWriteGuard<'_, T> {
    /// As [`LockGuard::mark_consistent`](crate::LockGuard::mark_consistent).
    ///
    /// # Errors
    /// As there.
    #[inline(always)]
    pub fn mark_consistent(&self) -> Result<(), RegionError> {
        self.held.mark_consistent()
    }

    /// As [`LockGuard::is_inconsistent`](crate::LockGuard::is_inconsistent).
    #[must_use]
    pub fn is_inconsistent(&self) -> bool {
        self.held.is_inconsistent()
    }

    /// As [`LockGuard::leave`](crate::LockGuard::leave).
    ///
    /// # Errors
    /// As there.
    pub fn leave(self) -> Result<(), RegionError> {
        self.held.free(Release::Inconsistent)
    }

    /// As [`LockGuard::unlock`](crate::LockGuard::unlock).
    ///
    /// # Errors
    /// As there.
    pub fn unlock(self) -> Result<(), RegionError> {
        self.held.free(Release::Done)
    }
}
