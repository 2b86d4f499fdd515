//! The barrier as a record.

use std::{cell::Cell, fmt, marker::PhantomData, mem::ManuallyDrop, thread, time::Duration};

use commonhold_layout::{RecordKind, record_words};
use commonhold_sync as sync;
use commonhold_sync::{LockError as SyncError, Release, Taken};
use yoke::Yokeable;

use super::{Record, checked_size_with_places, open_places, size_with_places};
use crate::{
    LockError, LockPlace, LockResult, Mapping, RegionError,
    lock::{Denied, Site},
    region::{Handle, MappedRegion},
};

/// A barrier, with the addresses of its words.
#[derive(Debug, Clone, Copy, Yokeable)]
struct Found<'a> {
    region: &'a MappedRegion,
    barrier: sync::Barrier<'a>,
}

impl<'a> Found<'a> {
    fn site(&self) -> Site<'a> {
        Site { region: self.region, at: Some(self.barrier.at()) }
    }
}

/// A barrier in the bytes of a region: `N` participants wait for each other at the end of each phase.
///
/// A `Barrier<3>` has three participants. The number is part of the record: to open it with another number is an
/// error. All zeros are a barrier that no thread has joined, so there is no set-up in which a thread could die.
/// [`open_with`](Self::open_with) takes a number that is known only at run time.
///
/// Each participant [joins](Self::join) once, and [waits](Participant::wait) at the end of each phase. What a death
/// does:
/// - A participant dies before it arrives in the current phase: every other participant that waits, now or later,
///   gets [`LockError::ParticipantDied`](crate::LockError::ParticipantDied), until another thread joins in its
///   place. That thread sees [which participant](Participant::replaces) it replaces, does the rest of its work, and
///   arrives. The others wait again.
/// - A participant dies after it arrives: nothing happens in this phase. In the next phase it has not arrived.
/// - A thread dies before it joins: the barrier does not know of it. Use [`wait_for`](Participant::wait_for).
///
/// # Examples
/// A thread that replaces a dead participant goes on in the same phase, so the barrier counts the steps:
/// ```
/// use std::time::Duration;
/// use commonhold::{Barrier, LockError, LockResult, Space};
/// fn steps(barrier: &Barrier<2>) -> LockResult<()> {
///     let party = barrier.join()?;
///     while barrier.phase() < 10 {
///         if !party.has_arrived() {
///             // ... this party's part of the step ...
///         }
///         match party.wait() {
///             // Start a process that joins in the place of the dead.
///             Err(LockError::ParticipantDied(_)) => std::thread::sleep(Duration::from_millis(1)),
///             result => drop(result?),
///         }
///     }
///     Ok(())
/// }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-barrier-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let barrier = space.record::<Barrier<2>>("steps")?;
/// let other = barrier.clone(); // in another process, as a rule
/// let other = std::thread::spawn(move || steps(&other));
/// steps(&barrier)?;
/// other.join().map_err(|_| "the thread panicked")??;
/// # drop(barrier);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
///
/// A participant belongs to its thread:
/// ```compile_fail,E0277
/// fn sent<T: Send>(_: T) {}
/// fn other(barrier: commonhold::Barrier<3>) {
///     sent(barrier.join());
/// }
/// ```
#[derive(Clone)]
pub struct Barrier<const PARTIES: usize = 0> {
    found: Handle<Found<'static>>,
    parties: usize,
}

impl<const PARTIES: usize> fmt::Debug for Barrier<PARTIES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier").field("parties", &self.parties).finish_non_exhaustive()
    }
}

impl<const PARTIES: usize> Record for Barrier<PARTIES> {
    const SIZE: u64 = Barrier::<PARTIES>::SIZE;

    fn open(mapping: &Mapping, offset: u64) -> Result<Self, RegionError> {
        const { assert!(Barrier::<PARTIES>::SIZE > 0) };
        Self::new(mapping, offset, PARTIES)
    }
}

impl<const PARTIES: usize> Barrier<PARTIES> {
    /// Its size in bytes, a multiple of 8.
    pub const SIZE: u64 = checked_size_with_places(record_words::BARRIER, PARTIES);
}

