//! What the ledger knows of a barrier with two slots.

use crate::crash::who::Who;

/// Slots of the barrier.
const PLACES: usize = 2;

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    who: Option<Who>,
    dead: bool,
    arrived: bool,
}

/// The slots of the barrier, its phase, and who has arrived in which phase.
#[derive(Debug, Clone, Default)]
pub(crate) struct Participants {
    places: [Place; PLACES],
    phase: u64,
    /// The latest phase in which each participant has arrived.
    arrivals: Vec<(Who, u64)>,
}

impl Participants {
    fn of(&mut self, who: Who) -> Option<&mut Place> {
        self.places.iter_mut().find(|place| place.who == Some(who))
    }

    /// The right answer to a process that joins.
    pub(crate) fn right_join(&self) -> &'static str {
        let has = |wanted: fn(&Place) -> bool| self.places.iter().any(wanted);
        match (has(|place| place.who.is_none()), has(|place| place.dead)) {
            (true, _) => "ok",
            (false, true) => "ownerdied",
            (false, false) => "failed: the barrier is full",
        }
    }

    pub(crate) fn join(&mut self, who: Who) {
        let free = self.places.iter().position(|place| place.who.is_none());
        let index = free.or_else(|| self.places.iter().position(|place| place.dead));
        if let Some(place) = index.and_then(|index| self.places.get_mut(index)) {
            (place.who, place.dead) = (Some(who), false);
        }
    }

    pub(crate) fn arrive(&mut self, who: Who) {
        let phase = self.phase;
        let Some(place) = self.of(who) else { return };
        place.arrived = true;
        self.arrivals.retain(|arrival| arrival.0 != who);
        self.arrivals.push((who, phase));
        if self.places.iter().all(|place| place.arrived) {
            self.phase += 1;
            self.places.iter_mut().for_each(|place| place.arrived = false);
        }
    }

    /// The right answer to a participant that has arrived and waits.
    pub(crate) fn right_pass(&self, who: Who, wait: bool) -> &'static str {
        let arrival = self.arrivals.iter().find(|arrival| arrival.0 == who);
        if arrival.is_none_or(|arrival| arrival.1 < self.phase) {
            return "ok";
        }
        match self.places.iter().any(|place| place.dead && !place.arrived) {
            true => "participantdied",
            false if wait => "no answer yet: another participant has not arrived",
            false => "timedout",
        }
    }

    pub(crate) fn leave(&mut self, who: Who) {
        if let Some(place) = self.of(who) {
            place.who = None;
        }
    }

    pub(crate) fn died(&mut self, who: Who) {
        if let Some(place) = self.of(who) {
            place.dead = true;
        }
    }
}
