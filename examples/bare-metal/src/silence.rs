//! How long the heartbeats of other peers have been silent, as seen from this guest.

use core::cell::Cell;

use commonhold_space::{PeerRecord, Watched};
use commonhold_sync::Verdict;

/// How many peers are watched at the same time: as many as a space has slots by default. In a larger space some peers
/// share a place, and a peer that loses its place to another is watched from the beginning again. So a dead peer may
/// be noticed late, but a live one is never taken for dead.
const PLACES: usize = 128;

/// The observations of all peers.
#[derive(Debug)]
pub(crate) struct Silence {
    seen: [Cell<Watched>; PLACES],
}

impl Silence {
    /// No observations yet.
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
