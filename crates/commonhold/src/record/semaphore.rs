//! The semaphore as a record.

use std::{fmt, marker::PhantomData, mem::ManuallyDrop, thread, time::Duration};

use commonhold_layout::{RecordKind, record_words};
use commonhold_sync as sync;
use commonhold_sync::Release;

use super::{Record, checked_size_with_places, open_places, size_with_places};
use crate::{
    LockError, Mapping, RegionError,
    lock::{graded, refused},
};

/// So many permits in the bytes of a region, which anybody may take, one at a time.
///
/// A `Semaphore<4>` has four permits: how many is part of what the record is, and whoever opens it for
/// another number gets an error. Of all zeros, all permits are free; so there is nothing to set up, and
/// nobody can die while doing so. [`open_with`](Self::open_with) takes a number that is known when the program
/// runs.
///
/// Each permit knows who holds it, and no death loses it:
/// - If the holder dies, or panics, the next to take the permit is told so, by [`LockError::OwnerDied`], and has
///   it. The permit's [number](Permit::index) says which it is, if each stands for a thing of its own.
/// - If one who waits dies, or one who gives a permit, nothing is lost.
///
/// A permit that stands for something that is used up, an item in a queue for instance, is
/// [spent](Permit::spend). It comes back when anybody [gives](Self::give) one.
///
/// Who waits is not served in any order.
///
/// # Examples
/// ```
/// use commonhold::{Access, LockError, Semaphore, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-semaphore-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// space.create("scanners", Semaphore::<4>::SIZE)?;
/// let mapping = space.map("scanners", Access::ReadWrite)?;
/// let scanners = mapping.open::<Semaphore<4>>(0)?;
/// let scanner = match scanners.acquire() {
///     Ok(permit) => permit,
///     // Whoever had this one was killed: look after what it stands for.
///     Err(LockError::OwnerDied(permit)) => permit,
///     Err(error) => return Err(error.to_string().into()),
/// };
/// println!("scanner {} is mine", scanner.index());
/// assert_eq!(scanners.available(), 3);
/// drop(scanner);
/// assert_eq!(scanners.available(), 4);
/// # drop(mapping);
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
#[derive(Clone, Copy)]
pub struct Semaphore<'a, const PERMITS: usize = 0> {
    mapping: &'a Mapping,
    semaphore: sync::Semaphore<'a>,
    permits: usize,
}

impl<const PERMITS: usize> fmt::Debug for Semaphore<'_, PERMITS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore").field("permits", &self.permits).finish_non_exhaustive()
    }
}

impl<'a, const PERMITS: usize> Record<'a> for Semaphore<'a, PERMITS> {
    const SIZE: u64 = Semaphore::<PERMITS>::SIZE;

    fn open(mapping: &'a Mapping, offset: u64) -> Result<Self, RegionError> {
        const { assert!(Semaphore::<PERMITS>::SIZE > 0) };
        Self::of(mapping, offset, PERMITS)
    }
}

impl<const PERMITS: usize> Semaphore<'_, PERMITS> {
    /// Bytes that it takes, a multiple of 8.
    pub const SIZE: u64 = checked_size_with_places(record_words::SEMAPHORE, PERMITS);
}

impl<'a> Semaphore<'a> {
    /// Bytes that a semaphore with so many permits takes, a multiple of 8.
    #[must_use]
    pub const fn size_with(permits: usize) -> u64 {
        size_with_places(record_words::SEMAPHORE, permits)
    }

    /// Opens the semaphore at `offset`, of as many permits as are known only now.
    ///
    /// # Errors
    /// As for [`Mapping::open`]; [`RegionError::BadCount`] if there may not be so many.
    pub fn open_with(
        mapping: &'a Mapping,
        offset: u64,
        permits: usize,
    ) -> Result<Self, RegionError> {
        Self::of(mapping, offset, permits)
    }
}

impl<'a, const PERMITS: usize> Semaphore<'a, PERMITS> {
    fn of(mapping: &'a Mapping, offset: u64, permits: usize) -> Result<Self, RegionError> {
        let opened = open_places(mapping, offset, RecordKind::Semaphore, permits)?;
        let [event] = opened.words;
        let semaphore = sync::Semaphore::new(event, opened.at, opened.data.words());
        Ok(Self { mapping, semaphore, permits })
    }

    /// How many permits there are, whoever holds them.
    #[must_use]
    pub const fn permits(&self) -> usize {
        self.permits
    }

    /// How many are free now; those that the dead hold, and will be taken over, are not among them.
    #[must_use]
    pub fn available(&self) -> usize {
        // In a forked child the memory is not mapped.
        if self.mapping.attachment().is_forked() { 0 } else { self.semaphore.available() }
    }

