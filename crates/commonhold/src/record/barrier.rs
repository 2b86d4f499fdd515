//! The barrier as a record.

use std::{cell::Cell, fmt, marker::PhantomData, mem::ManuallyDrop, thread, time::Duration};

use commonhold_layout::{RecordKind, record_words};
use commonhold_sync as sync;
use commonhold_sync::Release;

use super::{Record, checked_size_with_places, open_places, size_with_places};
use crate::{
    BarrierError, LockError, Mapping, RegionError,
    lock::{graded, refused},
};

/// A place in the bytes of a region where so many parties wait for each other, phase after phase.
///
/// A `Barrier<3>` is for three parties: how many is part of what the record is, and whoever opens it for
/// another number gets an error. Of all zeros, nobody has joined; so there is nothing to set up, and nobody can
/// die while doing so. [`open_with`](Self::open_with) takes a number that is known when the program runs.
///
/// Each party [joins](Self::join) once, and [waits](Party::wait) at the end of each phase. What a death does:
/// - Of a party that has not arrived in the present phase: the others are told, by
///   [`BarrierError::PartyDied`], also those who come later, until another has joined in its place. That one
///   is told too, by [`LockError::OwnerDied`], does the part of the dead, and arrives. The others wait again.
/// - Of a party that has arrived: nothing in this phase, since it has done its part. In the next it has not
///   arrived.
/// - Of one that has not joined: nobody knows of it. Use [`wait_for`](Party::wait_for).
///
/// # Examples
/// ```
/// use commonhold::{Access, Barrier, BarrierError, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-barrier-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// space.create("steps", Barrier::<2>::SIZE)?;
/// # let other = space.clone();
/// # let other = std::thread::spawn(move || {
/// #     let mapping = other.map("steps", Access::ReadWrite).unwrap();
/// #     let party = mapping.open::<Barrier<2>>(0).unwrap().join().unwrap();
/// #     for _ in 0..10 { party.wait().unwrap(); }
/// # });
/// let mapping = space.map("steps", Access::ReadWrite)?;
/// let steps = mapping.open::<Barrier<2>>(0)?;
/// let party = steps.join().map_err(|error| error.to_string())?;
/// for step in 0..10 {
///     // ... this party's part of the step ...
///     match party.wait() {
///         Ok(passed) => assert_eq!(passed, step),
///         Err(BarrierError::PartyDied) => { /* start a process that joins in its place, and wait again */ }
///         Err(error) => return Err(error.into()),
///     }
/// }
/// # drop(party);
/// # other.join().unwrap();
/// # drop(mapping);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
///
/// A party is a thread:
/// ```compile_fail,E0277
/// fn sent<T: Send>(_: T) {}
/// fn other(barrier: commonhold::Barrier<3>) {
///     sent(barrier.join());
/// }
/// ```
#[derive(Clone, Copy)]
pub struct Barrier<'a, const PARTIES: usize = 0> {
    mapping: &'a Mapping,
    barrier: sync::Barrier<'a>,
    parties: usize,
}

impl<const PARTIES: usize> fmt::Debug for Barrier<'_, PARTIES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier").field("parties", &self.parties).finish_non_exhaustive()
    }
}

impl<'a, const PARTIES: usize> Record<'a> for Barrier<'a, PARTIES> {
    const SIZE: u64 = Barrier::<PARTIES>::SIZE;

    fn open(mapping: &'a Mapping, offset: u64) -> Result<Self, RegionError> {
        const { assert!(Barrier::<PARTIES>::SIZE > 0) };
        Self::of(mapping, offset, PARTIES)
    }
}

impl<const PARTIES: usize> Barrier<'_, PARTIES> {
    /// Bytes that it takes, a multiple of 8.
    pub const SIZE: u64 = checked_size_with_places(record_words::BARRIER, PARTIES);
}

impl<'a> Barrier<'a> {
    /// Bytes that a barrier for so many parties takes, a multiple of 8.
    #[must_use]
    pub const fn size_with(parties: usize) -> u64 {
        size_with_places(record_words::BARRIER, parties)
    }

    /// Opens the barrier at `offset`, for as many parties as are known only now.
    ///
    /// # Errors
    /// As for [`Mapping::open`]; [`RegionError::BadCount`] if there may not be so many.
    pub fn open_with(
        mapping: &'a Mapping,
        offset: u64,
        parties: usize,
    ) -> Result<Self, RegionError> {
        Self::of(mapping, offset, parties)
    }
}

impl<'a, const PARTIES: usize> Barrier<'a, PARTIES> {
    fn of(mapping: &'a Mapping, offset: u64, parties: usize) -> Result<Self, RegionError> {
        let opened = open_places(mapping, offset, RecordKind::Barrier, parties)?;
        let [event] = opened.words;
        let barrier = sync::Barrier::new(event, opened.at, opened.data.words());
        Ok(Self { mapping, barrier, parties })
    }

    /// How many parties it is for.
    #[must_use]
    pub const fn parties(&self) -> usize {
        self.parties
    }

    /// How many phases have passed.
    #[must_use]
    pub fn phase(&self) -> u64 {
        // In a forked child the memory is not mapped; there nobody can wait either.
        if self.mapping.attachment().is_forked() { 0 } else { self.barrier.phase() }
    }

