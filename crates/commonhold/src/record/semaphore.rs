//! The semaphore as a record.

use std::{cell::Cell, fmt, marker::PhantomData, mem::ManuallyDrop, thread, time::Duration};

use commonhold_layout::{LockWord, RecordKind, record_words};
use commonhold_sync as sync;
use commonhold_sync::{Release, Taken};
use yoke::Yokeable;

use super::{Record, checked_size_with_places, open_places, size_with_places};
use crate::{
    BoxError, LockResult, Mapping, Recovered, RegionError,
    lock::{
        Denied, Guard, Site,
        take::{self, Exclusive},
    },
    region::{Handle, MappedRegion},
};

/// A semaphore, with the addresses of its words.
#[derive(Debug, Clone, Copy, Yokeable)]
struct Found<'a> {
    region: &'a MappedRegion,
    semaphore: sync::Semaphore<'a>,
}

/// Permits in the bytes of a region. Any thread may take them, one at a time.
///
/// A `Semaphore<4>` has four permits. The number is part of the record: to open it with another number is an error.
/// All zeros are a semaphore with all permits free, so there is no set-up in which a thread could die.
/// [`open_with`](Self::open_with) takes a number that is known only at run time.
///
/// Each permit names its holder, and no death loses it:
/// - If the holder dies, or panics, the permit is free, and inconsistent. Consistent permits are taken first. When
///   only inconsistent ones are free, a thread that wants a permit gets
///   [`LockError::OwnerDied`](crate::LockError::OwnerDied), and can repair what the permit stands for
///   ([`acquire_recover`](Self::acquire_recover)). The permit's [number](Permit::index) says which one it is.
/// - If a waiter dies, or a thread that gives a permit, nothing is lost.
///
/// If a permit stands for something that is used up, such as an item in a queue, its holder [spends](Permit::spend)
/// it. It comes back when any thread [gives](Self::give) one.
///
/// Waiters are served in no particular order.
///
/// # Examples
/// ```
/// use commonhold::{Semaphore, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-semaphore-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let scanners = space.record::<Semaphore<4>>("scanners")?;
/// let scanner = scanners.acquire_repairing(|scanner| {
///     println!("the user of scanner {} was killed: resetting it", scanner.index());
///     Ok(())
/// })?;
/// println!("scanner {} is mine", scanner.index());
/// assert!(scanners.available() < scanners.permits());
/// # drop(scanner);
/// # drop(scanners);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
///
/// A permit belongs to its thread:
/// ```compile_fail,E0277
/// fn sent<T: Send>(_: T) {}
/// fn other(semaphore: commonhold::Semaphore<4>) {
///     sent(semaphore.acquire());
/// }
/// ```
#[derive(Clone)]
pub struct Semaphore<const PERMITS: usize = 0> {
    found: Handle<Found<'static>>,
    permits: usize,
}

impl<const PERMITS: usize> fmt::Debug for Semaphore<PERMITS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore").field("permits", &self.permits).finish_non_exhaustive()
    }
}

impl<const PERMITS: usize> Record for Semaphore<PERMITS> {
    const SIZE: u64 = Semaphore::<PERMITS>::SIZE;

    fn open(mapping: &Mapping, offset: u64) -> Result<Self, RegionError> {
        const { assert!(Semaphore::<PERMITS>::SIZE > 0) };
        Self::new(mapping, offset, PERMITS)
    }
}

impl<const PERMITS: usize> Semaphore<PERMITS> {
    /// Its size in bytes, a multiple of 8.
    pub const SIZE: u64 = checked_size_with_places(record_words::SEMAPHORE, PERMITS);
}

impl Semaphore {
    /// The size in bytes of a semaphore with `permits` permits, a multiple of 8.
    #[must_use]
    pub const fn size_with(permits: usize) -> u64 {
        size_with_places(record_words::SEMAPHORE, permits)
    }

    /// Opens the semaphore at `offset`, with a number of permits that is known only at run time.
    ///
    /// # Errors
    /// As for [`Mapping::open`]; [`RegionError::BadCount`] if that number is not possible.
    pub fn open_with(mapping: &Mapping, offset: u64, permits: usize) -> Result<Self, RegionError> {
        Self::new(mapping, offset, permits)
    }
}

