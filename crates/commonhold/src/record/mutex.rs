//! The mutex that has its data with it.

use std::time::Duration;

use commonhold_layout::RecordKind;
use commonhold_sync as sync;

use super::{Field, Plain, Plan, Record, open, value::Value};
use crate::{LockError, Mapping, RawMutex, RawMutexGuard, RegionError};

type Words<T> = Plan<T, { commonhold_layout::record_words::MUTEX }>;

/// A mutex and the `T` that it protects, in the bytes of a region.
///
/// What the death of its holder does: whoever takes the mutex next is told so, by
/// [`LockError::OwnerDied`], and has it. The death of a waiter does nothing.
///
/// # Examples
/// ```
/// use commonhold::{Access, LockError, Mutex, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-typed-mutex-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// space.create("pair", Mutex::<[u64; 2]>::SIZE)?;
/// let mapping = space.map("pair", Access::ReadWrite)?;
/// let pair = mapping.open::<Mutex<[u64; 2]>>(0)?;
/// let guard = match pair.lock() {
///     Ok(guard) => guard,
///     Err(LockError::OwnerDied(guard)) => {
///         // Its last owner was killed in the middle of a change. Repair the data, then say so.
///         guard.set(&[0, 0])?;
///         guard.mark_consistent()?;
///         guard
///     }
///     Err(error) => return Err(error.to_string().into()),
/// };
/// guard.update(|pair| pair[0] += 1)?;
/// assert_eq!(guard.get()?, [1, 0]);
/// # drop(guard);
/// # drop(mapping);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
///
/// A guard belongs to its thread:
/// ```compile_fail,E0277
/// fn sent<T: Send>(_: T) {}
/// fn other(mutex: commonhold::Mutex<u64>) {
///     sent(mutex.lock());
/// }
/// ```
#[derive(Debug)]
pub struct Mutex<'a, T> {
    raw: RawMutex<'a>,
    value: Value<'a, T>,
}

impl<T> Clone for Mutex<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Mutex<'_, T> {}

impl<'a, T: Plain> Record<'a> for Mutex<'a, T> {
    const SIZE: u64 = Words::<T>::SIZE;

    fn open(mapping: &'a Mapping, offset: u64) -> Result<Self, RegionError> {
        let opened = open::<T, _>(mapping, offset, RecordKind::Mutex)?;
        let [word] = opened.words;
        let raw = RawMutex::of(mapping, commonhold_sync::Mutex::new(word, opened.at))?;
        Ok(Self { raw, value: Value::of(opened.data) })
    }
}

impl<T: Plain> Mutex<'_, T> {
    /// Bytes that it takes, a multiple of 8.
    pub const SIZE: u64 = Words::<T>::SIZE;
    /// Where in them its `T` begins.
    pub const DATA: u64 = Words::<T>::DATA;
}

impl<'a, T: Plain> Mutex<'a, T> {
    /// Takes the mutex, waiting as long as it takes.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`] hands over the guard of a mutex whose owner died;
    /// [`LockError::Deadlock`] if this thread has it; [`LockError::Unrecoverable`].
    #[inline(always)]
    pub fn lock(&self) -> Result<MutexGuard<'a, T>, LockError<MutexGuard<'a, T>>> {
        self.guarded(self.raw.lock())
    }

    /// Takes the mutex if that needs no waiting.
    ///
    /// # Errors
    /// [`LockError::TimedOut`] if somebody living holds it.
    pub fn try_lock(&self) -> Result<MutexGuard<'a, T>, LockError<MutexGuard<'a, T>>> {
        self.guarded(self.raw.try_lock())
    }

    /// Takes the mutex, waiting so long at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`].
    pub fn lock_for(
        &self,
        timeout: Duration,
    ) -> Result<MutexGuard<'a, T>, LockError<MutexGuard<'a, T>>> {
        self.guarded(self.raw.lock_for(timeout))
    }

