//! Those for whom somebody waits of whom one is as good as another, or all are needed: the holders of permits, and
//! the parties that have not arrived. Their bells are heard all at once, and evidence is looked for as of one owner: the
//! one whose bell tells most.

use commonhold_layout::{Owner, PLACES_MOST};

use crate::{
    Bell, Liveness, Park,
    places::Evidence,
    wait::{Plan, Watch},
};

/// The owners of places, each once for every place.
#[derive(Debug)]
pub(crate) struct Crowd {
    owners: [Owner; PLACES_MOST],
    count: usize,
}

impl Crowd {
    /// `owners`; those beyond as many as there can be places are left out. `me` is any owner at all.
    pub(crate) fn of(me: Owner, owners: impl Iterator<Item = Owner>) -> Self {
        let mut crowd = Self { owners: [me; PLACES_MOST], count: 0 };
        for (place, owner) in crowd.owners.iter_mut().zip(owners) {
            *place = owner;
            crowd.count += 1;
        }
        crowd
    }

    /// Those for whose bells to sleep.
    pub(crate) fn owners(&self) -> &[Owner] {
        self.owners.get(..self.count).unwrap_or_default()
    }

    /// The one by whom the wait goes: one whose bell has rung, or else one that has none, or else any.
    fn loudest(&self, env: &impl Liveness) -> Option<(Owner, Bell)> {
        let told = self.owners().iter().map(|owner| (*owner, env.bell(*owner)));
        told.max_by_key(|(_, bell)| match bell {
            Bell::Rung => 3,
            Bell::None => 2,
            Bell::Due => 1,
            Bell::Silent => 0,
        })
    }
}

/// One wait for a crowd.
#[derive(Debug, Default)]
pub(crate) struct Vigil(Watch);

impl Vigil {
    /// What to do before the next look, and whether that is to seek evidence.
    pub(crate) fn plan(
        &mut self,
        crowd: &Crowd,
        env: &(impl Park + Liveness),
        now: u64,
        late: bool,
    ) -> (Evidence, u64) {
        let Plan { look, slice_ns } = match crowd.loudest(env) {
            Some((owner, bell)) => self.0.plan(owner, bell, now, late),
            None => Plan { look: late, slice_ns: crate::SLICE_NS },
        };
        (if look { Evidence::Sought } else { Evidence::Known }, slice_ns)
    }
}
