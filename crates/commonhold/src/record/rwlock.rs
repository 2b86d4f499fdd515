//! The reader/writer lock with its data.

use std::{
    fmt,
    marker::PhantomData,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use commonhold_host::LinuxPlatform;
use commonhold_layout::{LockWord, Offset, RecordKind, bias_entry, record_words};
use commonhold_space::{RecordShares, View, record_key};
use commonhold_sync as sync;
use commonhold_sync::{LockError as SyncError, MutexHold, ReadHold, Release, Taken};
use commonhold_window::Run;
use yoke::Yokeable;

use super::{Plan, Record, open, takes::takes};
use crate::{
    BoxError, LockResult, Mapping, Part, Plain, Reading as Reads, Recovered, RegionError, Writing,
    attachment::LockContext,
    data::{Gate, Span, reads, writes},
    lock::{
        Denied, Guard, Site,
        held::{Held, Holdable},
        reading::{Readable, Reading, after_repair, read_at_once, read_whole},
        take::{self, Exclusive, Repair},
    },
    region::{Handle, MappedRegion},
};

type Words<T> = Plan<T, { record_words::RW_LOCK }>;

/// A reader/writer lock, with the addresses of its words.
#[derive(Debug, Clone, Copy, Yokeable)]
pub(crate) struct RecordWords<'a> {
    region: &'a MappedRegion,
    context: LockContext<'a>,
    words: &'a [AtomicU64; record_words::RW_LOCK],
    at: Offset,
    /// The entry of a thread slot that serves a bias of its writer.
    entry: usize,
    /// The key that its readers write into their slots.
    key: u64,
}

impl<'a> Holdable<'a> for &'a RecordWords<'a> {
    type HeldHow = MutexHold<'a>;

    #[inline]
    fn site(self) -> Site<'a> {
        Site { region: self.region, at: Some(self.at) }
    }

    #[inline]
    fn context(self) -> &'a LockContext<'a> {
        &self.context
    }

    #[inline]
    fn writer(self) -> sync::Mutex<'a> {
        sync::Mutex::new(&self.words[0], self.at)
    }

    #[inline(always)]
    fn free_quickly(self, hold: MutexHold<'a>) -> bool {
        self.core().unlock_write_quickly(hold)
    }

    fn free_slowly(
        self,
        me: &sync::Thread<'a>,
        view: &View<LinuxPlatform>,
        held_by: LockWord,
        how: Release,
    ) -> Result<(), SyncError> {
        let hold = self.writer().hold(me, held_by);
        self.core().unlock_write_slowly(me, view, hold, how)
    }
}

impl<'a> Readable<'a> for &'a RecordWords<'a> {
    type Shares = RecordShares<'a, LinuxPlatform>;

    #[inline]
    fn core(self) -> sync::RwLock<'a, Self::Shares> {
        let shares = RecordShares::new(self.region.attachment().my_view(), self.region.handle());
        sync::RwLock::new(self.words, self.at, self.key, shares)
    }

    #[inline]
    fn entry(self) -> usize {
        self.entry
    }
}

/// The parts of a lock with its data, with their addresses.
#[derive(Debug, Clone, Copy, Yokeable)]
struct Found<'a> {
    words: RecordWords<'a>,
    data: Run<'a>,
}

/// A repair of the data of a lock.
type Repairer<T> = dyn Fn(&RwLockWriteGuard<'_, T>) -> Result<(), BoxError> + Send + Sync;

/// A reader/writer lock and the `T` that it protects, in the bytes of a region. It can be kept in a struct, cloned,
/// and sent to other threads; it keeps its region mapped.
///
/// If a writer dies, every thread that takes the lock, to read or to write, gets
/// [`LockError::OwnerDied`](crate::LockError::OwnerDied), until one repairs the data; readers can do that too. A
/// dead reader does not block writers. The death of a waiter does nothing.
///
/// A thread can read under four such locks at a time; the fifth is [`RegionError::TooManyReadLocks`]. The lock is
/// not recursive.
///
/// # Examples
/// ```
/// use commonhold::{RwLock, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-typed-rwlock-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let limits = space.record::<RwLock<[u32; 3]>>("limits")?.repaired_by(|limits| {
///     // A writer left the data half changed: begin anew.
///     limits.set([10; 3]);
///     Ok(())
/// });
/// limits.write()?.set([10, 20, 30]);
/// assert_eq!(limits.read()?.get(), [10, 20, 30]);
/// # drop(limits);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
pub struct RwLock<T: Plain> {
    found: Handle<Found<'static>>,
    repair: Option<Arc<Repairer<T>>>,
    of: PhantomData<fn() -> T>,
}

impl<T: Plain> Clone for RwLock<T> {
    fn clone(&self) -> Self {
        Self { found: self.found.clone(), repair: self.repair.clone(), of: PhantomData }
    }
}

impl<T: Plain> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLock").field("at", &self.words().at).finish_non_exhaustive()
    }
}

