//! A value that is made once.

use std::{fmt, marker::PhantomData, mem::ManuallyDrop, time::Duration};

use commonhold_layout::{RecordKind, record_words};
use commonhold_sync as sync;
use commonhold_sync::{LockError as SyncError, Start};
use commonhold_window::Run;
use yoke::Yokeable;

use super::{Plan, Record, open};
use crate::{
    BoxError, LockError, LockResult, Mapping, Part, Plain, RegionError, RepairFailed, Writing,
    attachment::LockContext,
    data::{Gate, Span},
    lock::{Denied, Site},
    region::{Handle, MappedRegion},
};

type Words<T> = Plan<T, { record_words::ONCE }>;

/// The parts of a `OnceLock`, with their addresses.
#[derive(Debug, Clone, Copy, Yokeable)]
struct Found<'a> {
    region: &'a MappedRegion,
    context: LockContext<'a>,
    once: sync::Once<'a>,
    data: Run<'a>,
}

/// A `T` in the bytes of a region that one thread makes, and that all threads then read without a lock. It can be
/// kept in a struct, cloned, and sent to other threads; it keeps its region mapped.
///
/// If the thread that makes the value dies, the next thread gets the turn, and begins anew. The death of a waiter
/// does nothing, nor does the death of the maker once the value is made.
///
/// # Examples
/// ```
/// use commonhold::{OnceLock, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-once-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let seed = space.record::<OnceLock<u64>>("seed")?;
/// // Of all processes that run this line, one calls the function.
/// assert_eq!(seed.get_or_init(|| 42)?, 42);
/// assert_eq!(seed.get(), Some(42));
/// # drop(seed);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
pub struct OnceLock<T: Plain> {
    found: Handle<Found<'static>>,
    of: PhantomData<fn() -> T>,
}

impl<T: Plain> Clone for OnceLock<T> {
    fn clone(&self) -> Self {
        Self { found: self.found.clone(), of: PhantomData }
    }
}

impl<T: Plain> fmt::Debug for OnceLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnceLock").field("at", &self.site().at).finish_non_exhaustive()
    }
}

impl<T: Plain> Record for OnceLock<T> {
    const SIZE: u64 = Words::<T>::SIZE;

    fn open(mapping: &Mapping, offset: u64) -> Result<Self, RegionError> {
        let found = MappedRegion::find(mapping.region(), |region| {
            let opened = open::<T, _>(region, offset, RecordKind::Once)?;
            let [word] = opened.words;
            let once = sync::Once::new(word, opened.at);
            let context = region.attachment().context()?;
            Ok(Found { region, context, once, data: opened.data })
        })?;
        Ok(Self { found, of: PhantomData })
    }
}

/// The result of [`OnceLock::begin`]: the value, or the turn to make it.
///
/// # Examples
/// ```
/// use commonhold::{OnceLock, Space, Turn};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-turn-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let squares = space.record::<OnceLock<[u64; 4]>>("squares")?;
/// let made = match squares.begin()? {
///     Turn::Done(made) => made,
///     Turn::Mine(guard) => {
///         // Also if the one before was killed in the middle: it is made anew.
///         guard.complete(&[0, 1, 4, 9])?;
///         [0, 1, 4, 9]
///     }
/// };
/// # drop(squares);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[must_use]
pub enum Turn<'a, T: Plain> {
    /// The value is made: this is a copy.
    Done(T),
    /// The caller makes it.
    Mine(OnceLockGuard<'a, T>),
}

impl<T: Plain + fmt::Debug> fmt::Debug for Turn<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(value) => f.debug_tuple("Done").field(value).finish(),
            Self::Mine(guard) => f.debug_tuple("Mine").field(guard).finish(),
        }
    }
}

impl<T: Plain> OnceLock<T> {
    /// Its size in bytes, a multiple of 8.
    pub const SIZE: u64 = Words::<T>::SIZE;
    /// The offset of its `T` in these bytes.
    pub const DATA: u64 = Words::<T>::DATA;

