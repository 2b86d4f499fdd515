//! The sequence lock with its data.

use std::{fmt, marker::PhantomData, mem::ManuallyDrop, sync::Arc, time::Duration};

use commonhold_host::LinuxPlatform;
use commonhold_layout::{LockWord, Owner, RecordKind, record_words};
use commonhold_space::View;
use commonhold_sync as sync;
use commonhold_sync::{LockError as SyncError, Release, Taken};
use commonhold_window::Run;
use yoke::Yokeable;

use super::{Field, Plan, Record, open, open_to_read, takes::takes};
use crate::{
    Access, BoxError, LockResult, Mapping, Part, Plain, Reading, Recovered, RegionError, Writing,
    attachment::LockContext,
    data::{Gate, Span, reads, writes},
    lock::{
        Denied, Guard, Site,
        change::{SeqChange, SeqWords},
        held::{Held, Holdable},
        reading::after_repair,
        take::{self, Exclusive, Repair},
    },
    region::{Handle, MappedRegion},
};

type Words<T> = Plan<T, { record_words::SEQ_LOCK }>;

/// The parts of a sequence lock, with their addresses.
#[derive(Debug, Clone, Copy, Yokeable)]
struct Found<'a> {
    words: SeqWords<'a>,
    data: Run<'a>,
}

impl<'a> Holdable<'a> for &'a Found<'a> {
    type HeldHow = Owner;

    fn site(self) -> Site<'a> {
        Site { region: self.words.region, at: Some(self.words.lock.writer().at()) }
    }

    #[inline]
    fn context(self) -> &'a LockContext<'a> {
        &self.words.context
    }

    #[inline]
    fn writer(self) -> sync::Mutex<'a> {
        self.words.lock.writer()
    }

    #[inline(always)]
    fn free_quickly(self, owner: Owner) -> bool {
        self.words.lock.writer().unlock_quickly(owner)
    }

    fn free_slowly(
        self,
        me: &sync::Thread<'a>,
        view: &View<LinuxPlatform>,
        _held_by: LockWord,
        how: Release,
    ) -> Result<(), SyncError> {
        self.words.lock.writer().unlock(me, view, how)
    }
}

/// A repair of the data of a lock.
type Repairer<T> = dyn Fn(&SeqLockGuard<'_, T>) -> Result<(), BoxError> + Send + Sync;

/// A `T` in the bytes of a region that readers read without writing anything, also through a read-only mapping.
/// They copy it, and copy it again if a writer has changed it meanwhile. So readers never see half of a change, and
/// never keep a writer waiting. Writers exclude each other.
///
/// It is for small data that are read often and changed seldom. If writers change the data faster than a reader can
/// copy them, the reader never gets a copy.
///
/// If a writer dies, the next writers get [`LockError::OwnerDied`](crate::LockError::OwnerDied) until one repairs
/// the data; readers get it too if the writer died in the middle of a change. The death of a reader does nothing.
///
/// # Examples
/// ```
/// use commonhold::{Access, SeqLock, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-seqlock-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let position = space.record::<SeqLock<[f64; 3]>>("position")?.repaired_by(|position| {
///     position.set([0.0; 3]);
///     Ok(())
/// });
/// position.write()?.set([1.0, 2.0, 3.0]);
///
/// let onlooker = space.map("position", Access::ReadOnly)?;
/// let theirs = onlooker.open::<SeqLock<[f64; 3]>>(0)?;
/// assert_eq!(theirs.read()?, [1.0, 2.0, 3.0]);
/// # drop((position, theirs, onlooker));
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
pub struct SeqLock<T: Plain> {
    found: Handle<Found<'static>>,
    repair: Option<Arc<Repairer<T>>>,
    of: PhantomData<fn() -> T>,
}

impl<T: Plain> Clone for SeqLock<T> {
    fn clone(&self) -> Self {
        Self { found: self.found.clone(), repair: self.repair.clone(), of: PhantomData }
    }
}

impl<T: Plain> fmt::Debug for SeqLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeqLock").field("at", &self.site().at).finish_non_exhaustive()
    }
}

/// Through a read-only mapping it is opened for reading, if it has been made.
impl<T: Plain> Record for SeqLock<T> {
    const SIZE: u64 = Words::<T>::SIZE;

    fn open(mapping: &Mapping, offset: u64) -> Result<Self, RegionError> {
        let found = MappedRegion::find(mapping.region(), |region| {
            let opened = match region.access() {
                Access::ReadWrite => open::<T, _>(region, offset, RecordKind::SeqLock)?,
                Access::ReadOnly => open_to_read::<T, _>(region, offset, RecordKind::SeqLock)?,
            };
            let lock = sync::SeqLock::new(opened.words, opened.at);
            let context = region.attachment().context()?;
            Ok(Found { words: SeqWords { region, context, lock }, data: opened.data })
        })?;
        Ok(Self { found, repair: None, of: PhantomData })
    }
}