impl<T: Plain> Record for RwLock<T> {
    const SIZE: u64 = Words::<T>::SIZE;

    fn open(mapping: &Mapping, offset: u64) -> Result<Self, RegionError> {
        let found = MappedRegion::find(mapping.region(), |region| {
            let opened = open::<T, _>(region, offset, RecordKind::RwLock)?;
            let (words, at, context) = (opened.words, opened.at, region.attachment().context()?);
            let key = record_key(at, region.handle());
            let words = RecordWords { region, context, words, at, entry: bias_entry(at), key };
            Ok(Found { words, data: opened.data })
        })?;
        Ok(Self { found, repair: None, of: PhantomData })
    }
}

impl<'a, T: Plain> Exclusive<'a> for &'a RwLock<T> {
    type Held = LockWord;
    type Guard = RwLockWriteGuard<'a, T>;

    fn site(self) -> Site<'a> {
        self.words().site()
    }

    fn look(self) -> LockWord {
        self.words().writer().look()
    }

    #[cold]
    fn take(self, deadline: Option<u64>) -> Result<(LockWord, Taken), Denied> {
        let attachment = self.words().region.attachment();
        let me = attachment.me()?;
        Ok(self.words().write_slowly(&me, deadline)?)
    }

    #[inline(always)]
    fn guard(self, held: LockWord) -> RwLockWriteGuard<'a, T> {
        let words = self.words();
        let hold = words.writer().hold(&words.context.just_known(), held);
        RwLockWriteGuard { lock: self, held: Held::new(words, hold) }
    }

    fn repair(self) -> Option<Repair<'a, Self::Guard>> {
        match &self.repair {
            Some(repair) => Some(&**repair),
            None => None,
        }
    }
}

impl<T: Plain> RwLock<T> {
    /// Its size in bytes, a multiple of 8.
    pub const SIZE: u64 = Words::<T>::SIZE;
    /// The offset of its `T` in these bytes.
    pub const DATA: u64 = Words::<T>::DATA;

