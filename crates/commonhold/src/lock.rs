//! The locks, with guards.
//!
//! A guard belongs to the thread that took it. If it was handed over by `OwnerDied`, it has to be
//! marked consistent or left; dropping it otherwise makes the lock unrecoverable. A panic while a
//! guard is held leaves its lock inconsistent, since the change may be half done.

use std::{marker::PhantomData, time::Duration};

use commonhold_host::LinuxPlatform;
use commonhold_layout::{LockFlags, RegionId};
use commonhold_space::{RegionShares, View};
use commonhold_sync as sync;
use commonhold_sync::{Hold, Release, Taken, Thread};

use crate::{LockError, Mapping, RegionError, attachment::region_error};

type Shares<'a> = RegionShares<'a, LinuxPlatform>;

/// A guard is its thread's: it is neither `Send` nor `Sync`.
type NotSend = PhantomData<*const ()>;

#[cold]
fn refused<G>(error: sync::LockError) -> LockError<G> {
    match error {
        sync::LockError::TimedOut => LockError::TimedOut,
        sync::LockError::Unrecoverable => LockError::Unrecoverable,
        sync::LockError::Deadlock => LockError::Deadlock,
        sync::LockError::TooManyReaders => RegionError::TooManyMappings.into(),
        _ => RegionError::Fenced.into(),
    }
}

#[cold]
fn freed(error: sync::LockError) -> RegionError {
    match error {
        sync::LockError::TimedOut => RegionError::TimedOut { name: String::new() },
        _ => RegionError::Fenced,
    }
}

#[inline]
fn graded<G>(taken: Taken, guard: G) -> Result<G, LockError<G>> {
    match taken {
        Taken::Clean => Ok(guard),
        Taken::OwnerDied => Err(LockError::OwnerDied(guard)),
    }
}

/// What every exclusive guard has.
#[derive(Debug)]
struct Held<'a> {
    view: &'a View<LinuxPlatform>,
    mutex: sync::Mutex<'a>,
    me: Thread<'a>,
    panicking: bool,
    freed: bool,
    not_send: NotSend,
}

impl<'a> Held<'a> {
    #[inline]
    fn new(view: &'a View<LinuxPlatform>, mutex: sync::Mutex<'a>, me: Thread<'a>) -> Self {
        let panicking = std::thread::panicking();
        Self { view, mutex, me, panicking, freed: false, not_send: PhantomData }
    }

    #[inline]
    fn free(&mut self, how: Release) -> Result<(), RegionError> {
        self.freed = true;
        if self.view.platform().is_forked_child() {
            return Err(RegionError::Forked);
        }
        self.mutex.unlock(&self.me, self.view, how).map_err(freed)
    }

    fn mark_consistent(&self) -> Result<(), RegionError> {
        if self.view.platform().is_forked_child() {
            return Err(RegionError::Forked);
        }
        self.mutex.mark_consistent(&self.me).map_err(freed)
    }

    fn is_inconsistent(&self) -> bool {
        !self.view.platform().is_forked_child()
            && self.mutex.look().flags().contains(LockFlags::INCONSISTENT)
    }
}

impl Drop for Held<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.freed {
            return;
        }
        let how = if std::thread::panicking() && !self.panicking {
            Release::Inconsistent
        } else {
            Release::Done
        };
        // Fails only if this peer was declared dead; then others have the lock already.
        let _ = self.free(how);
    }
}

/// The lock that every region has, with its words found.
#[derive(Debug, Clone, Copy)]
pub struct RegionLock<'a> {
    mapping: &'a Mapping,
    view: &'a View<LinuxPlatform>,
    lock: sync::RwLock<'a, Shares<'a>>,
    region: RegionId,
}

impl<'a> RegionLock<'a> {
    pub(crate) fn of(mapping: &'a Mapping) -> Result<Self, RegionError> {
        let core = mapping.attachment().core()?;
        let handle = mapping.handle();
        let lock = core.lock_of(handle).map_err(|error| region_error(error, mapping.name()))?;
        Ok(Self { mapping, view: core.view(), lock, region: handle.region })
    }

