//! A value that is made once.

use std::{convert::Infallible, fmt, marker::PhantomData, mem::ManuallyDrop, time::Duration};

use commonhold_layout::{RecordKind, record_words};
use commonhold_sync as sync;
use commonhold_sync::{Start, Taken};

use super::{Plain, Plan, Record, open, value::Value};
use crate::{LockError, Mapping, RegionError, lock::refused};

type Words<T> = Plan<T, { record_words::ONCE }>;

/// A `T` in the bytes of a region that one makes and all can read from then on, without a lock.
///
/// What a death does: if whoever makes the value dies, the next has its turn, and is told so by
/// [`LockError::OwnerDied`] ([`get_or_init`](Self::get_or_init) just begins anew). The death of one who
/// waits does nothing, nor does that of whoever made the value, once it is made.
///
/// # Examples
/// ```
/// use commonhold::{Access, Once, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-once-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// space.create("seed", Once::<u64>::SIZE)?;
/// let mapping = space.map("seed", Access::ReadWrite)?;
/// let seed = mapping.open::<Once<u64>>(0)?;
/// assert_eq!(seed.get()?, None);
/// // Of all processes that come here, one calls the function.
/// assert_eq!(seed.get_or_init(|| 42)?, 42);
/// assert_eq!(seed.get()?, Some(42));
/// # drop(mapping);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
pub struct Once<'a, T> {
    mapping: &'a Mapping,
    once: sync::Once<'a>,
    value: Value<'a, T>,
}

impl<T> Clone for Once<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Once<'_, T> {}

impl<T> fmt::Debug for Once<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").field("value", &self.value).finish_non_exhaustive()
    }
}

impl<'a, T: Plain> Record<'a> for Once<'a, T> {
    const SIZE: u64 = Words::<T>::SIZE;

    fn open(mapping: &'a Mapping, offset: u64) -> Result<Self, RegionError> {
        let opened = open::<T, _>(mapping, offset, RecordKind::Once)?;
        let [word] = opened.words;
        let once = sync::Once::new(word, opened.at);
        Ok(Self { mapping, once, value: Value::of(opened.data) })
    }
}

impl<T: Plain> Once<'_, T> {
    /// Bytes that it takes, a multiple of 8.
    pub const SIZE: u64 = Words::<T>::SIZE;
    /// Where in them its `T` begins.
    pub const DATA: u64 = Words::<T>::DATA;
}

/// Whose turn it is to make a value.
#[derive(Debug)]
#[must_use]
pub enum Turn<'a, T> {
    /// Nobody's: this is it.
    Done(T),
    /// The caller's.
    Mine(OnceGuard<'a, T>),
}

impl<'a, T: Plain> Once<'a, T> {
    /// The value, if it is made.
    ///
    /// # Errors
    /// [`RegionError::Forked`].
    #[inline]
    pub fn get(&self) -> Result<Option<T>, RegionError> {
        if self.mapping.attachment().is_forked() {
            return Err(RegionError::Forked);
        }
        if self.once.is_done() { self.value.get(self.mapping).map(Some) } else { Ok(None) }
    }

    /// The value; if nobody has made it, `make` does. Others that want it wait meanwhile.
    ///
    /// If whoever was making it died, or panicked, it is made anew.
    ///
    /// # Errors
    /// [`LockError::Deadlock`] if this thread is at it already; [`LockError::Region`].
    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> Result<T, LockError<Infallible>> {
        let guard = match self.begin() {
            Ok(Turn::Done(value)) => return Ok(value),
            Ok(Turn::Mine(guard)) | Err(LockError::OwnerDied(guard)) => guard,
            Err(LockError::Deadlock) => return Err(LockError::Deadlock),
            Err(LockError::WriterDied) => return Err(LockError::WriterDied),
            Err(LockError::TimedOut) => return Err(LockError::TimedOut),
            Err(LockError::Unrecoverable) => return Err(LockError::Unrecoverable),
            Err(LockError::Region(error)) => return Err(error.into()),
        };
        let value = make();
        guard.complete(&value)?;
        Ok(value)
    }

    /// Waits until the value is made, or is the caller's to make.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`] hands the turn over if somebody has begun before, and died or gave up;
    /// [`LockError::Deadlock`] if this thread has the turn.
    #[inline]
    pub fn begin(&self) -> Result<Turn<'a, T>, LockError<OnceGuard<'a, T>>> {
        match self.get()? {
            Some(value) => Ok(Turn::Done(value)),
            None => self.begin_until(None),
        }
    }

    /// As [`begin`](Self::begin), but does not wait.
    ///
    /// # Errors
    /// [`LockError::TimedOut`] if somebody living is making it.
    pub fn try_begin(&self) -> Result<Turn<'a, T>, LockError<OnceGuard<'a, T>>> {
        self.begin_until(Some(0))
    }

    /// As [`begin`](Self::begin), but waits so long at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`].
    pub fn begin_for(&self, timeout: Duration) -> Result<Turn<'a, T>, LockError<OnceGuard<'a, T>>> {
        self.begin_until(Some(self.mapping.attachment().deadline(timeout)))
    }

    #[cold]
    fn begin_until(
        &self,
        deadline: Option<u64>,
    ) -> Result<Turn<'a, T>, LockError<OnceGuard<'a, T>>> {
        let attachment = self.mapping.attachment();
        let me = attachment.me()?;
        let guard = || OnceGuard { once: *self, not_send: PhantomData };
        match self.once.begin(&me, attachment.my_view(), deadline).map_err(refused)? {
            Start::Done => Ok(Turn::Done(self.value.get(self.mapping)?)),
            Start::Mine(Taken::Clean) => Ok(Turn::Mine(guard())),
            Start::Mine(Taken::OwnerDied) => Err(LockError::OwnerDied(guard())),
        }
    }
}

/// The turn to make a value. Dropped, it is the next one's, who is told that somebody has begun before.
#[derive(Debug)]
#[must_use = "the value is not made when the guard is dropped"]
pub struct OnceGuard<'a, T> {
    once: Once<'a, T>,
    /// It is its thread's.
    not_send: PhantomData<*const ()>,
}

impl<T: Plain> OnceGuard<'_, T> {
    /// Writes the value, and makes it everybody's.
    ///
    /// # Errors
    /// [`RegionError::Fenced`] if this process was declared dead, [`RegionError::Forked`]; the value is not
    /// made then, or by somebody else.
    pub fn complete(self, value: &T) -> Result<(), RegionError> {
        let once = self.once;
        once.value.set(once.mapping, value)?;
        let attachment = once.mapping.attachment();
        let me = attachment.me()?;
        once.once.complete(&me, attachment.my_view()).map_err(|_| RegionError::Fenced)?;
        // Nothing is left to give back.
        let _ = ManuallyDrop::new(self);
        Ok(())
    }
}

impl<T> Drop for OnceGuard<'_, T> {
    fn drop(&mut self) {
        let attachment = self.once.mapping.attachment();
        // Fails only in a forked child, whose turn it is not, or if this peer was declared dead.
        if let Ok(me) = attachment.me() {
            let _ = self.once.once.give_back(&me, attachment.my_view());
        }
    }
}
