//! The barrier: a fixed number of participants, none of which goes on before all have arrived.
//!
//! Each participant has a slot, a word that names it. It arrives by a mark in that word. A participant that then sees
//! all slots marked moves the phase, which is the number of an event. There is no count of arrivals:
//! after a death, a count could disagree with the marks.
//!
//! # Invariants
//! 1. A participant marks its slot for the phase by one compare-and-swap of the word that names it. No thread removes
//!    the mark during that phase: if the participant leaves or dies, and another takes the slot, the mark stays. The
//!    slot's owner replaces it when it arrives in the next phase, which begins only after all slots were marked. So a
//!    thread may look at the slots one after the other: if it finds each marked, all are marked.
//! 2. A thread that found all slots marked for phase `p` moves the phase by a compare-and-swap from `p` to `p + 1`.
//!    Several threads may try; one succeeds, and the others change nothing. So each phase passes once.
//! 3. The mark, and the look at the other slots after it, are sequentially consistent: the last participant to arrive
//!    sees all marks, and moves the phase. If it dies before that, a waiter moves the phase at the end of its *slice*:
//!    the longest time that a waiter sleeps before it looks again.
//!
//! # Deaths
//! - A participant, before it has arrived: the waiters are told so ([`LockError::ParticipantDied`]), and so are later
//!   ones, until another participant has joined in its slot (and is told so too) and arrived. A waiter that
//!   was told can wait again: its arrival stands.
//! - A participant, after it has arrived: the phase passes as if it lived, since it has done its part. In the next
//!   phase it counts as one that has not arrived.
//! - The last participant, after it has arrived and before it moved the phase: see invariant 3. After it moved the
//!   phase and before it woke the others: its reaper wakes them; at the latest they see the phase at the end of their
//!   slice.
//! - A participant that never joined is not dead: only a deadline ends the wait for it.

use commonhold_layout::{LockFlags, LockWord, Offset, Owner};
use commonhold_window::{Point, atomic::AtomicU64};

use crate::{
    Event, Liveness, LockError, Park, Release, Taken, Thread,
    owner_set::{OwnerSet, OwnerSetWatch},
    owner_slots::{DeathCheck, OwnerSlots},
    store_then_load,
};

/// A barrier on a word for its event, and one for each participant.
#[derive(Debug, Clone, Copy)]
pub struct Barrier<'a> {
    passed: Event<'a>,
    slots: OwnerSlots<'a>,
}

/// Which slot of the barrier a thread has: what to give to [`Barrier::arrive`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Participant(usize);

impl Participant {
    /// The number of its slot, from 0.
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0
    }
}