    /// See [`Mapping::lock`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn lock(&self) -> Result<LockGuard<'a>, LockError<LockGuard<'a>>> {
        self.lock_until(None)
    }

    /// See [`Mapping::try_lock`].
    ///
    /// # Errors
    /// As there.
    pub fn try_lock(&self) -> Result<LockGuard<'a>, LockError<LockGuard<'a>>> {
        self.lock_until(Some(0))
    }

    /// See [`Mapping::lock_for`].
    ///
    /// # Errors
    /// As there.
    pub fn lock_for(&self, timeout: Duration) -> Result<LockGuard<'a>, LockError<LockGuard<'a>>> {
        self.lock_until(Some(self.mapping.attachment().deadline(timeout)))
    }

    fn lock_until(&self, deadline: Option<u64>) -> Result<LockGuard<'a>, LockError<LockGuard<'a>>> {
        let me = self.mapping.attachment().me()?;
        let taken = self.lock.write(&me, self.view, deadline).map_err(refused)?;
        let held = Held::new(self.view, self.lock.writer(), me);
        graded(
            taken,
            LockGuard { held, mapping: self.mapping, region: self.region, stamped: false },
        )
    }

    /// See [`Mapping::read_lock`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn read_lock(&self) -> Result<ReadGuard<'a>, LockError<ReadGuard<'a>>> {
        self.read_until(None)
    }

    /// See [`Mapping::try_read_lock`].
    ///
    /// # Errors
    /// As there.
    pub fn try_read_lock(&self) -> Result<ReadGuard<'a>, LockError<ReadGuard<'a>>> {
        self.read_until(Some(0))
    }

    /// See [`Mapping::read_lock_for`].
    ///
    /// # Errors
    /// As there.
    pub fn read_lock_for(
        &self,
        timeout: Duration,
    ) -> Result<ReadGuard<'a>, LockError<ReadGuard<'a>>> {
        self.read_until(Some(self.mapping.attachment().deadline(timeout)))
    }

    #[inline]
    fn read_until(&self, deadline: Option<u64>) -> Result<ReadGuard<'a>, LockError<ReadGuard<'a>>> {
        let me = self.mapping.attachment().me()?;
        let (taken, hold) = self.lock.read(&me, self.view, deadline).map_err(refused)?;
        let guard = ReadGuard {
            view: self.view,
            lock: self.lock,
            me,
            hold,
            freed: false,
            not_send: PhantomData,
        };
        graded(taken, guard)
    }

    /// See [`Mapping::reset_lock`].
    ///
    /// # Errors
    /// As there.
    pub fn reset(&self) -> Result<(), RegionError> {
        self.lock
            .writer()
            .reset(self.mapping.attachment().view()?)
            .map_err(|_| RegionError::TimedOut { name: self.mapping.name().to_owned() })
    }
}

/// A region's lock, held alone.
#[derive(Debug)]
#[must_use = "the lock is freed when its guard is dropped"]
pub struct LockGuard<'a> {
    held: Held<'a>,
    mapping: &'a Mapping,
    region: RegionId,
    stamped: bool,
}

impl LockGuard<'_> {
    /// Says that what the lock protects has been repaired.
    ///
    /// # Errors
    /// [`RegionError::Fenced`] if this process was declared dead meanwhile.
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
        if let Ok(core) = self.mapping.attachment().core() {
            core.stamp(self.region, commonhold_host::unix_ms());
            self.stamped = true;
        }
    }

    /// Frees the lock, and leaves it inconsistent for the next.
    ///
    /// # Errors
    /// As for [`unlock`](Self::unlock).
    pub fn leave(mut self) -> Result<(), RegionError> {
        self.unstamp();
        self.held.free(Release::Inconsistent)
    }

    /// Frees the lock, and says whether it still was this process's.
    ///
    /// # Errors
    /// [`RegionError::Fenced`] if this process was declared dead meanwhile; nothing was changed then.
    pub fn unlock(mut self) -> Result<(), RegionError> {
        self.unstamp();
        self.held.free(Release::Done)
    }

    #[inline]
    fn unstamp(&mut self) {
        if std::mem::take(&mut self.stamped)
            && let Ok(core) = self.mapping.attachment().core()
        {
            core.stamp(self.region, 0);
        }
    }
}