    #[inline(always)]
    pub(super) fn words(&self) -> &RecordWords<'_> {
        &self.found.get().words
    }

    #[inline(always)]
    pub(super) fn data(&self) -> Run<'_> {
        self.found.get().data
    }

    pub(super) fn deadline(&self, timeout: Duration) -> Option<u64> {
        Some(self.words().region.attachment().deadline(timeout))
    }

    /// The same lock, with a repair of its data. Every method that takes the lock by this handle, also to read,
    /// repairs inconsistent data first. If the repair fails, or panics, the lock stays inconsistent.
    #[must_use]
    pub fn repaired_by(
        self,
        repair: impl Fn(&RwLockWriteGuard<'_, T>) -> Result<(), BoxError> + Send + Sync + 'static,
    ) -> Self {
        Self { repair: Some(Arc::new(repair)), ..self }
    }

    /// Calls `attempt`, which reads, after the handle's own repair if that is needed.
    pub(super) fn after_repair<R>(
        &self,
        deadline: Option<u64>,
        mut attempt: impl FnMut() -> LockResult<R>,
    ) -> LockResult<R> {
        match &self.repair {
            None => attempt(),
            Some(repair) => after_repair(attempt, || {
                take::repairing(self, deadline, |guard| repair(guard)).map(drop)
            }),
        }
    }

    /// Takes the lock together with other readers, and waits for it without a limit.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`](crate::LockError::OwnerDied) if a writer died, or left, in the middle of a change;
    /// [`Deadlock`](crate::LockError::Deadlock) if this thread writes;
    /// [`Unrecoverable`](crate::LockError::Unrecoverable); [`RegionError::TooManyReadLocks`].
    #[inline(always)]
    pub fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        match self.words().read_quickly() {
            Some(hold) => Ok(self.reading(hold)),
            None => self.read_until(None),
        }
    }

    #[inline(always)]
    fn read_until(&self, deadline: Option<u64>) -> LockResult<RwLockReadGuard<'_, T>> {
        match read_slowly(self, deadline) {
            Ok(hold) => Ok(self.reading(hold)),
            Err(refusal) => Err(*refusal),
        }
    }

    /// As [`read`](Self::read), but does not wait; `None` if a living thread writes.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn try_read(&self) -> LockResult<Option<RwLockReadGuard<'_, T>>> {
        let hold = self.after_repair(Some(0), || read_at_once(self.words()))?;
        Ok(hold.map(|hold| self.reading(hold)))
    }

    /// As [`read`](Self::read), but waits for `timeout` at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`](crate::LockError::TimedOut), and as for [`read`](Self::read).
    pub fn read_for(&self, timeout: Duration) -> LockResult<RwLockReadGuard<'_, T>> {
        self.read_until(self.deadline(timeout))
    }

    /// Takes the lock to read. If the last writer died in the middle of a change, `repair` makes the data
    /// consistent first, so that readers need not wait for another writer to do it.
    ///
    /// # Errors
    /// [`LockError::RepairFailed`](crate::LockError::RepairFailed);
    /// [`Deadlock`](crate::LockError::Deadlock); [`Unrecoverable`](crate::LockError::Unrecoverable).
    pub fn read_repairing<'a>(
        &'a self,
        mut repair: impl FnMut(&RwLockWriteGuard<'a, T>) -> Result<(), BoxError>,
    ) -> LockResult<RwLockReadGuard<'a, T>> {
        let attempt = || read_whole(self.words(), None).map_err(|refusal| *refusal);
        let mended = || take::repairing(self, None, &mut repair).map(drop);
        after_repair(attempt, mended).map(|hold| self.reading(hold))
    }

    #[inline(always)]
    fn reading<'a>(&'a self, hold: ReadHold<'a>) -> RwLockReadGuard<'a, T> {
        RwLockReadGuard { lock: self, reading: Reading::new(self.words(), hold) }
    }

    #[inline(always)]
    fn take_quickly(&self) -> Option<RwLockWriteGuard<'_, T>> {
        let words = self.words();
        words
            .write_quickly()
            .map(|hold| RwLockWriteGuard { lock: self, held: Held::new(words, hold) })
    }

    /// Takes the lock alone, and waits for it without a limit.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`](crate::LockError::OwnerDied) if a writer died, or left, in the middle of a change:
    /// the lock is free, and stays inconsistent until it is repaired. [`Deadlock`](crate::LockError::Deadlock) if
    /// this thread holds the lock, to read or to write; [`Unrecoverable`](crate::LockError::Unrecoverable).
    #[inline(always)]
    pub fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        match self.take_quickly() {
            Some(guard) => Ok(guard),
            None => self.take_until(None),
        }
    }

    /// Makes the lock as good as new. The data stay as they are.
    ///
    /// # Errors
    /// [`LockError::TimedOut`](crate::LockError::TimedOut) if a thread writes.
    pub fn reset(&self) -> LockResult<()> {
        let view = self.words().region.attachment().view()?;
        let reset = self.words().writer().reset(view);
        reset.map_err(|error| take::error(self, error.into()))
    }
}

takes!(
    RwLock,
    RwLockWriteGuard,
    as "[`write`](Self::write)",
    try_write,
    write_for,
    write_repairing,
    write_recover,
    write_recover_for
);

#[cold]
fn read_slowly<T: Plain>(
    lock: &RwLock<T>,
    deadline: Option<u64>,
) -> Result<ReadHold<'_>, Box<crate::LockError>> {
    let attempt = || read_whole(lock.words(), deadline).map_err(|refusal| *refusal);
    lock.after_repair(deadline, attempt).map_err(Box::new)
}

