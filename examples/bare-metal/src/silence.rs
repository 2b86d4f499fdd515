//! How long other peers have been silent, as watched from here.
//!
//! # Invariants
//! 1. Silence begins when a heartbeat is seen for the first time, whatever happened before.
//! 2. Only watched silence counts: the time between two looks adds no more than [`LOOK_MOST_MS`]. A
//!    guest that was paused, or looked away, has heard nothing in between, and must not conclude that
//!    nobody spoke.
//! 3. Without a lease no silence is ever long enough.

use core::cell::Cell;

use commonhold_space::PeerRecord;
use commonhold_sync::Verdict;

/// Most that the time between two looks adds.
const LOOK_MOST_MS: u64 = 250;
/// How long a peer may be silent before it is suspect.
const GRACE_MS: u64 = 1000;
/// Peers that are watched at the same time: as many as a space has slots unless told otherwise. In a
/// larger one some share a place, and one that lost it to another begins anew: it lives too long rather
/// than not long enough.
const PLACES: usize = 128;

/// What was seen of one peer.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    slot: u16,
    generation: u32,
    heartbeat: u64,
    looked_ms: u64,
    silent_ms: u64,
}

/// What was seen of all peers.
#[derive(Debug)]
pub(crate) struct Silence {
    seen: [Cell<Seen>; PLACES],
}

impl Silence {
    /// Nothing has been seen. (No peer has generation 0, so an empty place is nobody's.)
    pub(crate) fn new() -> Self {
        Self { seen: [const { Cell::new(NOBODY) }; PLACES] }
    }

    /// Judges a peer by its heartbeat alone.
    pub(crate) fn judge(&self, record: &PeerRecord, lease_ms: u64, now_ms: u64) -> Verdict {
        let (slot, generation, heartbeat) =
            (record.peer.get(), record.generation, record.heartbeat);
        let Some(place) = self.seen.get(usize::from(slot) % PLACES) else {
            return Verdict::Suspect;
        };
        let last = place.get();
        let same = (last.slot, last.generation, last.heartbeat) == (slot, generation, heartbeat);
        let watched = now_ms.saturating_sub(last.looked_ms).min(LOOK_MOST_MS);
        let silent_ms = if same { last.silent_ms.saturating_add(watched) } else { 0 };
        place.set(Seen { slot, generation, heartbeat, looked_ms: now_ms, silent_ms });
        if lease_ms != 0 && silent_ms >= lease_ms {
            Verdict::Dead
        } else if silent_ms < GRACE_MS {
            Verdict::Alive
        } else {
            Verdict::Suspect
        }
    }
}

const NOBODY: Seen = Seen { slot: 0, generation: 0, heartbeat: 0, looked_ms: 0, silent_ms: 0 };