impl Drop for LockGuard<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.unstamp();
    }
}

/// A region's lock, held together with other readers.
#[derive(Debug)]
#[must_use = "the lock is freed when its guard is dropped"]
pub struct ReadGuard<'a> {
    view: &'a View<LinuxPlatform>,
    lock: sync::RwLock<'a, Shares<'a>>,
    me: Thread<'a>,
    hold: Hold<'a>,
    freed: bool,
    not_send: NotSend,
}

impl ReadGuard<'_> {
    /// Frees the lock, and says whether it still was this process's.
    ///
    /// # Errors
    /// [`RegionError::Fenced`] if this process was declared dead meanwhile.
    pub fn unlock(mut self) -> Result<(), RegionError> {
        self.free()
    }

    #[inline]
    fn free(&mut self) -> Result<(), RegionError> {
        self.freed = true;
        if self.view.platform().is_forked_child() {
            return Err(RegionError::Forked);
        }
        self.lock.unread(&self.me, self.view, self.hold).map_err(freed)
    }
}

impl Drop for ReadGuard<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if !self.freed {
            // Fails only if this peer was declared dead; then its read locks count no longer.
            let _ = self.free();
        }
    }
}

/// A mutex in the bytes of a region.
#[derive(Debug, Clone, Copy)]
pub struct Mutex<'a> {
    mapping: &'a Mapping,
    mutex: sync::Mutex<'a>,
}

impl<'a> Mutex<'a> {
    pub(crate) const fn of(mapping: &'a Mapping, mutex: sync::Mutex<'a>) -> Self {
        Self { mapping, mutex }
    }

    /// Takes the mutex, waiting as long as it takes.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`] hands over the guard of a mutex whose owner died.
    #[inline]
    pub fn lock(&self) -> Result<MutexGuard<'a>, LockError<MutexGuard<'a>>> {
        self.lock_until(None)
    }

    /// Takes the mutex if that needs no waiting.
    ///
    /// # Errors
    /// [`LockError::TimedOut`] if somebody living holds it.
    pub fn try_lock(&self) -> Result<MutexGuard<'a>, LockError<MutexGuard<'a>>> {
        self.lock_until(Some(0))
    }

    /// Takes the mutex, waiting so long at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`].
    pub fn lock_for(&self, timeout: Duration) -> Result<MutexGuard<'a>, LockError<MutexGuard<'a>>> {
        self.lock_until(Some(self.mapping.attachment().deadline(timeout)))
    }

    #[inline]
    fn lock_until(
        &self,
        deadline: Option<u64>,
    ) -> Result<MutexGuard<'a>, LockError<MutexGuard<'a>>> {
        let attachment = self.mapping.attachment();
        let me = attachment.me()?;
        let view = attachment.my_view();
        let taken = self.mutex.lock(&me, view, deadline).map_err(refused)?;
        graded(taken, MutexGuard(Held::new(view, self.mutex, me)))
    }

    /// Makes the mutex as good as new, after the caller has repaired what it protects.
    ///
    /// # Errors
    /// [`RegionError::TimedOut`] if somebody holds it.
    pub fn reset(&self) -> Result<(), RegionError> {
        self.mutex
            .reset(self.mapping.attachment().view()?)
            .map_err(|_| RegionError::TimedOut { name: self.mapping.name().to_owned() })
    }
}

