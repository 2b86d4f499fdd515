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

/// The words of a semaphore, found.
#[derive(Debug, Clone, Copy, Yokeable)]
struct Found<'a> {
    region: &'a MappedRegion,
    semaphore: sync::Semaphore<'a>,
}

/// So many permits in the bytes of a region, which anybody may take, one at a time.
///
/// A `Semaphore<4>` has four permits: how many is part of what the record is, and whoever opens it for
/// another number gets an error. Of all zeros, all permits are free; so there is nothing to set up, and
/// nobody can die while doing so. [`open_with`](Self::open_with) takes a number that is known when the program
/// runs.
///
/// Each permit knows who holds it, and no death loses it:
/// - If the holder dies, or panics, the permit is free, and inconsistent. Those that were given back in order are
///   taken first; when no other is free, whoever wants one is told, by
///   [`LockError::OwnerDied`](crate::LockError::OwnerDied), and can look after what it stands for
///   ([`acquire_recover`](Self::acquire_recover)). The permit's [number](Permit::index) says which it is.
/// - If one who waits dies, or one who gives a permit, nothing is lost.
///
/// A permit that stands for something that is used up, an item in a queue for instance, is
/// [spent](Permit::spend). It comes back when anybody [gives](Self::give) one.
///
/// Who waits is not served in any order.
///
/// # Examples
/// ```
/// use commonhold::{Semaphore, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-semaphore-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let scanners = space.record::<Semaphore<4>>("scanners")?;
/// let scanner = scanners.acquire_repairing(|scanner| {
///     println!("whoever had scanner {} was killed: resetting it", scanner.index());
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
    /// Bytes that it takes, a multiple of 8.
    pub const SIZE: u64 = checked_size_with_places(record_words::SEMAPHORE, PERMITS);
}

impl Semaphore {
    /// Bytes that a semaphore with so many permits takes, a multiple of 8.
    #[must_use]
    pub const fn size_with(permits: usize) -> u64 {
        size_with_places(record_words::SEMAPHORE, permits)
    }

    /// Opens the semaphore at `offset`, of as many permits as are known only now.
    ///
    /// # Errors
    /// As for [`Mapping::open`]; [`RegionError::BadCount`] if there may not be so many.
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
        // Which of the permits is meant nobody can say.
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

    /// How many permits there are, whoever holds them.
    #[must_use]
    pub const fn permits(&self) -> usize {
        self.permits
    }

    /// How many are free now; those that the dead hold, and will be taken over, are not among them.
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

    /// Takes a permit, waiting as long as it takes.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`](crate::LockError::OwnerDied) if no other is free than one whose holder died, or left it
    /// inconsistent: it stays free for whoever can look after what it stands for;
    /// [`Deadlock`](crate::LockError::Deadlock) if this thread holds all of them.
    pub fn acquire(&self) -> LockResult<Permit<'_>> {
        self.acquire_until(None)
    }

    /// Takes a permit if that needs no waiting; `None` if the living hold all of them, or they are spent.
    ///
    /// # Errors
    /// As for [`acquire`](Self::acquire).
    pub fn try_acquire(&self) -> LockResult<Option<Permit<'_>>> {
        take::whole_at_once(self)
    }

    /// Takes a permit, waiting so long at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`](crate::LockError::TimedOut), and as for [`acquire`](Self::acquire).
    pub fn acquire_for(&self, timeout: Duration) -> LockResult<Permit<'_>> {
        self.acquire_until(self.deadline(timeout))
    }

    /// Takes a permit in whatever state it is, for those who decide themselves; one that was given back in order
    /// first.
    ///
    /// # Errors
    /// [`LockError::Deadlock`](crate::LockError::Deadlock) if this thread holds all of them.
    pub fn acquire_recover(&self) -> LockResult<Recovered<Permit<'_>>> {
        take::recovered(self, None)
    }

    /// As [`acquire_recover`](Self::acquire_recover), but waits so long at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`](crate::LockError::TimedOut), and as for [`acquire_recover`](Self::acquire_recover).
    pub fn acquire_recover_for(&self, timeout: Duration) -> LockResult<Recovered<Permit<'_>>> {
        take::recovered(self, self.deadline(timeout))
    }

    /// Takes a permit, and has `repair` look after what it stands for if its last holder died, or left it
    /// inconsistent.
    ///
    /// # Errors
    /// [`LockError::RepairFailed`](crate::LockError::RepairFailed), after which the permit is free, and inconsistent as
    /// before; [`Deadlock`](crate::LockError::Deadlock).
    pub fn acquire_repairing<'a>(
        &'a self,
        repair: impl FnOnce(&Permit<'a>) -> Result<(), BoxError>,
    ) -> LockResult<Permit<'a>> {
        match take::recovered(self, None)? {
            Recovered::Consistent(permit) => Ok(permit),
            Recovered::Inconsistent(permit) => permit.repair(repair),
        }
    }

    /// Gives one of the permits back that were [spent](Permit::spend), by whomever.
    ///
    /// # Errors
    /// [`RegionError::NothingSpent`]; [`LockError::Fenced`](crate::LockError::Fenced) if this process was declared
    /// dead, [`LockError::Forked`](crate::LockError::Forked).
    ///
    /// # Examples
    /// Room in a queue of three: whoever puts something in takes a permit and spends it, and whoever takes
    /// it out gives one.
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

/// A permit of a semaphore. Dropped, it is free; dropped by a panic, it is free, and inconsistent.
///
/// # Examples
/// ```
/// use commonhold::{Permit, Semaphore, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-permit-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let scanners = space.record::<Semaphore<4>>("scanners")?;
/// let scanner: Permit<'_> = scanners.acquire_repairing(|scanner| {
///     println!("whoever had scanner {} was killed: resetting it", scanner.index());
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
    /// It was taken so, and has not been looked after since.
    inconsistent: Cell<bool>,
    /// Whether the thread was panicking when it took it.
    panicking: bool,
    /// It is its thread's.
    not_send: PhantomData<*const ()>,
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("index", &self.index()).finish_non_exhaustive()
    }
}

impl Permit<'_> {
    /// Its number, below that of all permits. Nobody else holds a permit of that number.
    #[must_use]
    pub const fn index(&self) -> usize {
        self.permit.index()
    }

    /// Frees the permit, and says whether it still was this process's.
    ///
    /// # Errors
    /// [`LockError::Fenced`](crate::LockError::Fenced) if this process was declared dead meanwhile,
    /// [`LockError::Forked`](crate::LockError::Forked).
    pub fn release(self) -> LockResult<()> {
        self.free(Release::Done)
    }

    /// Frees the permit with what it stands for half changed: whoever takes it next is told so.
    ///
    /// # Errors
    /// As for [`release`](Self::release).
    pub fn leave_inconsistent(self) -> LockResult<()> {
        self.free(Release::Inconsistent)
    }

    /// Uses the permit up: nobody has it until somebody [gives](Semaphore::give) one.
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
            // A permit comes back by being given, and no other way.
            Release::GivenUp => self.spend(),
            how => ManuallyDrop::new(self).give_back(how),
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let gave_up = thread::panicking() && !self.panicking;
        // Fails only in a forked child, whose permit it is not, or if this peer was declared dead.
        let _ = self.give_back(if gave_up { Release::Inconsistent } else { Release::Done });
    }
}
