//! A mutex on a bare word in the bytes of a region.

use std::{mem::ManuallyDrop, sync::Arc, time::Duration};

use commonhold_host::LinuxPlatform;
use commonhold_layout::LockWord;
use commonhold_space::View;
use commonhold_sync as sync;
use commonhold_sync::{MutexHold, Release, Taken};
use yoke::Yokeable;

use super::{
    Denied, Guard, Recovered, Site,
    held::{Held, Holdable},
    take::{self, Exclusive},
};
use crate::{
    BoxError, LockError, LockResult, RegionError,
    attachment::LockContext,
    region::{Handle, MappedRegion},
};

/// A mutex, with the address of its word.
#[derive(Debug, Clone, Copy, Yokeable)]
pub(crate) struct RawWords<'a> {
    region: &'a MappedRegion,
    mutex: sync::Mutex<'a>,
    /// The entry of a thread slot that serves a bias of this mutex.
    entry: usize,
    context: LockContext<'a>,
}

impl<'a> RawWords<'a> {
    pub(crate) fn new(
        region: &'a MappedRegion,
        mutex: sync::Mutex<'a>,
    ) -> Result<Self, RegionError> {
        let context = region.attachment().context()?;
        Ok(Self { region, mutex, entry: mutex.entry(), context })
    }

    #[inline]
    pub(crate) const fn region(&self) -> &'a MappedRegion {
        self.region
    }

    /// Takes the mutex if it is free and consistent.
    #[inline(always)]
    pub(crate) fn lock_quickly(&'a self) -> Option<RawMutexGuard<'a>> {
        let hold =
            self.context.known_me().and_then(|me| self.mutex.lock_by_entry(&me, self.entry))?;
        Some(RawMutexGuard::new(self, hold))
    }

    pub(crate) fn reset(&self) -> LockResult<()> {
        let view = self.region.attachment().view().map_err(LockError::from)?;
        self.mutex.reset(view).map_err(|error| take::error(self, error.into()))
    }
}

impl<'a> Holdable<'a> for &'a RawWords<'a> {
    type HeldHow = MutexHold<'a>;

    #[inline]
    fn site(self) -> Site<'a> {
        Site { region: self.region, at: Some(self.mutex.at()) }
    }

    #[inline]
    fn context(self) -> &'a LockContext<'a> {
        &self.context
    }

    #[inline]
    fn writer(self) -> sync::Mutex<'a> {
        self.mutex
    }

    #[inline(always)]
    fn free_quickly(self, hold: MutexHold<'a>) -> bool {
        self.mutex.unlock_biased(hold)
    }

    fn free_slowly(
        self,
        me: &sync::Thread<'a>,
        view: &View<LinuxPlatform>,
        held_by: LockWord,
        how: Release,
    ) -> Result<(), sync::LockError> {
        self.mutex.unlock_biased_slowly(me, view, self.mutex.hold(me, held_by), how)
    }
}

impl<'a> Exclusive<'a> for &'a RawWords<'a> {
    type Held = LockWord;
    type Guard = RawMutexGuard<'a>;

    fn site(self) -> Site<'a> {
        Holdable::site(self)
    }

    fn look(self) -> LockWord {
        self.mutex.look()
    }

    #[cold]
    fn take(self, deadline: Option<u64>) -> Result<(LockWord, Taken), Denied> {
        let attachment = self.region.attachment();
        let me = attachment.me()?;
        // The fast path may have failed only because the thread has used another space since.
        if let Some(hold) = self.mutex.lock_biased(&me) {
            return Ok((hold.word(), Taken::Clean));
        }
        let taken = self.mutex.lock_biased_slowly(&me, attachment.my_view(), deadline)?;
        Ok((me.owner().word(), taken))
    }

    #[inline(always)]
    fn guard(self, held: LockWord) -> RawMutexGuard<'a> {
        RawMutexGuard::new(self, self.mutex.hold(&self.context.just_known(), held))
    }
}

/// A mutex on a bare word in the bytes of a region. It has no data: its users decide what it protects. A
/// [`Mutex`](crate::Mutex) has its data with it.
///
/// # Examples
/// A row of accounts, each with a mutex of its own before its balance:
/// ```
/// use commonhold::{Access, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-raw-mutex-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let accounts = space.map_or_create("accounts", 100 * 16)?;
/// let account = 42;
/// let mutex = accounts.mutex(16 * account)?;
/// // A word is written in one piece and never half changed, so there is nothing to repair.
/// let guard = mutex.lock_repairing(|_| Ok(()))?;
/// let balance: u64 = accounts.get(16 * account + 8)?;
/// accounts.set(16 * account + 8, &(balance + 10))?;
/// guard.unlock()?;
/// # drop((mutex, accounts));
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct RawMutex {
    words: Handle<RawWords<'static>>,
}

impl RawMutex {
    pub(crate) fn new(region: &Arc<MappedRegion>, offset: u64) -> Result<Self, RegionError> {
        let words = MappedRegion::find(region, |region| {
            let (word, at) = region.word(offset)?;
            RawWords::new(region, sync::Mutex::new(word, at))
        })?;
        Ok(Self { words })
    }