/// A reader/writer lock that this thread holds together with other readers.
///
/// # Examples
/// ```
/// use commonhold::{RwLock, RwLockReadGuard, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-rwlock-read-guard-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let limits = space.record::<RwLock<[u32; 2]>>("limits")?.repaired_by(|limits| {
///     limits.set([10, 20]);
///     Ok(())
/// });
/// let guard: RwLockReadGuard<'_, [u32; 2]> = limits.read()?;
/// println!("from {} to {}", guard.at(0)?.get(), guard.at(1)?.get());
/// guard.unlock()?;
/// # drop(limits);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[must_use = "the lock is freed when its guard is dropped"]
pub struct RwLockReadGuard<'a, T: Plain> {
    lock: &'a RwLock<T>,
    reading: Reading<'a, &'a RecordWords<'a>>,
}

impl<T: Plain> fmt::Debug for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLockReadGuard").field("lock", self.lock).finish_non_exhaustive()
    }
}

impl<T: Plain> RwLockReadGuard<'_, T> {
    #[inline]
    fn part(&self) -> Part<'_, T, Reads> {
        Part::new(Span::new(self.lock.data(), Gate::Context(self.reading.context())))
    }

    /// Frees the lock, and reports whether this process still held it.
    ///
    /// # Errors
    /// [`LockError::Fenced`](crate::LockError::Fenced) if this process was declared dead meanwhile;
    /// [`LockError::Forked`](crate::LockError::Forked).
    pub fn unlock(self) -> LockResult<()> {
        self.reading.free()
    }
}

reads!(['a, T: Plain] ['a, F: Plain, const N: usize] RwLockReadGuard<'a, T>, RwLockReadGuard<'a, [F; N]>, Reads);

/// A reader/writer lock that this thread holds alone.
///
/// # Examples
/// ```
/// use commonhold::{RwLock, RwLockWriteGuard, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-rwlock-write-guard-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let limits = space.record::<RwLock<[u32; 2]>>("limits")?.repaired_by(|limits| {
///     limits.set([10, 20]);
///     Ok(())
/// });
/// let guard: RwLockWriteGuard<'_, [u32; 2]> = limits.write()?;
/// guard.at(0)?.set(15);
/// guard.at(1)?.set(25);
/// guard.unlock()?; // reports, as dropping it cannot, whether both were written
/// # drop(limits);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[must_use = "the lock is freed when its guard is dropped"]
pub struct RwLockWriteGuard<'a, T: Plain> {
    lock: &'a RwLock<T>,
    held: Held<'a, &'a RecordWords<'a>>,
}

impl<T: Plain> fmt::Debug for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLockWriteGuard").field("lock", self.lock).finish_non_exhaustive()
    }
}

impl<T: Plain> RwLockWriteGuard<'_, T> {
    #[inline]
    fn part(&self) -> Part<'_, T> {
        Part::new(Span::new(self.lock.data(), Gate::Context(self.held.context())))
    }

    /// Frees the lock, and reports whether this process still owned it and everything it set was written.
    ///
    /// # Errors
    /// [`LockError::Fenced`](crate::LockError::Fenced) if this process was declared dead meanwhile;
    /// [`LockError::Forked`](crate::LockError::Forked).
    pub fn unlock(self) -> LockResult<()> {
        self.held.free(Release::Done)
    }

    /// Frees the lock and leaves it inconsistent: the data are half changed, and the next owner is told so.
    ///
    /// # Errors
    /// As for [`unlock`](Self::unlock).
    pub fn leave_inconsistent(self) -> LockResult<()> {
        self.held.free(Release::Inconsistent)
    }
}

reads!(['a, T: Plain] ['a, F: Plain, const N: usize] RwLockWriteGuard<'a, T>, RwLockWriteGuard<'a, [F; N]>, Writing);
writes!(['a, T: Plain] RwLockWriteGuard<'a, T>);

impl<T: Plain> Guard for RwLockWriteGuard<'_, T> {
    fn set_consistent(&self) -> LockResult<()> {
        self.held.set_consistent()
    }

    fn free(self, how: Release) -> LockResult<()> {
        self.held.free(how)
    }
}
