//! The reader/writer lock that every region has.

mod guards;

pub use guards::{LockGuard, ReadGuard, UpgradableGuard, UpgradedGuard};

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use commonhold_host::LinuxPlatform;
use commonhold_layout::{LockWord, Offset, bias_entry};
use commonhold_space::{RegionShares, View, region_key};
use commonhold_sync as sync;
use commonhold_sync::{LockError as SyncError, MutexHold, ReadHold, Release, Taken};
use yoke::Yokeable;

use super::{
    Denied, Recovered, Site,
    held::{Held, Holdable},
    reading::{Readable, Reading, read_at_once, read_whole},
    take::{self, Exclusive},
    upgradable::Upgradable,
};
use crate::{
    BoxError, LockResult, RegionError,
    attachment::LockContext,
    region::{Handle, MappedRegion},
};

/// A region's lock, with the addresses of its words.
#[derive(Debug, Clone, Copy, Yokeable)]
pub(crate) struct RegionWords<'a> {
    region: &'a MappedRegion,
    context: LockContext<'a>,
    words: &'a [AtomicU64; 3],
    at: Offset,
    /// The entry of a thread slot that serves a bias of its writer.
    entry: usize,
    /// The key that its readers write into their slots.
    key: u64,
}

impl<'a> Holdable<'a> for &'a RegionWords<'a> {
    type HeldHow = MutexHold<'a>;

    #[inline]
    fn site(self) -> Site<'a> {
        Site { region: self.region, at: None }
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

impl<'a> Readable<'a> for &'a RegionWords<'a> {
    type Shares = RegionShares<'a, LinuxPlatform>;

    #[inline]
    fn core(self) -> sync::RwLock<'a, Self::Shares> {
        let view = self.region.attachment().my_view();
        let shares = RegionShares::new(view, self.region.handle().region);
        sync::RwLock::new(self.words, self.at, self.key, shares)
    }

    #[inline]
    fn entry(self) -> usize {
        self.entry
    }

    fn is_counted(self, me: &sync::Thread<'a>) -> bool {
        self.region.attachment().counted.holds(self.region.handle(), me.owner())
    }
}

impl<'a> Exclusive<'a> for &'a RegionWords<'a> {
    type Held = LockWord;
    type Guard = LockGuard<'a>;

    fn site(self) -> Site<'a> {
        Holdable::site(self)
    }

    fn look(self) -> LockWord {
        self.writer().look()
    }

    #[cold]
    fn take(self, deadline: Option<u64>) -> Result<(LockWord, Taken), Denied> {
        let attachment = self.region.attachment();
        let me = attachment.me()?;
        if self.is_counted(&me) {
            // This thread would wait for itself. The lock detects that only for locks in the thread's `reading`
            // words.
            return Err(SyncError::Deadlock.into());
        }
        let (word, taken) = self.write_slowly(&me, deadline)?;
        if taken.is_owner_died() {
            self.forget_stamp();
        }
        Ok((word, taken))
    }

    #[inline(always)]
    fn guard(self, held: LockWord) -> LockGuard<'a> {
        LockGuard::new(Held::new(self, self.writer().hold(&self.context.just_known(), held)))
    }
}

impl<'a> RegionWords<'a> {
    pub(crate) fn new(region: &'a MappedRegion) -> Result<Self, RegionError> {
        let attachment = region.attachment();
        let (context, mapped) = (attachment.context()?, region.mapped());
        let words = attachment.my_view().lock_words(mapped).map_err(RegionError::Damaged)?;
        let (at, key) = (mapped.lock_at, region_key(mapped.handle));
        Ok(Self { region, context, words, at, entry: bias_entry(at), key })
    }

