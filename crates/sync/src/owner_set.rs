//! A set of owners that one thread waits for: the holders of all permits, or all participants that have not arrived.
//!
//! The kernel wakes the waiter if any of them dies, where it can tell ([`DeathNotice`]). One owner of the set decides
//! when the waiter looks for evidence and how long it sleeps: the one that needs the earliest look. That is an owner
//! whose death futex has fired; else one of whose death the kernel will not tell; else one whose process is about to
//! end; else any.

use commonhold_layout::{Owner, PLACES_MOST};

use crate::{
    DeathNotice, Liveness, Park,
    owner_slots::DeathCheck,
    wait::{Plan, Watch},
};

/// The owners of owner slots, each once for every slot that it has.
#[derive(Debug)]
pub(crate) struct OwnerSet {
    owners: [Owner; PLACES_MOST],
    count: usize,
}

impl OwnerSet {
    /// The set of the first [`PLACES_MOST`] of `owners`. `me` only fills the unused part of the array: any owner will
    /// do.
    pub(crate) fn new(me: Owner, owners: impl Iterator<Item = Owner>) -> Self {
        let mut owner_set = Self { owners: [me; PLACES_MOST], count: 0 };
        for (free, owner) in owner_set.owners.iter_mut().zip(owners) {
            *free = owner;
            owner_set.count += 1;
        }
        owner_set
    }

    /// All owners of the set: a waiter sleeps for their death futexes.
    pub(crate) fn owners(&self) -> &[Owner] {
        self.owners.get(..self.count).unwrap_or_default()
    }

    /// The owner that decides about the wait, in the order that the head of this file gives.
    fn loudest(&self, env: &impl Liveness) -> Option<(Owner, DeathNotice)> {
        let told = self.owners().iter().map(|owner| (*owner, env.death_notice(*owner)));
        told.max_by_key(|(_, notice)| match notice {
            DeathNotice::Fired => 3,
            DeathNotice::Unavailable => 2,
            DeathNotice::Imminent => 1,
            DeathNotice::Pending => 0,
        })
    }
}

/// One wait for an owner set.
#[derive(Debug, Default)]
pub(crate) struct OwnerSetWatch(Watch);

impl OwnerSetWatch {
    /// Whether to look for evidence at the next look, and how many nanoseconds to sleep at most after it.
    pub(crate) fn plan(
        &mut self,
        owner_set: &OwnerSet,
        env: &(impl Park + Liveness),
        now: u64,
        late: bool,
    ) -> (DeathCheck, u64) {
        let Plan { look, slice_ns } = match owner_set.loudest(env) {
            Some((owner, notice)) => self.0.plan(owner, notice, now, late),
            None => Plan { look: late, slice_ns: crate::SLICE_NS },
        };
        (if look { DeathCheck::Probe } else { DeathCheck::Cached }, slice_ns)
    }
}
