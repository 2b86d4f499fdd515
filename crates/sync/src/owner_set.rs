//! Those for whom somebody waits of whom one is as good as another, or all are needed: the holders of permits, and
//! the parties that have not arrived. Their death futexes are heard all at once, and evidence is looked for as of one owner: the
//! one whose death futex tells most.

use commonhold_layout::{Owner, PLACES_MOST};

use crate::{
    DeathNotice, Liveness, Park,
    owner_slots::DeathCheck,
    wait::{Plan, Watch},
};

/// The owners of places, each once for every place.
#[derive(Debug)]
pub(crate) struct OwnerSet {
    owners: [Owner; PLACES_MOST],
    count: usize,
}

impl OwnerSet {
    /// `owners`; those beyond as many as there can be places are left out. `me` is any owner at all.
    pub(crate) fn new(me: Owner, owners: impl Iterator<Item = Owner>) -> Self {
        let mut owner_set = Self { owners: [me; PLACES_MOST], count: 0 };
        for (place, owner) in owner_set.owners.iter_mut().zip(owners) {
            *place = owner;
            owner_set.count += 1;
        }
        owner_set
    }

    /// Those for whose death futexes to sleep.
    pub(crate) fn owners(&self) -> &[Owner] {
        self.owners.get(..self.count).unwrap_or_default()
    }

    /// The one by whom the wait goes: one whose death futex has rung, or else one that has none, or else any.
    fn loudest(&self, env: &impl Liveness) -> Option<(Owner, DeathNotice)> {
        let told = self.owners().iter().map(|owner| (*owner, env.death_notice(*owner)));
        told.max_by_key(|(_, death_futex)| match death_futex {
            DeathNotice::Fired => 3,
            DeathNotice::Unavailable => 2,
            DeathNotice::Imminent => 1,
            DeathNotice::Pending => 0,
        })
    }
}

/// One wait for a owner_set.
#[derive(Debug, Default)]
pub(crate) struct OwnerSetWatch(Watch);

impl OwnerSetWatch {
    /// What to do before the next look, and whether that is to seek evidence.
    pub(crate) fn plan(
        &mut self,
        owner_set: &OwnerSet,
        env: &(impl Park + Liveness),
        now: u64,
        late: bool,
    ) -> (DeathCheck, u64) {
        let Plan { look, slice_ns } = match owner_set.loudest(env) {
            Some((owner, death_futex)) => self.0.plan(owner, death_futex, now, late),
            None => Plan { look: late, slice_ns: crate::SLICE_NS },
        };
        (if look { DeathCheck::Probe } else { DeathCheck::Cached }, slice_ns)
    }
}
