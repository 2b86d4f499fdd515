//! The barrier: so many parties, none of which goes on before all have arrived.
//!
//! Each party has a place, a word that names it. It arrives by a mark in that word, and whoever then sees
//! all places marked moves the phase, which is the number of an event. There is no count of those that have
//! arrived: a count and the arrivals that it counts could be found to disagree after a death.
//!
//! # Invariants
//! 1. A place is marked for the phase by one compare-and-swap, of its owner's identity. The mark stays, also
//!    in the hands of a successor, until the place arrives in the next phase, which comes after all have
//!    passed this one. So whoever finds all places marked, one after the other, has found that all have
//!    arrived, whatever happens meanwhile.
//! 2. The phase moves by one compare-and-swap from the phase whose marks were looked at: once.
//! 3. Marking a place, and then looking at the others, are sequentially consistent: the last to arrive sees
//!    all marks, and moves the phase. If it dies first, whoever waits does it at the end of its slice.
//!
//! # Deaths
//! - A party, before it has arrived: whoever waits is told so ([`LockError::ParticipantDied`]), and so is whoever
//!   comes later, until another has joined in its place (which is told so too) and arrived for it. Those who
//!   were told can wait again: their arrival stands.
//! - A party, after it has arrived: the phase passes as if it lived, since it has done its part. In the next
//!   phase it is one that has not arrived.
//! - The last party, after it has arrived and before it moved the phase, or before it woke the others: see
//!   invariant 3; when the phase has moved, whoever reaps it wakes them, and at the latest they see it at the
//!   end of their slice.
//! - One that never joined is nobody's death: a deadline ends the wait for it.

use commonhold_layout::{LockFlags, LockWord, Offset, Owner};
use commonhold_window::{Point, atomic::AtomicU64};

use crate::{
    Event, Liveness, LockError, Park, Release, Taken, Thread,
    owner_set::{OwnerSet, OwnerSetWatch},
    owner_slots::{DeathCheck, OwnerSlots},
    store_then_load,
};

/// A barrier on a word for its event, and one for each party.
#[derive(Debug, Clone, Copy)]
pub struct Barrier<'a> {
    passed: Event<'a>,
    places: OwnerSlots<'a>,
}

/// Which place in the barrier is a thread's: what to give to [`Barrier::arrive`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Participant(usize);

impl Participant {
    /// The number of its place, from 0.
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0
    }
}

impl<'a> Barrier<'a> {
    /// The barrier with these places, whose event word is `event`, at offset `at` of its window.
    #[inline]
    #[must_use]
    pub const fn new(event: &'a AtomicU64, at: Offset, places: &'a [AtomicU64]) -> Self {
        Self { passed: Event::new(event, at), places: OwnerSlots(places) }
    }

    /// Where its event word lies.
    #[inline]
    #[must_use]
    pub const fn at(&self) -> Offset {
        self.passed.at()
    }

    /// How many phases have passed.
    #[inline]
    #[must_use]
    pub fn phase(&self) -> u64 {
        self.passed.sequence()
    }

    /// Takes a place that nobody has, or that a dead party had ([`Taken::OwnerDied`]). It never waits.
    ///
    /// # Errors
    /// [`LockError::BarrierFull`] if living parties have all of them; [`LockError::Fenced`] if the caller
    /// was declared dead.
    pub fn join(
        &self,
        me: &Thread<'_>,
        env: &impl Liveness,
    ) -> Result<(Taken, Participant), LockError> {
        if !me.is_live() {
            return Err(LockError::Fenced);
        }
        let place = self.places.take(me, env, DeathCheck::Probe);
        let (place, taken) = place.ok_or(LockError::BarrierFull)?;
        Point::PartyJoined.reached();
        Ok((taken, Participant(place)))
    }

    /// Gives a place back. An arrival stands, and one that is still to come is a successor's. With
    /// [`Release::Inconsistent`] the others are told as of a death.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if the thread does not have the place.
    pub fn leave(
        &self,
        me: &Thread<'_>,
        party: Participant,
        how: Release,
    ) -> Result<(), LockError> {
        self.places.give_back(me, party.0, |seen| {
            let left = how.left_place(me.owner());
            left.with_flags(left.flags().with(seen.flags()))
        })?;
        Point::PartyLeft.reached();
        Ok(())
    }