impl<'a, T: Plain> Exclusive<'a> for &'a SeqLock<T> {
    type Held = (Owner, sync::Writing);
    type Guard = SeqLockGuard<'a, T>;

    fn site(self) -> Site<'a> {
        self.found.get().site()
    }

    fn look(self) -> LockWord {
        self.words().lock.writer().look()
    }

    #[cold]
    fn take(self, deadline: Option<u64>) -> Result<((Owner, sync::Writing), Taken), Denied> {
        let SeqWords { region, lock, .. } = self.words();
        region.writable()?;
        let attachment = region.attachment();
        let me = attachment.me()?;
        let (taken, writing) = lock.write(&me, attachment.my_view(), deadline)?;
        Ok(((me.owner(), writing), taken))
    }

    fn guard(self, (owner, writing): (Owner, sync::Writing)) -> SeqLockGuard<'a, T> {
        let found = self.found.get();
        SeqLockGuard {
            change: SeqChange::new(&found.words, writing),
            held: Held::new(found, owner),
            of: PhantomData,
        }
    }

    fn repair(self) -> Option<Repair<'a, Self::Guard>> {
        match &self.repair {
            Some(repair) => Some(&**repair),
            None => None,
        }
    }
}

impl<T: Plain> SeqLock<T> {
    /// Its size in bytes, a multiple of 8.
    pub const SIZE: u64 = Words::<T>::SIZE;
    /// The offset of its `T` in these bytes.
    pub const DATA: u64 = Words::<T>::DATA;

    #[inline]
    fn words(&self) -> &SeqWords<'_> {
        &self.found.get().words
    }

    fn deadline(&self, timeout: Duration) -> Option<u64> {
        Some(self.words().region.attachment().deadline(timeout))
    }

    /// The same lock, with a repair of its data. Every method that takes the lock by this handle repairs
    /// inconsistent data first; so does every method that reads, if the mapping may be written. If the repair
    /// fails, or panics, the lock stays inconsistent.
    #[must_use]
    pub fn repaired_by(
        self,
        repair: impl Fn(&SeqLockGuard<'_, T>) -> Result<(), BoxError> + Send + Sync + 'static,
    ) -> Self {
        Self { repair: Some(Arc::new(repair)), ..self }
    }

    /// A copy of the data. Copies again, and waits, until no writer has changed the data during the copy.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`](crate::LockError::OwnerDied) if a writer died, or left, in the middle of a change;
    /// [`LockError::Unrecoverable`](crate::LockError::Unrecoverable) if an owner gave the lock up after that;
    /// [`LockError::Deadlock`](crate::LockError::Deadlock) if this thread is in the middle of a change itself.
    #[inline]
    pub fn read(&self) -> LockResult<T> {
        self.copied(None, |part| part.get())
    }

    /// As [`read`](Self::read), but does not wait; `None` if a living writer is in the middle of a change.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn try_read(&self) -> LockResult<Option<T>> {
        self.after_repair(Some(0), || match self.copy(Some(0), |part| part.get()) {
            Ok(value) => Ok(Some(value)),
            Err(Denied::Sync(SyncError::TimedOut)) => Ok(None),
            Err(denied) => Err(take::error(self, denied)),
        })
    }

    /// As [`read`](Self::read), but waits for `timeout` at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`](crate::LockError::TimedOut), and as for [`read`](Self::read).
    pub fn read_for(&self, timeout: Duration) -> LockResult<T> {
        self.copied(self.deadline(timeout), |part| part.get())
    }

    /// As [`read`](Self::read), but into a box, for large data.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn read_boxed(&self) -> LockResult<Box<T>> {
        self.copied(None, |part| part.get_boxed())
    }

    /// As [`read`](Self::read), but copies one [field](crate::field) only.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    #[inline]
    pub fn read_field<F: Plain>(&self, field: Field<T, F>) -> LockResult<F> {
        self.copied(None, |part| part.field(field).get())
    }

    #[inline]
    fn copied<R>(
        &self,
        deadline: Option<u64>,
        copy: impl Fn(Part<'_, T, Reading>) -> R,
    ) -> LockResult<R> {
        self.after_repair(deadline, || {
            self.copy(deadline, &copy).map_err(|denied| take::error(self, denied))
        })
    }

    #[inline]
    fn copy<R>(
        &self,
        deadline: Option<u64>,
        copy: impl Fn(Part<'_, T, Reading>) -> R,
    ) -> Result<R, Denied> {
        let Found { words: SeqWords { region, context, lock }, data } = self.found.get();
        let attachment = region.attachment();
        let view = attachment.view()?;
        let part = Part::new(Span::new(*data, Gate::Context(context)));
        Ok(lock.read(|| attachment.known_owner(), view, deadline, || copy(part))?)
    }

    /// Calls `attempt`, which reads, after the handle's own repair if that is needed and the mapping may be
    /// written.
    #[inline]
    fn after_repair<R>(
        &self,
        deadline: Option<u64>,
        mut attempt: impl FnMut() -> LockResult<R>,
    ) -> LockResult<R> {
        match &self.repair {
            Some(repair) if self.words().region.access() == Access::ReadWrite => {
                after_repair(attempt, || {
                    take::repairing(self, deadline, |guard| repair(guard)).map(drop)
                })
            }
            _ => attempt(),
        }
    }

    /// A writer has no fast path: it must read the sequence number first.
    #[inline]
    const fn take_quickly(&self) -> Option<SeqLockGuard<'_, T>> {
        None
    }

    /// Takes the lock to write, and waits for other writers without a limit. Readers go on until the first byte is
    /// written, and then wait until the guard is dropped.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`](crate::LockError::OwnerDied) if a writer died, or left, in the middle of a change:
    /// the lock is free, and stays inconsistent until it is repaired.
    /// [`LockError::Deadlock`](crate::LockError::Deadlock) if this thread writes;
    /// [`LockError::Unrecoverable`](crate::LockError::Unrecoverable); [`RegionError::ReadOnly`].
    pub fn write(&self) -> LockResult<SeqLockGuard<'_, T>> {
        self.take_until(None)
    }

    /// Makes the lock as good as new. The data stay as they are, and count as consistent.
    ///
    /// # Errors
    /// [`LockError::TimedOut`](crate::LockError::TimedOut) if a thread writes; [`RegionError::ReadOnly`].
    pub fn reset(&self) -> LockResult<()> {
        let SeqWords { region, lock, .. } = self.words();
        region.writable()?;
        let attachment = region.attachment();
        let me = attachment.me()?;
        lock.reset(&me, attachment.my_view()).map_err(|error| take::error(self, error.into()))
    }
}