    #[inline]
    pub(crate) const fn region(&self) -> &'a MappedRegion {
        self.region
    }

    /// What the fast path of an access to the region's bytes reads of this process.
    #[inline]
    pub(crate) const fn context(&self) -> &LockContext<'a> {
        &self.context
    }

    fn deadline(&self, timeout: Duration) -> Option<u64> {
        Some(self.region.attachment().deadline(timeout))
    }

    /// Removes the time since when the lock is held.
    #[cold]
    fn forget_stamp(&self) {
        if let Ok(core) = self.region.attachment().core() {
            core.stamp(self.region.handle().region, 0);
        }
    }

    #[inline(always)]
    fn lock_quickly(&'a self) -> Option<LockGuard<'a>> {
        self.write_quickly().map(|hold| LockGuard::new(Held::new(self, hold)))
    }

    #[inline(always)]
    pub(crate) fn lock(&'a self) -> LockResult<LockGuard<'a>> {
        match self.lock_quickly() {
            Some(guard) => Ok(guard),
            None => self.lock_until(None),
        }
    }

    #[inline(always)]
    fn lock_until(&'a self, deadline: Option<u64>) -> LockResult<LockGuard<'a>> {
        match take::whole(self, deadline) {
            Ok(held) => Ok(self.guard(held)),
            Err(refusal) => Err(*refusal),
        }
    }

    pub(crate) fn try_lock(&'a self) -> LockResult<Option<LockGuard<'a>>> {
        take::whole_at_once(self)
    }

    pub(crate) fn lock_for(&'a self, timeout: Duration) -> LockResult<LockGuard<'a>> {
        self.lock_until(self.deadline(timeout))
    }

    pub(crate) fn lock_repairing(
        &'a self,
        repair: impl FnOnce(&LockGuard<'a>) -> Result<(), BoxError>,
    ) -> LockResult<LockGuard<'a>> {
        take::repairing(self, None, repair)
    }

    pub(crate) fn lock_recover(
        &'a self,
        timeout: Option<Duration>,
    ) -> LockResult<Recovered<LockGuard<'a>>> {
        take::recovered(self, timeout.and_then(|timeout| self.deadline(timeout)))
    }

    #[inline(always)]
    pub(crate) fn read_lock(&'a self) -> LockResult<ReadGuard<'a>> {
        match self.read_quickly() {
            Some(hold) => Ok(self.reading(hold)),
            None => self.read_until(None),
        }
    }

    #[inline(always)]
    fn read_until(&'a self, deadline: Option<u64>) -> LockResult<ReadGuard<'a>> {
        match read_whole(self, deadline) {
            Ok(hold) => Ok(self.reading(hold)),
            Err(refusal) => Err(*refusal),
        }
    }

    pub(crate) fn try_read_lock(&'a self) -> LockResult<Option<ReadGuard<'a>>> {
        Ok(read_at_once(self)?.map(|hold| self.reading(hold)))
    }

    pub(crate) fn read_lock_for(&'a self, timeout: Duration) -> LockResult<ReadGuard<'a>> {
        self.read_until(self.deadline(timeout))
    }

    #[inline(always)]
    fn reading(&'a self, hold: ReadHold<'a>) -> ReadGuard<'a> {
        ReadGuard::new(Reading::new(self, hold))
    }

    pub(crate) fn upgradable_read(
        &'a self,
        timeout: Option<Duration>,
    ) -> LockResult<UpgradableGuard<'a>> {
        let deadline = timeout.and_then(|timeout| self.deadline(timeout));
        Upgradable::take(self, deadline).map(UpgradableGuard::new)
    }

    pub(crate) fn try_upgradable_read(&'a self) -> LockResult<Option<UpgradableGuard<'a>>> {
        Ok(Upgradable::take_at_once(self)?.map(UpgradableGuard::new))
    }

    pub(crate) fn reset(&'a self) -> LockResult<()> {
        let view = self.region.attachment().view()?;
        self.writer().reset(view).map_err(|error| take::error(self, error.into()))
    }
}

/// The lock of a region, as a handle: faster than [`Mapping::lock`](crate::Mapping::lock) where it is taken often.
///
/// # Examples
/// ```
/// use commonhold::{RegionLock, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-region-lock-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let counter = space.map_or_create("counter", 8)?;
/// let lock: RegionLock = counter.region_lock()?;
/// for _turn in 0..3 {
///     let guard = lock.lock()?;
///     counter.set(0, &(counter.get::<u64>(0)? + 1))?;
///     guard.unlock()?;
/// }
/// # drop((lock, counter));
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct RegionLock {
    words: Handle<RegionWords<'static>>,
}

impl RegionLock {
    pub(crate) fn new(region: &Arc<MappedRegion>) -> Result<Self, RegionError> {
        let words = MappedRegion::find::<RegionWords<'static>>(region, |it| RegionWords::new(it))?;
        Ok(Self { words })
    }

    #[inline(always)]
    fn words(&self) -> &RegionWords<'_> {
        self.words.get()
    }

    /// As [`Mapping::lock`](crate::Mapping::lock).
    ///
    /// # Errors
    /// As for that method.
    #[inline(always)]
    pub fn lock(&self) -> LockResult<LockGuard<'_>> {
        self.words().lock()
    }

    /// As [`Mapping::try_lock`](crate::Mapping::try_lock).
    ///
    /// # Errors
    /// As for that method.
    pub fn try_lock(&self) -> LockResult<Option<LockGuard<'_>>> {
        self.words().try_lock()
    }

    /// As [`Mapping::lock_for`](crate::Mapping::lock_for).
    ///
    /// # Errors
    /// As for that method.
    pub fn lock_for(&self, timeout: Duration) -> LockResult<LockGuard<'_>> {
        self.words().lock_for(timeout)
    }

    /// As [`Mapping::lock_repairing`](crate::Mapping::lock_repairing).
    ///
    /// # Errors
    /// As for that method.
    pub fn lock_repairing<'a>(
        &'a self,
        repair: impl FnOnce(&LockGuard<'a>) -> Result<(), BoxError>,
    ) -> LockResult<LockGuard<'a>> {
        self.words().lock_repairing(repair)
    }

    /// As [`Mapping::lock_recover`](crate::Mapping::lock_recover).
    ///
    /// # Errors
    /// As for that method.
    pub fn lock_recover(&self) -> LockResult<Recovered<LockGuard<'_>>> {
        self.words().lock_recover(None)
    }

    /// As [`Mapping::lock_recover_for`](crate::Mapping::lock_recover_for).
    ///
    /// # Errors
    /// As for that method.
    pub fn lock_recover_for(&self, timeout: Duration) -> LockResult<Recovered<LockGuard<'_>>> {
        self.words().lock_recover(Some(timeout))
    }

    /// As [`Mapping::read_lock`](crate::Mapping::read_lock).
    ///
    /// # Errors
    /// As for that method.
    #[inline(always)]
    pub fn read_lock(&self) -> LockResult<ReadGuard<'_>> {
        self.words().read_lock()
    }

    /// As [`Mapping::try_read_lock`](crate::Mapping::try_read_lock).
    ///
    /// # Errors
    /// As for that method.
    pub fn try_read_lock(&self) -> LockResult<Option<ReadGuard<'_>>> {
        self.words().try_read_lock()
    }

    /// As [`Mapping::read_lock_for`](crate::Mapping::read_lock_for).
    ///
    /// # Errors
    /// As for that method.
    pub fn read_lock_for(&self, timeout: Duration) -> LockResult<ReadGuard<'_>> {
        self.words().read_lock_for(timeout)
    }

    /// Takes the lock together with readers, as the only thread that may become the writer. So a thread can read
    /// first, and change the data only if that is needed, without another thread's change in between.
    ///
    /// # Errors
    /// As for [`Mapping::read_lock`](crate::Mapping::read_lock); [`LockError::Deadlock`](crate::LockError::Deadlock) if this thread holds the
    /// lock in any way.
    pub fn upgradable_read(&self) -> LockResult<UpgradableGuard<'_>> {
        self.words().upgradable_read(None)
    }

    /// As [`upgradable_read`](Self::upgradable_read), but does not wait; `None` if a living thread writes, or may
    /// become the writer.
    ///
    /// # Errors
    /// As for [`upgradable_read`](Self::upgradable_read).
    pub fn try_upgradable_read(&self) -> LockResult<Option<UpgradableGuard<'_>>> {
        self.words().try_upgradable_read()
    }

    /// As [`upgradable_read`](Self::upgradable_read), but waits for `timeout` at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`](crate::LockError::TimedOut), and as for [`upgradable_read`](Self::upgradable_read).
    pub fn upgradable_read_for(&self, timeout: Duration) -> LockResult<UpgradableGuard<'_>> {
        self.words().upgradable_read(Some(timeout))
    }

    /// As [`Mapping::reset_lock`](crate::Mapping::reset_lock).
    ///
    /// # Errors
    /// As for that method.
    pub fn reset(&self) -> LockResult<()> {
        self.words().reset()
    }
}
