//! How long a peer has been silent, as seen from here.
//!
//! # What it owns
//! For each slot, the last heartbeat seen and when it was first seen, by our own clock: clocks of
//! other kernels mean nothing here.
//!
//! # Invariants
//! 1. What is seen for the first time begins its silence now, whatever happened before.
//! 2. Without a lease no silence is ever long enough.

use std::{collections::HashMap, sync::Mutex, sync::PoisonError};

use commonhold_space::PeerRecord;
use commonhold_sync::Verdict;

/// How often a peer that leaves the evidence of a heartbeat should move it, in milliseconds.
pub const HEARTBEAT_PERIOD_MS: u64 = 250;
/// How long it may be silent before it is suspect, in milliseconds.
const GRACE_MS: u64 = 4 * HEARTBEAT_PERIOD_MS;

/// Heartbeats as this observer has seen them.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    // By slot, so that it stays as small as the table of peers.
    seen: Mutex<HashMap<u16, Seen>>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    generation: u32,
    heartbeat: u64,
    since_ms: u64,
}

impl Silence {
    /// Judges by the heartbeat alone.
    pub(crate) fn judge(&self, record: &PeerRecord, lease_ms: u64, now_ms: u64) -> Verdict {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let PeerRecord { generation, heartbeat, .. } = *record;
        let fresh = Seen { generation, heartbeat, since_ms: now_ms };
        let last = seen.entry(record.peer.get()).or_insert(fresh);
        if (last.generation, last.heartbeat) != (generation, heartbeat) {
            *last = fresh;
        }
        let silent_ms = now_ms.saturating_sub(last.since_ms);
        if lease_ms != 0 && silent_ms >= lease_ms {
            Verdict::Dead
        } else if silent_ms < GRACE_MS {
            Verdict::Alive
        } else {
            Verdict::Suspect
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonhold_layout::{BootId, Evidence, PeerId, PeerName};
    use commonhold_space::Identity;

    fn beat(generation: u32, heartbeat: u64) -> PeerRecord {
        let identity = Identity {
            boot: BootId(1),
            pid: 1,
            pid_namespace: 1,
            start_time: 1,
            uid: 0,
            name: PeerName::default(),
        };
        PeerRecord {
            peer: PeerId::new(5),
            generation,
            evidence: Evidence::HEARTBEAT,
            identity,
            attached_ms: 0,
            heartbeat,
        }
    }

    #[test]
    fn silence_begins_when_it_is_first_seen_and_ends_with_a_beat() {
        let silence = Silence::default();
        let at = |heartbeat, lease, now| silence.judge(&beat(1, heartbeat), lease, now);
        assert_eq!(at(7, 5000, 1_000_000), Verdict::Alive);
        assert_eq!(at(7, 5000, 1_000_999), Verdict::Alive);
        assert_eq!(at(7, 5000, 1_001_000), Verdict::Suspect);
        assert_eq!(at(7, 5000, 1_004_999), Verdict::Suspect);
        assert_eq!(at(7, 5000, 1_005_000), Verdict::Dead);
        assert_eq!(at(8, 5000, 1_005_000), Verdict::Alive);
        assert_eq!(at(8, 5000, 1_009_999), Verdict::Suspect);
    }

    #[test]
    fn without_a_lease_nobody_dies_of_silence() {
        let silence = Silence::default();
        assert_eq!(silence.judge(&beat(1, 7), 0, 0), Verdict::Alive);
        assert_eq!(silence.judge(&beat(1, 7), 0, u64::MAX), Verdict::Suspect);
    }

    #[test]
    fn the_next_peer_of_a_slot_does_not_inherit_the_silence_of_the_last() {
        let silence = Silence::default();
        assert_eq!(silence.judge(&beat(1, 7), 5000, 0), Verdict::Alive);
        assert_eq!(silence.judge(&beat(2, 7), 5000, 9000), Verdict::Alive);
        assert_eq!(silence.judge(&beat(2, 7), 5000, 14_000), Verdict::Dead);
    }

    #[test]
    fn a_lease_shorter_than_the_grace_counts() {
        let silence = Silence::default();
        assert_eq!(silence.judge(&beat(1, 7), 100, 0), Verdict::Alive);
        assert_eq!(silence.judge(&beat(1, 7), 100, 100), Verdict::Dead);
    }
}