    /// Becomes one of the parties, in a place that nobody has or that a dead party had. It does not wait.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`] hands over the place of a party that died, or gave up; see
    /// [`has_arrived`](Party::has_arrived). [`RegionError::BarrierFull`] if the living have all places.
    pub fn join(&self) -> Result<Party<'a>, LockError<Party<'a>>> {
        let attachment = self.mapping.attachment();
        let me = attachment.me()?;
        let joined = self.barrier.join(&me, attachment.my_view()).map_err(|error| match error {
            sync::LockError::BarrierFull => {
                RegionError::BarrierFull { parties: self.parties }.into()
            }
            error => refused(error),
        });
        let (taken, party) = joined?;
        let party = Party {
            mapping: self.mapping,
            barrier: self.barrier,
            party,
            arrived: Cell::new(self.barrier.arrived_in(party)),
            panicking: thread::panicking(),
            not_send: PhantomData,
        };
        graded(taken, party)
    }
}

/// One party of a barrier. Dropped, it leaves, and its place is free for another; dropped by a panic, the
/// others are told as of a death.
#[must_use = "its place is free again when this is dropped"]
pub struct Party<'a> {
    mapping: &'a Mapping,
    barrier: sync::Barrier<'a>,
    party: sync::Party,
    /// The phase that it has arrived in and not seen pass.
    arrived: Cell<Option<u64>>,
    /// Whether the thread was panicking when it joined.
    panicking: bool,
    /// It is its thread's.
    not_send: PhantomData<*const ()>,
}

impl fmt::Debug for Party<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Party").field("index", &self.index()).finish_non_exhaustive()
    }
}

impl Party<'_> {
    /// The number of its place, below that of all parties.
    #[must_use]
    pub const fn index(&self) -> usize {
        self.party.index()
    }

    /// Whether its place has arrived in the phase that [`wait`](Self::wait) would wait for. Who has joined in
    /// the place of a dead party learns by this whether there is anything left to do in its stead: if it has
    /// arrived, there is not, and the next thing to do is to wait.
    #[must_use]
    pub const fn has_arrived(&self) -> bool {
        self.arrived.get().is_some()
    }

    /// Says that this party has done its part of the present phase, and does not wait for the others.
    /// [`wait`](Self::wait) may follow, and waits for that phase.
    ///
    /// # Errors
    /// [`RegionError::Fenced`] if this process was declared dead, [`RegionError::Forked`].
    pub fn arrive(&self) -> Result<u64, RegionError> {
        let attachment = self.mapping.attachment();
        let me = attachment.me()?;
        let arrived = self.barrier.arrive(&me, attachment.my_view(), self.party);
        let phase = arrived.map_err(|_| RegionError::Fenced)?;
        self.arrived.set(Some(phase));
        Ok(phase)
    }

    /// Says that this party has done its part of the phase, if it has not [said so](Self::arrive), waits
    /// until all have, and returns which phase has passed.
    ///
    /// # Errors
    /// [`BarrierError::PartyDied`]; [`BarrierError::Region`] as for [`arrive`](Self::arrive).
    pub fn wait(&self) -> Result<u64, BarrierError> {
        self.wait_until(None)
    }

    /// As [`wait`](Self::wait), but does not wait: whether all others have arrived.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait); [`BarrierError::TimedOut`] if others have not arrived. This party has: the
    /// next to wait, waits for the same phase.
    pub fn try_wait(&self) -> Result<u64, BarrierError> {
        self.wait_until(Some(0))
    }

    /// As [`wait`](Self::wait), but waits so long at most.
    ///
    /// # Errors
    /// As for [`try_wait`](Self::try_wait).
    pub fn wait_for(&self, timeout: Duration) -> Result<u64, BarrierError> {
        self.wait_until(Some(self.mapping.attachment().deadline(timeout)))
    }

    fn wait_until(&self, deadline: Option<u64>) -> Result<u64, BarrierError> {
        let phase = match self.arrived.get() {
            Some(phase) => phase,
            None => self.arrive()?,
        };
        let attachment = self.mapping.attachment();
        let me = attachment.me()?;
        match self.barrier.wait(&me, attachment.my_view(), phase, deadline) {
            Ok(()) => {
                self.arrived.set(None);
                Ok(phase)
            }
            Err(sync::LockError::PartyDied) => Err(BarrierError::PartyDied),
            Err(sync::LockError::TimedOut) => Err(BarrierError::TimedOut),
            Err(_) => Err(RegionError::Fenced.into()),
        }
    }

    /// Gives the place up, and says whether it still was this process's. If this party has arrived, that
    /// stands; if not, the others wait for one that joins in its place.
    ///
    /// # Errors
    /// As for [`arrive`](Self::arrive).
    pub fn leave(self) -> Result<(), RegionError> {
        ManuallyDrop::new(self).give_back(Release::Done)
    }

    fn give_back(&self, how: Release) -> Result<(), RegionError> {
        let me = self.mapping.attachment().me()?;
        self.barrier.leave(&me, self.party, how).map_err(|_| RegionError::Fenced)
    }
}

impl Drop for Party<'_> {
    fn drop(&mut self) {
        let gave_up = thread::panicking() && !self.panicking;
        // Fails only in a forked child, whose place it is not, or if this peer was declared dead.
        let _ = self.give_back(if gave_up { Release::Inconsistent } else { Release::Done });
    }
}
