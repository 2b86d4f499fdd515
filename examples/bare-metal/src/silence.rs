//! How long other peers have been silent, as watched from here.

use core::cell::Cell;

use commonhold_space::{PeerRecord, Watched};
use commonhold_sync::Verdict;

/// Peers that are watched at the same time: as many as a space has slots unless told otherwise. In a
/// larger one some share a place, and one that lost it to another begins anew: it lives too long rather
/// than not long enough.
const PLACES: usize = 128;

/// What was seen of all peers.
#[derive(Debug)]
pub(crate) struct Silence {
    seen: [Cell<Watched>; PLACES],
}

impl Silence {
    /// Nothing has been seen.
    pub(crate) fn new() -> Self {
        Self { seen: [const { Cell::new(Watched::NOBODY) }; PLACES] }
    }

    /// Judges a peer by its heartbeat alone.
    pub(crate) fn judge(&self, record: &PeerRecord, lease_ms: u64, now_ms: u64) -> Verdict {
        let Some(place) = self.seen.get(usize::from(record.peer.get()) % PLACES) else {
            return Verdict::Suspect;
        };
        let mut watched = place.get();
        let verdict = watched.look(record, lease_ms, now_ms);
        place.set(watched);
        verdict
    }
}