takes!(
    SeqLock,
    SeqLockGuard,
    as "[`write`](Self::write)",
    try_write,
    write_for,
    write_repairing,
    write_recover,
    write_recover_for
);

/// A sequence lock that this thread holds to write. Its writes become visible all at once, when the guard is
/// dropped.
///
/// # Examples
/// ```
/// use commonhold::{SeqLock, SeqLockGuard, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-seqlock-guard-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let position = space.record::<SeqLock<[f64; 2]>>("position")?.repaired_by(|position| {
///     position.set([0.0; 2]);
///     Ok(())
/// });
/// let guard: SeqLockGuard<'_, [f64; 2]> = position.write()?;
/// guard.at(0)?.set(1.0);
/// guard.at(1)?.set(2.0);
/// guard.unlock()?; // readers see both, or neither
/// assert_eq!(position.read()?, [1.0, 2.0]);
/// # drop(position);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[must_use = "the lock is freed when its guard is dropped"]
pub struct SeqLockGuard<'a, T: Plain> {
    change: SeqChange<'a>,
    /// The guard drops it only after its writes are visible.
    held: Held<'a, &'a Found<'a>>,
    of: PhantomData<fn() -> T>,
}

impl<T: Plain> fmt::Debug for SeqLockGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeqLockGuard").field("held", &self.held).finish_non_exhaustive()
    }
}

impl<T: Plain> SeqLockGuard<'_, T> {
    #[inline]
    fn part(&self) -> Part<'_, T> {
        Part::new(Span::new(self.held.lock().data, Gate::Change(&self.change)))
    }

    /// Frees the lock and leaves it inconsistent: the data are half changed, and readers and the next writer are
    /// told so.
    ///
    /// # Errors
    /// As for [`unlock`](Self::unlock).
    pub fn leave_inconsistent(self) -> LockResult<()> {
        self.free(Release::Inconsistent)
    }

    /// Makes the writes visible, frees the lock, and reports whether this process still owned it and everything it
    /// set was written.
    ///
    /// # Errors
    /// [`LockError::Fenced`](crate::LockError::Fenced) if this process was declared dead meanwhile;
    /// [`LockError::Forked`](crate::LockError::Forked).
    pub fn unlock(self) -> LockResult<()> {
        self.free(Release::Done)
    }

    #[inline]
    fn finish(&self, how: Release) -> LockResult<()> {
        let lock = self.held.lock().words.lock;
        self.held.site().ask_live()?;
        if !lock.is_whole(how) {
            return Ok(());
        }
        lock.finish(self.change.writing()).map_err(|_| self.held.site().not_ours())
    }
}

reads!(['a, T: Plain] ['a, F: Plain, const N: usize] SeqLockGuard<'a, T>, SeqLockGuard<'a, [F; N]>, Writing);
writes!(['a, T: Plain] SeqLockGuard<'a, T>);

impl<T: Plain> Guard for SeqLockGuard<'_, T> {
    fn set_consistent(&self) -> LockResult<()> {
        self.held.set_consistent()
    }

    fn free(self, how: Release) -> LockResult<()> {
        let this = ManuallyDrop::new(self);
        let finished = this.finish(how);
        // Released even if `finish` failed: the lock is still ours unless others took it over.
        let how = if finished.is_ok() { how } else { Release::Inconsistent };
        finished.and(this.held.release(how))
    }
}

impl<T: Plain> Drop for SeqLockGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // Fails only if others have taken over the lock; dropping `held` detects that as well.
        let _ = self.finish(self.held.how());
    }
}