impl<'a> Barrier<'a> {
    /// The barrier with these slots, whose event word is `event`, at offset `at` of its window.
    #[inline]
    #[must_use]
    pub const fn new(event: &'a AtomicU64, at: Offset, slots: &'a [AtomicU64]) -> Self {
        Self { passed: Event::new(event, at), slots: OwnerSlots(slots) }
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

    /// Takes a free slot, or that of a dead participant ([`Taken::OwnerDied`]). It never waits.
    ///
    /// # Errors
    /// [`LockError::BarrierFull`] if living participants have all slots; [`LockError::Fenced`] if the caller
    /// was declared dead.
    pub fn join(
        &self,
        me: &Thread<'_>,
        env: &impl Liveness,
    ) -> Result<(Taken, Participant), LockError> {
        if !me.is_live() {
            return Err(LockError::Fenced);
        }
        let slot = self.slots.take(me, env, DeathCheck::Probe);
        let (slot, taken) = slot.ok_or(LockError::BarrierFull)?;
        Point::ParticipantJoined.reached();
        Ok((taken, Participant(slot)))
    }

    /// Gives a slot back. If the participant has arrived in the present phase, that stands; if not, a successor in the
    /// slot must arrive. With [`Release::Inconsistent`] the others are told as of a death.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if the thread does not have the slot.
    pub fn leave(
        &self,
        me: &Thread<'_>,
        participant: Participant,
        how: Release,
    ) -> Result<(), LockError> {
        self.slots.give_back(me, participant.0, |seen| {
            let left = how.left_slot(me.owner());
            left.with_flags(left.flags().with(seen.flags()))
        })?;
        Point::ParticipantLeft.reached();
        Ok(())
    }

    /// Says that the participant has arrived in the present phase, and returns the phase. If its slot
    /// has arrived in it already, nothing changes.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if the thread does not have the slot, or was declared dead.
    pub fn arrive(
        &self,
        me: &Thread<'_>,
        env: &impl Park,
        participant: Participant,
    ) -> Result<u64, LockError> {
        loop {
            if !me.is_live() {
                return Err(LockError::Fenced);
            }
            let phase = self.phase();
            let seen = self.slots.look(participant.0);
            if !seen.is_owned_by(me.owner()) {
                return Err(LockError::Fenced);
            }
            if seen.has_arrived(phase) {
                return Ok(phase);
            }
            if self.slots.swap(participant.0, seen, seen.with_flags(LockWord::arrival(phase))) {
                Point::ParticipantArrived.reached();
                store_then_load();
                self.pass(me, env, phase);
                return Ok(phase);
            }
        }
    }

    /// The present phase, if the slot of `participant` has arrived in it. To be asked after joining: if a predecessor
    /// has arrived, the participant only [waits](Self::wait) for that phase, and does no work in it. With `None`, the
    /// present phase stays until the participant has arrived in it.
    #[must_use]
    pub fn arrived_in(&self, participant: Participant) -> Option<u64> {
        let phase = self.phase();
        // Only this thread marks the slot now: the mark is no older than the phase, whatever has happened meanwhile.
        self.slots.look(participant.0).has_arrived(phase).then_some(phase)
    }

    /// Waits until all participants have arrived in `phase`, until `deadline`, or for ever; `Some(0)` does not
    /// wait.
    ///
    /// # Errors
    /// [`LockError::ParticipantDied`] if a participant that has not arrived is dead, or gave up;
    /// [`LockError::TimedOut`]. The arrival stands in both cases, and the thread can wait again.
    /// [`LockError::Fenced`] if the caller was declared dead.
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
        let mut watch = OwnerSetWatch::default();
        let result = loop {
            let now = env.now();
            let late = deadline.is_some_and(|deadline| now >= deadline);
            let absent = OwnerSet::new(me.owner(), self.absent(phase).filter_map(LockWord::owner));
            let (evidence, slice) = watch.plan(&absent, env, now, late);
            let lost = self.has_lost_a_participant(env, phase, evidence);
            // Last: if the phase has not passed, all that was seen above was seen in this phase.
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

    /// Moves the phase if all have arrived in it. Returns whether it has passed; another thread may have moved it.
    fn pass(&self, me: &Thread<'_>, env: &impl Park, phase: u64) -> bool {
        if self.slots.iter().all(|seen| seen.has_arrived(phase)) {
            self.passed.broadcast_from(me, env, phase);
        }
        self.phase() != phase
    }

    /// Whether a participant that has not arrived is dead, or gave up.
    fn has_lost_a_participant(
        &self,
        env: &impl Liveness,
        phase: u64,
        evidence: DeathCheck,
    ) -> bool {
        self.absent(phase).any(|seen| match seen.owner() {
            Some(owner) => evidence.proves_dead(env, owner),
            None => seen.flags().contains(LockFlags::INCONSISTENT),
        })
    }

    /// A participant that has not arrived in `phase` and is dead, or gave up, if its identity is known.
    #[must_use]
    pub fn lost_participant(&self, env: &impl Liveness, phase: u64) -> Option<Owner> {
        let dead = |owner: &Owner| DeathCheck::Cached.proves_dead(env, *owner);
        self.absent(phase).find_map(|seen| seen.owner().filter(dead).or(seen.left_by()))
    }

    /// The slots that have not arrived in a phase.
    fn absent(&self, phase: u64) -> impl Iterator<Item = LockWord> + '_ {
        self.slots.iter().filter(move |seen| !seen.has_arrived(phase))
    }
}