    /// Says that the party has done its part of the present phase, and returns which that is. If its place
    /// has arrived in it already, that stays so.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if the thread does not have the place, or was declared dead.
    pub fn arrive(
        &self,
        me: &Thread<'_>,
        env: &impl Park,
        party: Participant,
    ) -> Result<u64, LockError> {
        loop {
            if !me.is_live() {
                return Err(LockError::Fenced);
            }
            let phase = self.phase();
            let seen = self.places.look(party.0);
            if !seen.is_owned_by(me.owner()) {
                return Err(LockError::Fenced);
            }
            if seen.has_arrived(phase) {
                return Ok(phase);
            }
            if self.places.swap(party.0, seen, seen.with_flags(LockWord::arrival(phase))) {
                Point::PartyArrived.reached();
                store_then_load();
                self.pass(me, env, phase);
                return Ok(phase);
            }
        }
    }

    /// The phase that the place of `party` has arrived in, if that is the present one: to be asked after
    /// joining, since a predecessor may have arrived. [`wait`](Self::wait) for it, and do nothing of it. If
    /// there is none, the present phase stays until the party has arrived in it.
    #[must_use]
    pub fn arrived_in(&self, party: Participant) -> Option<u64> {
        let phase = self.phase();
        // The mark is the thread's own: it is no older than the phase, whatever has happened meanwhile.
        self.places.look(party.0).has_arrived(phase).then_some(phase)
    }

    /// Waits until all parties have arrived in `phase`, until `deadline`, or for ever; `Some(0)` does not
    /// wait.
    ///
    /// # Errors
    /// [`LockError::ParticipantDied`] if one that has not arrived is dead, or gave up; [`LockError::TimedOut`].
    /// The arrival stands in both cases, and the thread can wait again. [`LockError::Fenced`] if the caller
    /// was declared dead.
    pub fn wait(
        &self,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
        phase: u64,
        deadline: Option<u64>,
    ) -> Result<(), LockError> {
        if self.phase() != phase {
            return Ok(());
        }
        let mut vigil = OwnerSetWatch::default();
        let result = loop {
            let now = env.now();
            let late = deadline.is_some_and(|deadline| now >= deadline);
            let absent = OwnerSet::new(me.owner(), self.absent(phase).filter_map(LockWord::owner));
            let (evidence, slice) = vigil.plan(&absent, env, now, late);
            let lost = self.has_lost_a_party(env, phase, evidence);
            // Last, so that whatever was seen was seen in this phase.
            if self.pass(me, env, phase) {
                break Ok(());
            }
            if lost {
                break Err(LockError::ParticipantDied);
            }
            if late {
                break Err(LockError::TimedOut);
            }
            let until = deadline.unwrap_or(u64::MAX).min(now.saturating_add(slice));
            if slice == 0 {
                env.yield_now();
                continue;
            }
            match self.passed.pause(me, env, phase, Some(until), absent.owners()) {
                Ok(_) | Err(LockError::TimedOut) => {}
                Err(error) => break Err(error),
            }
        };
        me.done();
        result
    }

    /// Moves the phase if all have arrived in it. Returns whether it has passed, by whomever.
    fn pass(&self, me: &Thread<'_>, env: &impl Park, phase: u64) -> bool {
        if self.places.iter().all(|seen| seen.has_arrived(phase)) {
            self.passed.broadcast_from(me, env, phase);
        }
        self.phase() != phase
    }

    /// Whether a party that has not arrived never will.
    fn has_lost_a_party(&self, env: &impl Liveness, phase: u64, evidence: DeathCheck) -> bool {
        self.absent(phase).any(|seen| match seen.owner() {
            Some(owner) => evidence.proves_dead(env, owner),
            None => seen.flags().contains(LockFlags::INCONSISTENT),
        })
    }

    /// A party that has not arrived in `phase` and never will, if it is known by name.
    #[must_use]
    pub fn lost_party(&self, env: &impl Liveness, phase: u64) -> Option<Owner> {
        let dead = |owner: &Owner| DeathCheck::Cached.proves_dead(env, *owner);
        self.absent(phase).find_map(|seen| seen.owner().filter(dead).or(seen.left_by()))
    }

    /// The places that have not arrived in a phase.
    fn absent(&self, phase: u64) -> impl Iterator<Item = LockWord> + '_ {
        self.places.iter().filter(move |seen| !seen.has_arrived(phase))
    }
}