    #[inline(always)]
    fn guarded(
        &self,
        taken: Result<RawMutexGuard<'a>, LockError<RawMutexGuard<'a>>>,
    ) -> Result<MutexGuard<'a, T>, LockError<MutexGuard<'a, T>>> {
        let value = self.value;
        match taken {
            Ok(raw) => Ok(MutexGuard { raw, value }),
            Err(error) => Err(error.map(|raw| MutexGuard { raw, value })),
        }
    }

    /// Makes the mutex as good as new. What it protects stays as it is.
    ///
    /// # Errors
    /// [`RegionError::TimedOut`] if somebody holds it.
    pub fn reset(&self) -> Result<(), RegionError> {
        self.raw.reset()
    }
}

/// A mutex, held: the way to what it protects.
#[derive(Debug)]
#[must_use = "the mutex is freed when its guard is dropped"]
pub struct MutexGuard<'a, T> {
    raw: RawMutexGuard<'a>,
    value: Value<'a, T>,
}

impl<'a, T> MutexGuard<'a, T> {
    pub(crate) const fn mapping(&self) -> &'a Mapping {
        self.raw.mapping()
    }

    /// Lends the mutex to `wait`, which frees it, and has taken it again unless it fails.
    pub(crate) fn lend<R>(
        self,
        me: &sync::Thread<'_>,
        wait: impl FnOnce(&sync::Mutex<'a>) -> Result<R, sync::LockError>,
    ) -> Result<(Self, R), sync::LockError> {
        let value = self.value;
        self.raw.lend(me, wait).map(|(raw, result)| (Self { raw, value }, result))
    }
}

impl<T: Plain> MutexGuard<'_, T> {
    /// A copy of the data.
    ///
    /// # Errors
    /// [`RegionError::Forked`].
    #[inline]
    pub fn get(&self) -> Result<T, RegionError> {
        self.value.get(self.raw.mapping())
    }

    /// Writes the data.
    ///
    /// # Errors
    /// [`RegionError::Fenced`] if this process was declared dead, [`RegionError::Forked`]; nothing has
    /// been written then.
    #[inline]
    pub fn set(&self, value: &T) -> Result<(), RegionError> {
        self.value.set(self.raw.mapping(), value)
    }

    /// Changes a copy of the data and writes that back. If `change` panics, nothing is written.
    ///
    /// # Errors
    /// As for [`set`](Self::set).
    #[inline]
    pub fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> Result<R, RegionError> {
        self.value.update(self.raw.mapping(), change)
    }

    /// A copy of one [field](crate::field).
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    #[inline]
    pub fn get_field<F: Plain>(&self, field: Field<T, F>) -> Result<F, RegionError> {
        self.value.get_field(self.raw.mapping(), field)
    }

    /// Writes one [field](crate::field).
    ///
    /// # Errors
    /// As for [`set`](Self::set).
    #[inline]
    pub fn set_field<F: Plain>(&self, field: Field<T, F>, value: &F) -> Result<(), RegionError> {
        self.value.set_field(self.raw.mapping(), field, value)
    }
}

impl<T> MutexGuard<'_, T> {
    /// As [`LockGuard::mark_consistent`](crate::LockGuard::mark_consistent).
    ///
    /// # Errors
    /// As there.
    #[inline(always)]
    pub fn mark_consistent(&self) -> Result<(), RegionError> {
        self.raw.mark_consistent()
    }

    /// As [`LockGuard::is_inconsistent`](crate::LockGuard::is_inconsistent).
    #[must_use]
    pub fn is_inconsistent(&self) -> bool {
        self.raw.is_inconsistent()
    }

    /// As [`LockGuard::leave`](crate::LockGuard::leave).
    ///
    /// # Errors
    /// As there.
    pub fn leave(self) -> Result<(), RegionError> {
        self.raw.leave()
    }

    /// As [`LockGuard::unlock`](crate::LockGuard::unlock).
    ///
    /// # Errors
    /// As there.
    pub fn unlock(self) -> Result<(), RegionError> {
        self.raw.unlock()
    }
}