impl<'a, const PERMITS: usize> Exclusive<'a> for &'a Semaphore<PERMITS> {
    type Held = (sync::Permit, bool);
    type Guard = Permit<'a>;

    fn site(self) -> Site<'a> {
        self.found.get().site()
    }

    fn look(self) -> LockWord {
        // An error before a permit is taken is about none of the permits.
        LockWord::FREE
    }

    fn take(self, deadline: Option<u64>) -> Result<((sync::Permit, bool), Taken), Denied> {
        let Found { region, semaphore } = self.found.get();
        let attachment = region.attachment();
        let me = attachment.me()?;
        let (taken, permit) = semaphore.acquire(&me, attachment.my_view(), deadline)?;
        Ok(((permit, taken.is_owner_died()), taken))
    }

    fn guard(self, (permit, inconsistent): (sync::Permit, bool)) -> Permit<'a> {
        Permit {
            found: *self.found.get(),
            permit,
            inconsistent: Cell::new(inconsistent),
            panicking: thread::panicking(),
            not_send: PhantomData,
        }
    }
}

impl<'a> Found<'a> {
    fn site(&self) -> Site<'a> {
        Site { region: self.region, at: Some(self.semaphore.at()) }
    }
}

impl<const PERMITS: usize> Semaphore<PERMITS> {
    fn new(mapping: &Mapping, offset: u64, permits: usize) -> Result<Self, RegionError> {
        let found = MappedRegion::find(mapping.region(), |region| {
            let opened = open_places(region, offset, RecordKind::Semaphore, permits)?;
            let [event] = opened.words;
            let semaphore = sync::Semaphore::new(event, opened.at, opened.data.words());
            Ok(Found { region, semaphore })
        })?;
        Ok(Self { found, permits })
    }

    /// How many permits there are, free, held and spent.
    #[must_use]
    pub const fn permits(&self) -> usize {
        self.permits
    }

    /// How many permits are free now, not counting those of dead holders that can still be taken over.
    #[must_use]
    pub fn available(&self) -> usize {
        let Found { region, semaphore } = self.found.get();
        // In a forked child the memory is not mapped.
        if region.attachment().is_forked() { 0 } else { semaphore.available() }
    }

    fn deadline(&self, timeout: Duration) -> Option<u64> {
        Some(self.found.get().region.attachment().deadline(timeout))
    }

    fn acquire_until(&self, deadline: Option<u64>) -> LockResult<Permit<'_>> {
        match take::whole(self, deadline) {
            Ok((permit, _)) => Ok(self.guard((permit, false))),
            Err(refusal) => Err(*refusal),
        }
    }

    /// Takes a permit, and waits for one without a limit.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`](crate::LockError::OwnerDied) if the only free permits are inconsistent: a holder
    /// died, or left in the middle of a change. The permit stays free and inconsistent;
    /// [`Deadlock`](crate::LockError::Deadlock) if this thread holds all of them.
    pub fn acquire(&self) -> LockResult<Permit<'_>> {
        self.acquire_until(None)
    }

    /// Takes a permit without waiting; `None` if living threads hold all of them, or they are spent.
    ///
    /// # Errors
    /// As for [`acquire`](Self::acquire).
    pub fn try_acquire(&self) -> LockResult<Option<Permit<'_>>> {
        take::whole_at_once(self)
    }

    /// Takes a permit, and waits for `timeout` at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`](crate::LockError::TimedOut), and as for [`acquire`](Self::acquire).
    pub fn acquire_for(&self, timeout: Duration) -> LockResult<Permit<'_>> {
        self.acquire_until(self.deadline(timeout))
    }

    /// Takes a permit in any state, a consistent one first: the caller decides what to do about an inconsistent
    /// one.
    ///
    /// # Errors
    /// [`LockError::Deadlock`](crate::LockError::Deadlock) if this thread holds all of them.
    pub fn acquire_recover(&self) -> LockResult<Recovered<Permit<'_>>> {
        take::recovered(self, None)
    }

    /// As [`acquire_recover`](Self::acquire_recover), but waits for `timeout` at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`](crate::LockError::TimedOut), and as for [`acquire_recover`](Self::acquire_recover).
    pub fn acquire_recover_for(&self, timeout: Duration) -> LockResult<Recovered<Permit<'_>>> {
        take::recovered(self, self.deadline(timeout))
    }

    /// Takes a permit. If it is inconsistent, `repair` repairs what it stands for first.
    ///
    /// # Errors
    /// [`LockError::RepairFailed`](crate::LockError::RepairFailed), after which the permit is free, and as
    /// inconsistent as before; [`Deadlock`](crate::LockError::Deadlock).
    pub fn acquire_repairing<'a>(
        &'a self,
        repair: impl FnOnce(&Permit<'a>) -> Result<(), BoxError>,
    ) -> LockResult<Permit<'a>> {
        match take::recovered(self, None)? {
            Recovered::Consistent(permit) => Ok(permit),
            Recovered::Inconsistent(permit) => permit.repair(repair),
        }
    }

    /// Gives back one of the permits that any threads have [spent](Permit::spend).
    ///
    /// # Errors
    /// [`RegionError::NothingSpent`]; [`LockError::Fenced`](crate::LockError::Fenced) if this process was declared
    /// dead, [`LockError::Forked`](crate::LockError::Forked).
    ///
    /// # Examples
    /// The free places of a queue of three: a thread that puts an item in takes a permit and spends it; a thread
    /// that takes an item out gives one.
    /// ```
    /// use commonhold::{Semaphore, Space};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let url = format!("shm:doc-spend-{}", std::process::id());
    /// # let space = Space::open_or_format(&url)?;
    /// let room = space.record::<Semaphore<3>>("room")?;
    /// while let Some(place) = room.try_acquire()? {
    ///     // ... the item is put in ...
    ///     place.spend()?;
    /// }
    /// // ... one is taken out ...
    /// room.give()?;
    /// assert!(room.try_acquire()?.is_some());
    /// # drop(room);
    /// # drop(space);
    /// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn give(&self) -> LockResult<()> {
        let Found { region, semaphore } = self.found.get();
        let attachment = region.attachment();
        let me = attachment.me()?;
        let given = semaphore.give(&me, attachment.my_view());
        given.map_err(|error| self.site().error(error.into(), None))
    }
}