    /// Takes a permit, waiting as long as it takes.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`] hands over the permit of one who died, or gave up;
    /// [`LockError::Deadlock`] if this thread holds all of them.
    pub fn acquire(&self) -> Result<Permit<'a>, LockError<Permit<'a>>> {
        self.acquire_until(None)
    }

    /// Takes a permit if that needs no waiting.
    ///
    /// # Errors
    /// As for [`acquire`](Self::acquire); [`LockError::TimedOut`] if the living hold all of them, or they
    /// are spent.
    pub fn try_acquire(&self) -> Result<Permit<'a>, LockError<Permit<'a>>> {
        self.acquire_until(Some(0))
    }

    /// Takes a permit, waiting so long at most.
    ///
    /// # Errors
    /// As for [`acquire`](Self::acquire); [`LockError::TimedOut`].
    pub fn acquire_for(&self, timeout: Duration) -> Result<Permit<'a>, LockError<Permit<'a>>> {
        self.acquire_until(Some(self.mapping.attachment().deadline(timeout)))
    }

    fn acquire_until(&self, deadline: Option<u64>) -> Result<Permit<'a>, LockError<Permit<'a>>> {
        let attachment = self.mapping.attachment();
        let me = attachment.me()?;
        let asked = self.semaphore.acquire(&me, attachment.my_view(), deadline);
        let (taken, permit) = asked.map_err(refused)?;
        let (mapping, semaphore) = (self.mapping, self.semaphore);
        let panicking = thread::panicking();
        graded(taken, Permit { mapping, semaphore, permit, panicking, not_send: PhantomData })
    }

    /// Gives one of the permits back that were [spent](Permit::spend), by whomever.
    ///
    /// # Errors
    /// [`RegionError::NothingSpent`]; [`RegionError::Fenced`] if this process was declared dead,
    /// [`RegionError::Forked`].
    ///
    /// # Examples
    /// Room in a queue of three: whoever puts something in takes a permit and spends it, and whoever takes
    /// it out gives one.
    /// ```
    /// use commonhold::{Access, LockError, Semaphore, Space};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let url = format!("shm:doc-spend-{}", std::process::id());
    /// # let space = Space::open_or_format(&url)?;
    /// # space.create("room", Semaphore::<3>::SIZE)?;
    /// # let mapping = space.map("room", Access::ReadWrite)?;
    /// let room = mapping.open::<Semaphore<3>>(0)?;
    /// for _item in 0..3 {
    ///     room.acquire().map_err(|error| error.to_string())?.spend()?;
    /// }
    /// assert!(matches!(room.try_acquire(), Err(LockError::TimedOut)));
    /// room.give()?;
    /// assert!(room.try_acquire().is_ok());
    /// # drop(mapping);
    /// # drop(space);
    /// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn give(&self) -> Result<(), RegionError> {
        let attachment = self.mapping.attachment();
        let me = attachment.me()?;
        self.semaphore.give(&me, attachment.my_view()).map_err(|error| match error {
            sync::LockError::NothingSpent => RegionError::NothingSpent,
            _ => RegionError::Fenced,
        })
    }
}

/// A permit of a semaphore. Dropped, it is free; dropped by a panic, it is free, and the next is told.
#[must_use = "the permit is free when this is dropped"]
pub struct Permit<'a> {
    mapping: &'a Mapping,
    semaphore: sync::Semaphore<'a>,
    permit: sync::Permit,
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
    /// [`RegionError::Fenced`] if this process was declared dead meanwhile, [`RegionError::Forked`].
    pub fn release(self) -> Result<(), RegionError> {
        ManuallyDrop::new(self).give_back(Release::Done)
    }

    /// Frees the permit as one whose holder gave up: the next is told so, by [`LockError::OwnerDied`].
    ///
    /// # Errors
    /// As for [`release`](Self::release).
    pub fn leave(self) -> Result<(), RegionError> {
        ManuallyDrop::new(self).give_back(Release::Inconsistent)
    }

    /// Uses the permit up: nobody has it until somebody [gives](Semaphore::give) one.
    ///
    /// # Errors
    /// As for [`release`](Self::release).
    pub fn spend(self) -> Result<(), RegionError> {
        let permit = ManuallyDrop::new(self);
        let me = permit.mapping.attachment().me()?;
        permit.semaphore.spend(&me, permit.permit).map_err(|_| RegionError::Fenced)
    }

    fn give_back(&self, how: Release) -> Result<(), RegionError> {
        let attachment = self.mapping.attachment();
        let me = attachment.me()?;
        let released = self.semaphore.release(&me, attachment.my_view(), self.permit, how);
        released.map_err(|_| RegionError::Fenced)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let gave_up = thread::panicking() && !self.panicking;
        // Fails only in a forked child, whose permit it is not, or if this peer was declared dead.
        let _ = self.give_back(if gave_up { Release::Inconsistent } else { Release::Done });
    }
}