impl Barrier {
    /// The size in bytes of a barrier for `parties` participants, a multiple of 8.
    #[must_use]
    pub const fn size_with(parties: usize) -> u64 {
        size_with_places(record_words::BARRIER, parties)
    }

    /// Opens the barrier at `offset`, with a number of participants that is known only at run time.
    ///
    /// # Errors
    /// As for [`Mapping::open`]; [`RegionError::BadCount`] if that number is not possible.
    pub fn open_with(mapping: &Mapping, offset: u64, parties: usize) -> Result<Self, RegionError> {
        Self::new(mapping, offset, parties)
    }
}

impl<const PARTIES: usize> Barrier<PARTIES> {
    fn new(mapping: &Mapping, offset: u64, parties: usize) -> Result<Self, RegionError> {
        let found = MappedRegion::find(mapping.region(), |region| {
            let opened = open_places(region, offset, RecordKind::Barrier, parties)?;
            let [event] = opened.words;
            let barrier = sync::Barrier::new(event, opened.at, opened.data.words());
            Ok(Found { region, barrier })
        })?;
        Ok(Self { found, parties })
    }

    /// The number of participants.
    #[must_use]
    pub const fn parties(&self) -> usize {
        self.parties
    }

    /// How many phases have passed.
    #[must_use]
    pub fn phase(&self) -> u64 {
        let Found { region, barrier } = self.found.get();
        // In a forked child the memory is not mapped, and no thread can wait there either.
        if region.attachment().is_forked() { 0 } else { barrier.phase() }
    }

    /// Becomes a participant, in a free slot or in that of a dead participant. This does not wait.
    ///
    /// # Errors
    /// [`RegionError::BarrierFull`] if living participants have all slots;
    /// [`LockError::Fenced`](crate::LockError::Fenced); [`LockError::Forked`](crate::LockError::Forked).
    pub fn join(&self) -> LockResult<Participant<'_>> {
        let found = *self.found.get();
        let attachment = found.region.attachment();
        let me = attachment.me()?;
        let (taken, party) = match found.barrier.join(&me, attachment.my_view()) {
            Ok(joined) => joined,
            Err(SyncError::BarrierFull) => {
                return Err(RegionError::BarrierFull { parties: self.parties }.into());
            }
            Err(error) => return Err(found.site().error(error.into(), None)),
        };
        let replaces = match taken {
            Taken::Clean => None,
            Taken::OwnerDied(who) => Some(found.site().place(who)),
        };
        Ok(Participant {
            found,
            party,
            replaces,
            arrived: Cell::new(found.barrier.arrived_in(party)),
            panicking: thread::panicking(),
            not_send: PhantomData,
        })
    }
}

/// A participant of a barrier. When it is dropped, it leaves, and its slot is free for another thread. When a panic
/// drops it, it counts as dead.
///
/// # Examples
/// ```
/// use commonhold::{Barrier, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-party-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let steps = space.record::<Barrier<1>>("steps")?;
/// let party = steps.join()?;
/// if let Some(dead) = party.replaces().filter(|_| !party.has_arrived()) {
///     eprintln!("{:?} left its part of this phase undone: it is done first", dead.owner);
/// }
/// let phase = party.wait()?;
/// party.leave()?;
/// # drop(steps);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[must_use = "its place is free again when this is dropped"]
pub struct Participant<'a> {
    found: Found<'a>,
    party: sync::Participant,
    replaces: Option<Box<LockPlace>>,
    /// The phase in which it has arrived, and which it has not seen pass.
    arrived: Cell<Option<u64>>,
    /// Whether the thread was panicking when it joined.
    panicking: bool,
    /// A participant stays in its thread.
    not_send: PhantomData<*const ()>,
}

impl fmt::Debug for Participant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Participant").field("index", &self.index()).finish_non_exhaustive()
    }
}