    /// Takes the mutex, and waits for it without a limit.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`] if an owner died, or left, in the middle of a change: the mutex is free, and stays
    /// inconsistent. [`LockError::Deadlock`] if this thread holds it; [`LockError::Unrecoverable`].
    #[inline(always)]
    pub fn lock(&self) -> LockResult<RawMutexGuard<'_>> {
        let words = self.words.get();
        match words.lock_quickly() {
            Some(guard) => Ok(guard),
            None => match take::whole(words, None) {
                Ok(held) => Ok(words.guard(held)),
                Err(refusal) => Err(*refusal),
            },
        }
    }

    /// Takes the mutex without waiting; `None` if a living owner has it.
    ///
    /// # Errors
    /// As for [`lock`](Self::lock).
    pub fn try_lock(&self) -> LockResult<Option<RawMutexGuard<'_>>> {
        take::whole_at_once(self.words.get())
    }

    /// Takes the mutex, and waits for `timeout` at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`], and as for [`lock`](Self::lock).
    pub fn lock_for(&self, timeout: Duration) -> LockResult<RawMutexGuard<'_>> {
        let words = self.words.get();
        let deadline = words.region.attachment().deadline(timeout);
        match take::whole(words, Some(deadline)) {
            Ok(held) => Ok(words.guard(held)),
            Err(refusal) => Err(*refusal),
        }
    }

    /// Takes the mutex. If the last owner died in the middle of a change, `repair` makes the data consistent first.
    ///
    /// # Errors
    /// [`LockError::RepairFailed`], after which the mutex is free, and as inconsistent as before;
    /// [`LockError::Deadlock`]; [`LockError::Unrecoverable`].
    pub fn lock_repairing<'a>(
        &'a self,
        repair: impl FnOnce(&RawMutexGuard<'a>) -> Result<(), BoxError>,
    ) -> LockResult<RawMutexGuard<'a>> {
        let words = self.words.get();
        match words.lock_quickly() {
            Some(guard) => Ok(guard),
            None => take::repairing(words, None, repair),
        }
    }

    /// Takes the mutex in any state: the caller decides what to do with the data.
    ///
    /// # Errors
    /// [`LockError::Deadlock`]; [`LockError::Unrecoverable`].
    pub fn lock_recover(&self) -> LockResult<Recovered<RawMutexGuard<'_>>> {
        take::recovered(self.words.get(), None)
    }

    /// As [`lock_recover`](Self::lock_recover), but waits for `timeout` at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`], and as for [`lock_recover`](Self::lock_recover).
    pub fn lock_recover_for(&self, timeout: Duration) -> LockResult<Recovered<RawMutexGuard<'_>>> {
        let words = self.words.get();
        take::recovered(words, Some(words.region.attachment().deadline(timeout)))
    }

    /// Makes the mutex as good as new, after the caller has made the data anew.
    ///
    /// # Errors
    /// [`LockError::TimedOut`] if an owner has it.
    pub fn reset(&self) -> LockResult<()> {
        self.words.get().reset()
    }
}

/// A mutex that this thread holds. It stays in its thread: neither `Send` nor `Sync`.
///
/// # Examples
/// ```
/// use commonhold::{RawMutexGuard, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-raw-guard-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let pair = space.map_or_create("pair", 24)?;
/// let mutex = pair.mutex(0)?;
/// let guard: RawMutexGuard<'_> = mutex.lock_repairing(|_| {
///     // The second is written last.
///     let second: u64 = pair.get(16)?;
///     Ok(pair.set(8, &second)?)
/// })?;
/// pair.set(8, &7_u64)?;
/// pair.set(16, &7_u64)?;
/// guard.unlock()?;
/// # drop((mutex, pair));
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "the mutex is freed when its guard is dropped"]
pub struct RawMutexGuard<'a> {
    held: Held<'a, &'a RawWords<'a>>,
}

impl<'a> RawMutexGuard<'a> {
    #[inline(always)]
    fn new(words: &'a RawWords<'a>, hold: MutexHold<'a>) -> Self {
        Self { held: Held::new(words, hold) }
    }

    #[inline]
    pub(crate) const fn region(&self) -> &'a MappedRegion {
        self.held.lock().region
    }

    #[inline]
    pub(crate) fn context(&self) -> &'a LockContext<'a> {
        self.held.context()
    }

    #[inline]
    pub(crate) fn site(&self) -> Site<'a> {
        self.held.site()
    }

    /// Lends the mutex to `wait`, without a bias. `wait` frees it, and takes it again unless it fails.
    pub(crate) fn lend<R>(
        self,
        me: &sync::Thread<'_>,
        wait: impl FnOnce(&sync::Mutex<'a>) -> Result<R, sync::LockError>,
    ) -> Result<(Self, R), sync::LockError> {
        let lent = ManuallyDrop::new(self);
        let words = lent.held.lock();
        if !words.context.is_live_here() {
            return Err(sync::LockError::Fenced);
        }
        let hold = words.mutex.own(me, lent.held.hold())?;
        let result = wait(&words.mutex)?;
        Ok((Self::new(words, hold), result))
    }

    /// The word that it holds the mutex by. The mutex stays held.
    pub(crate) fn into_held(self) -> LockWord {
        ManuallyDrop::new(self).held.hold().word()
    }

    /// Frees the mutex, and reports whether this process still owned it.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if this process was declared dead meanwhile: its last writes may be lost;
    /// [`LockError::Forked`].
    #[inline]
    pub fn unlock(self) -> LockResult<()> {
        self.held.free(Release::Done)
    }

    /// Frees the mutex and leaves it inconsistent: the data are half changed, and the next owner is told so.
    ///
    /// # Errors
    /// As for [`unlock`](Self::unlock).
    pub fn leave_inconsistent(self) -> LockResult<()> {
        self.held.free(Release::Inconsistent)
    }
}

impl Guard for RawMutexGuard<'_> {
    fn set_consistent(&self) -> LockResult<()> {
        self.held.set_consistent()
    }

    fn free(self, how: Release) -> LockResult<()> {
        self.held.free(how)
    }
}
