//! A mutex on a bare word in the bytes of a region.

use std::{marker::PhantomData, mem::ManuallyDrop, sync::Arc, thread, time::Duration};

use commonhold_layout::LockWord;
use commonhold_sync as sync;
use commonhold_sync::{MutexHold, Release, Taken};
use yoke::Yokeable;

use super::{
    Denied, Guard, Recovered, Site,
    held::release_by,
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

impl<'a> Exclusive<'a> for &'a RawWords<'a> {
    type Held = LockWord;
    type Guard = RawMutexGuard<'a>;

    fn site(self) -> Site<'a> {
        Site { region: self.region, at: Some(self.mutex.at()) }
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
    words: &'a RawWords<'a>,
    hold: MutexHold<'a>,
    /// As in [`Held`](super::held::Held).
    panicking: usize,
    not_send: PhantomData<*const ()>,
}

impl<'a> RawMutexGuard<'a> {
    #[inline(always)]
    fn new(words: &'a RawWords<'a>, hold: MutexHold<'a>) -> Self {
        let panicking = usize::from(thread::panicking());
        Self { words, hold, panicking, not_send: PhantomData }
    }

    #[inline]
    pub(crate) const fn region(&self) -> &'a MappedRegion {
        self.words.region
    }

    #[inline]
    pub(crate) const fn context(&self) -> &'a LockContext<'a> {
        &self.words.context
    }

    #[inline]
    pub(crate) fn site(&self) -> Site<'a> {
        self.words.site()
    }

    /// Lends the mutex to `wait`, without a bias. `wait` frees it, and takes it again unless it fails.
    pub(crate) fn lend<R>(
        self,
        me: &sync::Thread<'_>,
        wait: impl FnOnce(&sync::Mutex<'a>) -> Result<R, sync::LockError>,
    ) -> Result<(Self, R), sync::LockError> {
        let lent = ManuallyDrop::new(self);
        if !lent.words.context.is_live_here() {
            return Err(sync::LockError::Fenced);
        }
        let hold = lent.words.mutex.own(me, lent.hold)?;
        let result = wait(&lent.words.mutex)?;
        Ok((Self::new(lent.words, hold), result))
    }

    /// The word that it holds the mutex by. The mutex stays held.
    pub(crate) fn into_held(self) -> LockWord {
        ManuallyDrop::new(self).hold.word()
    }

    /// Frees the mutex, and reports whether this process still owned it.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if this process was declared dead meanwhile: its last writes may be lost;
    /// [`LockError::Forked`].
    #[inline]
    pub fn unlock(self) -> LockResult<()> {
        ManuallyDrop::new(self).release(Release::Done)
    }

    /// Frees the mutex and leaves it inconsistent: the data are half changed, and the next owner is told so.
    ///
    /// # Errors
    /// As for [`unlock`](Self::unlock).
    pub fn leave_inconsistent(self) -> LockResult<()> {
        ManuallyDrop::new(self).release(Release::Inconsistent)
    }

    #[inline(always)]
    pub(crate) fn release(&self, how: Release) -> LockResult<()> {
        if release_quickly(self.words, self.hold, how) {
            return Ok(());
        }
        release_slowly(self.words, self.hold.word(), how)
    }
}

impl Guard for RawMutexGuard<'_> {
    fn set_consistent(&self) -> LockResult<()> {
        self.site().ask_live()?;
        let me = self.words.region.attachment().me()?;
        let hold = self.words.mutex.hold(&me, self.hold.word());
        let marked = self.words.mutex.mark_consistent_biased(&me, hold);
        marked.map_err(|_| self.site().not_ours())
    }

    fn free(self, how: Release) -> LockResult<()> {
        ManuallyDrop::new(self).release(how)
    }
}

impl Drop for RawMutexGuard<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        let how = release_by(self.panicking);
        if !release_quickly(self.words, self.hold, how) {
            drop_slowly(self.words, self.hold.word(), how);
        }
    }
}

#[inline(always)]
fn release_quickly(words: &RawWords<'_>, hold: MutexHold<'_>, how: Release) -> bool {
    how == Release::Done && words.context.is_live_here() && words.mutex.unlock_biased(hold)
}

/// This and the next take the parts of a guard by value, and as few as they can: see `release` in `held.rs`.
#[cold]
fn release_slowly(words: &RawWords<'_>, held_by: LockWord, how: Release) -> LockResult<()> {
    let site = Site { region: words.region, at: Some(words.mutex.at()) };
    site.ask_live()?;
    let attachment = words.region.attachment();
    let me = attachment.me()?;
    let hold = words.mutex.hold(&me, held_by);
    let freed = words.mutex.unlock_biased_slowly(&me, attachment.my_view(), hold, how);
    freed.map_err(|_| site.not_ours())
}

#[cold]
fn drop_slowly(words: &RawWords<'_>, held_by: LockWord, how: Release) {
    // Fails only if this peer was declared dead; then others have taken over the lock.
    let _ = release_slowly(words, held_by, how);
}