    fn site(&self) -> Site<'_> {
        let Found { region, once, .. } = self.found.get();
        Site { region, at: Some(once.at()) }
    }

    #[inline]
    fn part(&self) -> Part<'_, T, Writing> {
        let Found { context, data, .. } = self.found.get();
        Part::new(Span::new(*data, Gate::Context(context)))
    }

    /// The value, if it is made.
    ///
    /// # Panics
    /// In a child made by `fork`.
    #[inline]
    #[must_use]
    pub fn get(&self) -> Option<T> {
        let Found { context, once, .. } = self.found.get();
        // In a forked child the memory is not mapped, and reading panics with that message.
        (context.is_forked() || once.is_done()).then(|| self.part().get())
    }

    /// The value. If it is not made yet, `make` makes it, and other threads that want it wait meanwhile.
    ///
    /// If a thread died, or panicked, while it made the value, another thread makes it anew.
    ///
    /// # Errors
    /// [`LockError::Deadlock`] if this thread is making it already; [`LockError::Fenced`]; [`LockError::Forked`].
    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> LockResult<T> {
        self.get_or_try_init(|| Ok(make()))
    }

    /// As [`get_or_init`](Self::get_or_init), but `make` can fail: then the value is not made, and the next thread
    /// gets the turn.
    ///
    /// # Errors
    /// [`LockError::RepairFailed`] with the error of `make`, and as for [`get_or_init`](Self::get_or_init).
    pub fn get_or_try_init(&self, make: impl FnOnce() -> Result<T, BoxError>) -> LockResult<T> {
        let guard = match self.begin()? {
            Turn::Done(value) => return Ok(value),
            Turn::Mine(guard) => guard,
        };
        let value = make().map_err(|error| {
            let place = *self.site().place(None);
            LockError::RepairFailed(Box::new(RepairFailed { place, error }))
        })?;
        guard.complete(&value)?;
        Ok(value)
    }

    /// Waits until the value is made, or the caller gets the turn to make it.
    ///
    /// # Errors
    /// [`LockError::Deadlock`] if this thread has the turn; [`LockError::Fenced`]; [`LockError::Forked`].
    #[inline]
    pub fn begin(&self) -> LockResult<Turn<'_, T>> {
        self.begin_until(None).map_err(|denied| self.error(denied))
    }

    /// As [`begin`](Self::begin), but does not wait; `None` if a living thread is making it.
    ///
    /// # Errors
    /// As for [`begin`](Self::begin).
    pub fn try_begin(&self) -> LockResult<Option<Turn<'_, T>>> {
        match self.begin_until(Some(0)) {
            Ok(turn) => Ok(Some(turn)),
            Err(Denied::Sync(SyncError::TimedOut)) => Ok(None),
            Err(denied) => Err(self.error(denied)),
        }
    }

    /// As [`begin`](Self::begin), but waits for `timeout` at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`], and as for [`begin`](Self::begin).
    pub fn begin_for(&self, timeout: Duration) -> LockResult<Turn<'_, T>> {
        let deadline = self.found.get().region.attachment().deadline(timeout);
        self.begin_until(Some(deadline)).map_err(|denied| self.error(denied))
    }

    #[cold]
    fn error(&self, denied: Denied) -> LockError {
        let owner = self.site().owner(|| self.found.get().once.look());
        self.site().error(denied, owner)
    }

    fn begin_until(&self, deadline: Option<u64>) -> Result<Turn<'_, T>, Denied> {
        let Found { region, once, .. } = self.found.get();
        let attachment = region.attachment();
        let me = attachment.me()?;
        match once.begin(&me, attachment.my_view(), deadline)? {
            Start::Done => Ok(Turn::Done(self.part().get())),
            Start::Mine(taken) => {
                let begun_before = taken.is_owner_died();
                Ok(Turn::Mine(OnceLockGuard { lock: self, begun_before, not_send: PhantomData }))
            }
        }
    }
}

/// The turn to make a value. Dropping it passes the turn to the next thread.
///
/// # Examples
/// ```
/// use commonhold::{OnceLock, OnceLockGuard, Space, Turn};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-once-guard-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let table = space.record::<OnceLock<u64>>("rows")?;
/// if let Turn::Mine(guard) = table.begin()? {
///     let guard: OnceLockGuard<'_, u64> = guard;
///     if guard.begun_before() {
///         eprintln!("an earlier thread began and was killed: undo what it made elsewhere first");
///     }
///     guard.complete(&1000)?;
/// }
/// assert_eq!(table.get(), Some(1000));
/// # drop(table);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[must_use = "the value is not made when the guard is dropped"]
pub struct OnceLockGuard<'a, T: Plain> {
    lock: &'a OnceLock<T>,
    begun_before: bool,
    /// The turn stays in its thread.
    not_send: PhantomData<*const ()>,
}

impl<T: Plain> fmt::Debug for OnceLockGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnceLockGuard").field("lock", self.lock).finish_non_exhaustive()
    }
}

impl<T: Plain> OnceLockGuard<'_, T> {
    /// Whether another thread began before, and died or gave up.
    #[must_use]
    pub const fn begun_before(&self) -> bool {
        self.begun_before
    }

    /// Writes the value, and publishes it to all threads.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if this process was declared dead, [`LockError::Forked`]; then the value is not made,
    /// or another thread has made it.
    pub fn complete(self, value: &T) -> LockResult<()> {
        let lock = self.lock;
        let Found { region, once, .. } = lock.found.get();
        lock.part().set_from(value);
        // Checked after the write: if this process was declared dead before it, the write was dropped.
        lock.site().ask_live()?;
        let attachment = region.attachment();
        let me = attachment.me()?;
        let made = once.complete(&me, attachment.my_view());
        made.map_err(|_| lock.site().not_ours())?;
        // The turn is used up: `drop` must not give it back.
        let _ = ManuallyDrop::new(self);
        Ok(())
    }
}

impl<T: Plain> Drop for OnceLockGuard<'_, T> {
    fn drop(&mut self) {
        let Found { region, once, .. } = self.lock.found.get();
        let attachment = region.attachment();
        // Fails only in a forked child, where the turn is the parent's, or if this peer was declared dead.
        if let Ok(me) = attachment.me() {
            let _ = once.give_back(&me, attachment.my_view());
        }
    }
}