/// A mutex, held.
#[derive(Debug)]
#[must_use = "the mutex is freed when its guard is dropped"]
pub struct MutexGuard<'a>(Held<'a>);

impl MutexGuard<'_> {
    /// As [`LockGuard::mark_consistent`].
    ///
    /// # Errors
    /// As there.
    pub fn mark_consistent(&self) -> Result<(), RegionError> {
        self.0.mark_consistent()
    }

    /// As [`LockGuard::is_inconsistent`].
    #[must_use]
    pub fn is_inconsistent(&self) -> bool {
        self.0.is_inconsistent()
    }

    /// As [`LockGuard::leave`].
    ///
    /// # Errors
    /// As there.
    pub fn leave(mut self) -> Result<(), RegionError> {
        self.0.free(Release::Inconsistent)
    }

    /// As [`LockGuard::unlock`].
    ///
    /// # Errors
    /// As there.
    pub fn unlock(mut self) -> Result<(), RegionError> {
        self.0.free(Release::Done)
    }
}

/// An event in the bytes of a region: a number that moves, and can be waited for.
///
/// # Examples
/// The number is read before the condition is looked at: then no signal can be missed in between.
/// ```
/// use commonhold::{Access, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-event-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// # space.create("queue", 16)?;
/// # let neighbour = space.clone();
/// # let thread = std::thread::spawn(move || {
/// #     let theirs = neighbour.map("queue", Access::ReadWrite)?;
/// #     theirs.set(8, &1_u64)?;
/// #     theirs.event(0)?.signal()
/// # });
/// let queue = space.map("queue", Access::ReadWrite)?;
/// let event = queue.event(0)?;
/// loop {
///     let seen = event.sequence();
///     let filled: u64 = queue.get(8)?; // a neighbour sets it, and then signals
///     if filled > 0 {
///         break;
///     }
///     event.wait(seen, None)?; // returns at once if the event has moved since `sequence`
/// }
/// # thread.join().map_err(|_| "panic")??;
/// # drop(queue);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    mapping: &'a Mapping,
    event: sync::Event<'a>,
}

impl<'a> Event<'a> {
    pub(crate) const fn of(mapping: &'a Mapping, event: sync::Event<'a>) -> Self {
        Self { mapping, event }
    }

    /// The number now; pass it to [`wait`](Self::wait).
    #[must_use]
    pub fn sequence(&self) -> u64 {
        // In a forked child the memory is not mapped; any number will do, since waiting fails there.
        if self.mapping.attachment().is_forked() { 0 } else { self.event.sequence() }
    }

    /// Moves the number and wakes one who waits.
    ///
    /// # Errors
    /// [`RegionError::Forked`].
    pub fn signal(&self) -> Result<(), RegionError> {
        let attachment = self.mapping.attachment();
        self.event.signal(&attachment.me()?, attachment.view()?);
        Ok(())
    }

    /// Moves the number and wakes all who wait.
    ///
    /// # Errors
    /// [`RegionError::Forked`].
    pub fn broadcast(&self) -> Result<(), RegionError> {
        let attachment = self.mapping.attachment();
        self.event.broadcast(&attachment.me()?, attachment.view()?);
        Ok(())
    }

    /// Waits until the number is not `seen`, and returns it; `None` when the time is up.
    ///
    /// # Errors
    /// [`RegionError::Fenced`] if this process was declared dead, [`RegionError::Forked`].
    pub fn wait(&self, seen: u64, timeout: Option<Duration>) -> Result<Option<u64>, RegionError> {
        let attachment = self.mapping.attachment();
        let deadline = timeout.map(|timeout| attachment.deadline(timeout));
        match self.event.wait(&attachment.me()?, attachment.view()?, seen, deadline) {
            Ok(number) => Ok(Some(number)),
            Err(sync::LockError::TimedOut) => Ok(None),
            Err(error) => Err(freed(error)),
        }
    }
}