/// A permit of a semaphore. Dropping it frees it; when a panic drops it, it is also inconsistent.
///
/// # Examples
/// ```
/// use commonhold::{Permit, Semaphore, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-permit-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let scanners = space.record::<Semaphore<4>>("scanners")?;
/// let scanner: Permit<'_> = scanners.acquire_repairing(|scanner| {
///     println!("the user of scanner {} was killed: resetting it", scanner.index());
///     Ok(())
/// })?;
/// println!("scanner {} is mine", scanner.index());
/// scanner.release()?;
/// # drop(scanners);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[must_use = "the permit is free when this is dropped"]
pub struct Permit<'a> {
    found: Found<'a>,
    permit: sync::Permit,
    /// Whether it was taken inconsistent, and has not been repaired since.
    inconsistent: Cell<bool>,
    /// Whether the thread was panicking when it took the permit.
    panicking: bool,
    /// A permit stays in its thread.
    not_send: PhantomData<*const ()>,
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("index", &self.index()).finish_non_exhaustive()
    }
}

impl Permit<'_> {
    /// Its number, below the number of permits. No other thread holds the permit with this number.
    #[must_use]
    pub const fn index(&self) -> usize {
        self.permit.index()
    }

    /// Frees the permit, and reports whether this process still held it.
    ///
    /// # Errors
    /// [`LockError::Fenced`](crate::LockError::Fenced) if this process was declared dead meanwhile,
    /// [`LockError::Forked`](crate::LockError::Forked).
    pub fn release(self) -> LockResult<()> {
        self.free(Release::Done)
    }

    /// Frees the permit and leaves it inconsistent: what it stands for is half changed, and the next holder is told
    /// so.
    ///
    /// # Errors
    /// As for [`release`](Self::release).
    pub fn leave_inconsistent(self) -> LockResult<()> {
        self.free(Release::Inconsistent)
    }

    /// Uses the permit up: it is not free again until a thread [gives](Semaphore::give) one.
    ///
    /// # Errors
    /// As for [`release`](Self::release).
    pub fn spend(self) -> LockResult<()> {
        let permit = ManuallyDrop::new(self);
        let me = permit.found.region.attachment().me()?;
        let spent = permit.found.semaphore.spend(&me, permit.permit);
        spent.map_err(|_| permit.found.site().not_ours())
    }

    fn give_back(&self, how: Release) -> LockResult<()> {
        let attachment = self.found.region.attachment();
        let me = attachment.me()?;
        let unrepaired = how == Release::Done && self.inconsistent.get();
        let how = if unrepaired { Release::Inconsistent } else { how };
        let view = attachment.my_view();
        let released = self.found.semaphore.release(&me, view, self.permit, how);
        released.map_err(|_| self.found.site().not_ours())
    }
}

impl Guard for Permit<'_> {
    fn set_consistent(&self) -> LockResult<()> {
        self.found.site().ask_live()?;
        self.inconsistent.set(false);
        Ok(())
    }

    fn free(self, how: Release) -> LockResult<()> {
        match how {
            // A spent permit comes back only when it is given.
            Release::GivenUp => self.spend(),
            how => ManuallyDrop::new(self).give_back(how),
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let gave_up = thread::panicking() && !self.panicking;
        // Fails only in a forked child, where the permit is the parent's, or if this peer was declared dead.
        let _ = self.give_back(if gave_up { Release::Inconsistent } else { Release::Done });
    }
}
