//! The sequence lock that has its data with it.

use std::{cell::Cell, convert::Infallible, fmt, mem::ManuallyDrop, time::Duration};

use commonhold_layout::{RecordKind, record_words};
use commonhold_sync as sync;
use commonhold_sync::{Release, Taken, Writing};

use super::{Field, Plain, Plan, Record, open, open_to_read, value::Value};
use crate::{
    Access, LockError, Mapping, RegionError,
    lock::{Refusal, handed_over, held::Held, refusal, refused},
};

type Words<T> = Plan<T, { record_words::SEQ_LOCK }>;

/// A `T` in the bytes of a region that can be read without writing anything: also through a mapping that is
/// read-only. Readers copy it, and copy it again if somebody has changed it meanwhile; so they never see half of
/// a change, and never keep a writer waiting. Writers exclude each other.
///
/// It is for small data that are read often and changed seldom. A reader whose copy takes longer than the pauses
/// between two changes gets none.
///
/// What a death does: that of a reader, nothing. That of a writer is told to the next writer, by
/// [`LockError::OwnerDied`]; if it died in the middle of a change, also to readers, by
/// [`LockError::WriterDied`], until a writer has made the data whole.
///
/// # Examples
/// ```
/// use commonhold::{Access, SeqLock, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-seqlock-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// space.create("position", SeqLock::<[f64; 3]>::SIZE)?;
/// let mapping = space.map("position", Access::ReadWrite)?;
/// let position = mapping.open::<SeqLock<[f64; 3]>>(0)?;
/// position.write().map_err(|error| error.to_string())?.set(&[1.0, 2.0, 3.0])?;
///
/// let onlooker = space.map("position", Access::ReadOnly)?;
/// let position = onlooker.open::<SeqLock<[f64; 3]>>(0)?;
/// assert_eq!(position.read()?, [1.0, 2.0, 3.0]);
/// # drop(mapping);
/// # drop(onlooker);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
pub struct SeqLock<'a, T> {
    mapping: &'a Mapping,
    lock: sync::SeqLock<'a>,
    value: Value<'a, T>,
}

impl<T> Clone for SeqLock<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SeqLock<'_, T> {}

impl<T> fmt::Debug for SeqLock<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeqLock").field("value", &self.value).finish_non_exhaustive()
    }
}

/// Through a read-only mapping it is opened to read, if somebody has made it.
impl<'a, T: Plain> Record<'a> for SeqLock<'a, T> {
    const SIZE: u64 = Words::<T>::SIZE;

    fn open(mapping: &'a Mapping, offset: u64) -> Result<Self, RegionError> {
        let opened = match mapping.access() {
            Access::ReadWrite => open::<T, _>(mapping, offset, RecordKind::SeqLock)?,
            Access::ReadOnly => open_to_read::<T, _>(mapping, offset, RecordKind::SeqLock)?,
        };
        let lock = sync::SeqLock::new(opened.words, opened.at);
        Ok(Self { mapping, lock, value: Value::of(opened.data) })
    }
}

impl<T: Plain> SeqLock<'_, T> {
    /// Bytes that it takes, a multiple of 8.
    pub const SIZE: u64 = Words::<T>::SIZE;
    /// Where in them its `T` begins.
    pub const DATA: u64 = Words::<T>::DATA;
}

impl<'a, T: Plain> SeqLock<'a, T> {
    /// A copy of the data. Waits until it has one that nobody has changed meanwhile.
    ///
    /// # Errors
    /// [`LockError::WriterDied`]; [`LockError::Unrecoverable`] if a writer gave up after that;
    /// [`LockError::Deadlock`] if this thread is in the middle of a change itself.
    #[inline]
    pub fn read(&self) -> Result<T, LockError<Infallible>> {
        self.read_until(None)
    }

    /// As [`read`](Self::read), but does not wait.
    ///
    /// # Errors
    /// [`LockError::TimedOut`] if somebody living is in the middle of a change.
    pub fn try_read(&self) -> Result<T, LockError<Infallible>> {
        self.read_until(Some(0))
    }

    /// As [`read`](Self::read), but waits so long at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`].
    pub fn read_for(&self, timeout: Duration) -> Result<T, LockError<Infallible>> {
        self.read_until(Some(self.mapping.attachment().deadline(timeout)))
    }

    #[inline]
    fn read_until(&self, deadline: Option<u64>) -> Result<T, LockError<Infallible>> {
        let attachment = self.mapping.attachment();
        let view = attachment.view()?;
        let copy = || self.value.get(self.mapping);
        let copied = self.lock.read(|| attachment.known_owner(), view, deadline, copy);
        Ok(copied.map_err(refused)??)
    }

    /// Takes the lock to write, waiting for other writers as long as it takes. Readers go on until the first
    /// byte is written, and then wait until the guard is dropped.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`] hands over the guard of a lock whose writer died; [`LockError::Deadlock`] if
    /// this thread writes; [`LockError::Unrecoverable`]; [`RegionError::ReadOnly`].
    #[inline]
    pub fn write(&self) -> Result<SeqLockGuard<'a, T>, LockError<SeqLockGuard<'a, T>>> {
        self.write_until(None)
    }