impl Participant<'_> {
    /// The number of its slot: below the number of participants.
    #[must_use]
    pub const fn index(&self) -> usize {
        self.party.index()
    }

    /// If it replaces a participant that died, or gave up: the barrier, and that participant, if it is known.
    #[must_use]
    pub fn replaces(&self) -> Option<&LockPlace> {
        self.replaces.as_deref()
    }

    /// Whether its slot has arrived in the phase that [`wait`](Self::wait) would wait for. This tells a thread that
    /// replaces a dead participant whether work of this phase is left: if the slot has arrived, there is none, and
    /// the thread waits next.
    #[must_use]
    pub const fn has_arrived(&self) -> bool {
        self.arrived.get().is_some()
    }

    /// Marks this participant as arrived in the current phase, without waiting for the others. A
    /// [`wait`](Self::wait) after it waits for that phase.
    ///
    /// # Errors
    /// [`LockError::Fenced`](crate::LockError::Fenced) if this process was declared dead,
    /// [`LockError::Forked`](crate::LockError::Forked).
    pub fn arrive(&self) -> LockResult<u64> {
        let attachment = self.found.region.attachment();
        let me = attachment.me()?;
        let arrived = self.found.barrier.arrive(&me, attachment.my_view(), self.party);
        let phase = arrived.map_err(|_| self.found.site().not_ours())?;
        self.arrived.set(Some(phase));
        Ok(phase)
    }

    /// [Arrives](Self::arrive) in the current phase, if it has not yet, waits until all participants have arrived,
    /// and returns the number of the phase that has passed.
    ///
    /// # Errors
    /// [`LockError::ParticipantDied`](crate::LockError::ParticipantDied), and as for [`arrive`](Self::arrive).
    pub fn wait(&self) -> LockResult<u64> {
        self.wait_until(None).map_err(|denied| self.error(denied))
    }

    /// As [`wait`](Self::wait), but does not wait: `None` if others have not arrived. This participant has arrived
    /// then, and its next `wait` waits for the same phase.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn try_wait(&self) -> LockResult<Option<u64>> {
        match self.wait_until(Some(0)) {
            Ok(phase) => Ok(Some(phase)),
            Err(Denied::Sync(SyncError::TimedOut)) => Ok(None),
            Err(denied) => Err(self.error(denied)),
        }
    }

    /// As [`wait`](Self::wait), but waits for `timeout` at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`](crate::LockError::TimedOut), and as for [`wait`](Self::wait). This participant has
    /// arrived then.
    pub fn wait_for(&self, timeout: Duration) -> LockResult<u64> {
        let deadline = self.found.region.attachment().deadline(timeout);
        self.wait_until(Some(deadline)).map_err(|denied| self.error(denied))
    }

    /// The error of a phase that has not passed, with the participant that died.
    #[cold]
    fn error(&self, denied: Denied) -> LockError {
        let attachment = self.found.region.attachment();
        let lost = match (&denied, self.arrived.get()) {
            (Denied::Sync(SyncError::ParticipantDied), Some(phase)) if !attachment.is_forked() => {
                self.found.barrier.lost_participant(attachment.my_view(), phase)
            }
            _ => None,
        };
        self.found.site().error(denied, lost)
    }

    fn wait_until(&self, deadline: Option<u64>) -> Result<u64, Denied> {
        let attachment = self.found.region.attachment();
        let me = attachment.me()?;
        let barrier = self.found.barrier;
        let phase = match self.arrived.get() {
            Some(phase) => phase,
            None => barrier.arrive(&me, attachment.my_view(), self.party)?,
        };
        self.arrived.set(Some(phase));
        barrier.wait(&me, attachment.my_view(), phase, deadline)?;
        self.arrived.set(None);
        Ok(phase)
    }

    /// Gives the slot up, and reports whether this process still owned it. If this participant has arrived, its
    /// arrival stands. If not, the others wait for another thread to join and arrive.
    ///
    /// # Errors
    /// As for [`arrive`](Self::arrive).
    pub fn leave(self) -> LockResult<()> {
        ManuallyDrop::new(self).give_back(Release::Done)
    }

    fn give_back(&self, how: Release) -> LockResult<()> {
        let me = self.found.region.attachment().me()?;
        let left = self.found.barrier.leave(&me, self.party, how);
        left.map_err(|_| self.found.site().not_ours())
    }
}

impl Drop for Participant<'_> {
    fn drop(&mut self) {
        let gave_up = thread::panicking() && !self.panicking;
        // Fails only in a forked child, where the slot is the parent's, or if this peer was declared dead.
        let _ = self.give_back(if gave_up { Release::Inconsistent } else { Release::Done });
    }
}