    /// As [`write`](Self::write), but does not wait.
    ///
    /// # Errors
    /// [`LockError::TimedOut`] if somebody living writes.
    pub fn try_write(&self) -> Result<SeqLockGuard<'a, T>, LockError<SeqLockGuard<'a, T>>> {
        self.write_until(Some(0))
    }

    /// As [`write`](Self::write), but waits so long at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`].
    pub fn write_for(
        &self,
        timeout: Duration,
    ) -> Result<SeqLockGuard<'a, T>, LockError<SeqLockGuard<'a, T>>> {
        self.write_until(Some(self.mapping.attachment().deadline(timeout)))
    }

    fn write_until(
        &self,
        deadline: Option<u64>,
    ) -> Result<SeqLockGuard<'a, T>, LockError<SeqLockGuard<'a, T>>> {
        handed_over(self.held(deadline), |(held, writing)| SeqLockGuard {
            lock: self.lock,
            value: self.value,
            writing: Cell::new(writing),
            held,
        })
    }

    fn held(&self, deadline: Option<u64>) -> Result<((Held<'a>, Writing), Taken), Refusal> {
        self.mapping.writable()?;
        let attachment = self.mapping.attachment();
        let me = attachment.me()?;
        let (taken, writing) =
            self.lock.write(&me, attachment.my_view(), deadline).map_err(refusal)?;
        let held =
            Held::new(self.mapping, self.lock.writer(), me.owner(), attachment.near().fork());
        Ok(((held, writing), taken))
    }

    /// Makes the lock as good as new. The data are as they are, and count as whole.
    ///
    /// # Errors
    /// [`RegionError::TimedOut`] if somebody writes; [`RegionError::ReadOnly`].
    pub fn reset(&self) -> Result<(), RegionError> {
        self.mapping.writable()?;
        let attachment = self.mapping.attachment();
        let me = attachment.me()?;
        self.lock.reset(&me, attachment.my_view()).map_err(|error| match error {
            sync::LockError::TimedOut => {
                RegionError::TimedOut { name: self.mapping.name().to_owned() }
            }
            _ => RegionError::Fenced,
        })
    }
}

/// A sequence lock, held to write. What is written becomes visible all at once, when it is dropped.
#[derive(Debug)]
#[must_use = "the lock is freed when its guard is dropped"]
pub struct SeqLockGuard<'a, T> {
    lock: sync::SeqLock<'a>,
    value: Value<'a, T>,
    writing: Cell<Writing>,
    /// Last: it is dropped after what was written is visible.
    held: Held<'a>,
}

impl<T: Plain> SeqLockGuard<'_, T> {
    /// Keeps readers out, before the first byte is written.
    #[inline]
    fn begin(&self) -> Result<(), RegionError> {
        if !self.writing.get().has_begun() {
            let me = self.held.mapping().attachment().me()?;
            let begun = self.lock.begin(&me, self.writing.get());
            self.writing.set(begun.map_err(|_| RegionError::Fenced)?);
        }
        Ok(())
    }

    /// A copy of the data, with what has been written under this guard.
    ///
    /// # Errors
    /// [`RegionError::Forked`].
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
        self.begin()?;
        self.value.set(self.held.mapping(), value)
    }

    /// As [`MutexGuard::update`](crate::MutexGuard::update).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> Result<R, RegionError> {
        let mut value = self.get()?;
        let result = change(&mut value);
        self.set(&value)?;
        Ok(result)
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
        self.begin()?;
        self.value.set_field(self.held.mapping(), field, value)
    }
}

impl<T> SeqLockGuard<'_, T> {
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

    /// Frees the lock with the data half changed: readers and the next writer are told so.
    ///
    /// # Errors
    /// As for [`unlock`](Self::unlock).
    pub fn leave(self) -> Result<(), RegionError> {
        self.release(Release::Inconsistent)
    }

    /// Makes what was written visible, frees the lock, and says whether it still was this process's.
    ///
    /// # Errors
    /// [`RegionError::Fenced`] if this process was declared dead meanwhile.
    pub fn unlock(self) -> Result<(), RegionError> {
        self.release(Release::Done)
    }

    fn release(self, how: Release) -> Result<(), RegionError> {
        let this = ManuallyDrop::new(self);
        let finished = this.finish(how);
        // Also if that failed: it is ours unless others took over.
        let freed = this.held.release(if finished.is_ok() { how } else { Release::Inconsistent });
        finished.and(freed)
    }

    #[inline]
    fn finish(&self, how: Release) -> Result<(), RegionError> {
        if self.held.mapping().attachment().is_forked() || !self.lock.is_whole(how) {
            return Ok(());
        }
        self.lock.finish(self.writing.get()).map_err(|_| RegionError::Fenced)
    }
}

impl<T> Drop for SeqLockGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // Fails only if others have taken over; then `held` finds out as well.
        let _ = self.finish(self.held.how());
    }
}
