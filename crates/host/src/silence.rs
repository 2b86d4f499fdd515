//! How long a peer has been silent, as seen from here.
//!
//! # What it owns
//! For each slot, the last heartbeat seen, and for how long it has been watched without moving: by our
//! own clock, since clocks of other kernels mean nothing here.
//!
//! # Invariants
//! 1. What is seen for the first time begins its silence now, whatever happened before.
//! 2. Without a lease no silence is ever long enough.
//! 3. Only silence that was watched counts: however long ago the last look was, it adds
//!    [`WATCHED_MOST_MS`] at most. An observer that was stopped, or whose machine was, has seen
//!    nothing meanwhile, and must not blame others for its own absence.

use std::{collections::HashMap, sync::Mutex, sync::PoisonError};

use commonhold_space::PeerRecord;
use commonhold_sync::Verdict;

/// How often a heart beats where kernels share the space, in milliseconds.
const PERIOD_MS: u64 = 250;
/// How often a heart beats that nobody needs yet: often enough that a kernel which attaches later does
/// not find it silent.
const PERIOD_ALONE_MS: u64 = 500;
/// Beats that a lease lasts, at least: one that is late must not end it.
const BEATS_IN_LEASE: u64 = 5;
/// How long it may be silent before it is suspect, in milliseconds.
const GRACE_MS: u64 = 1000;
/// Most silence that one look finds: one period.
const WATCHED_MOST_MS: u64 = PERIOD_MS;

/// How often the heart of a peer should beat, in milliseconds: `spans_kernels` says whether peers of
/// other kernels are attached, and `lease_ms` is the lease of the space, or 0.
#[must_use]
pub fn heartbeat_period_ms(spans_kernels: bool, lease_ms: u64) -> u64 {
    let period = if spans_kernels { PERIOD_MS } else { PERIOD_ALONE_MS };
    match lease_ms {
        0 => period,
        lease => (lease / BEATS_IN_LEASE).clamp(1, period),
    }
}

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
    looked_ms: u64,
    silent_ms: u64,
}

impl Silence {
    /// Judges by the heartbeat alone.
    pub(crate) fn judge(&self, record: &PeerRecord, lease_ms: u64, now_ms: u64) -> Verdict {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let PeerRecord { generation, heartbeat, .. } = *record;
        let fresh = Seen { generation, heartbeat, looked_ms: now_ms, silent_ms: 0 };
        let last = seen.entry(record.peer.get()).or_insert(fresh);
        if (last.generation, last.heartbeat) == (generation, heartbeat) {
            let watched = now_ms.saturating_sub(last.looked_ms).min(WATCHED_MOST_MS);
            last.silent_ms = last.silent_ms.saturating_add(watched);
            last.looked_ms = now_ms;
        } else {
            *last = fresh;
        }
        if lease_ms != 0 && last.silent_ms >= lease_ms {
            Verdict::Dead
        } else if last.silent_ms < GRACE_MS {
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

    /// Watches a heart that stands still from `from` to `to`, at every period.
    fn watch(silence: &Silence, record: &PeerRecord, lease: u64, from: u64, to: u64) -> Verdict {
        let mut verdict = silence.judge(record, lease, from);
        let mut now = from;
        while now < to {
            now = (now + PERIOD_MS).min(to);
            verdict = silence.judge(record, lease, now);
        }
        verdict
    }

    #[test]
    fn silence_begins_when_it_is_first_seen_and_ends_with_a_beat() {
        let silence = Silence::default();
        let start = 1_000_000;
        assert_eq!(watch(&silence, &beat(1, 7), 5000, start, start + 999), Verdict::Alive);
        assert_eq!(silence.judge(&beat(1, 7), 5000, start + 1000), Verdict::Suspect);
        assert_eq!(
            watch(&silence, &beat(1, 7), 5000, start + 1000, start + 4999),
            Verdict::Suspect
        );
        assert_eq!(silence.judge(&beat(1, 7), 5000, start + 5000), Verdict::Dead);
        assert_eq!(silence.judge(&beat(1, 8), 5000, start + 5000), Verdict::Alive);
        assert_eq!(
            watch(&silence, &beat(1, 8), 5000, start + 5000, start + 9999),
            Verdict::Suspect
        );
    }

    #[test]
    fn without_a_lease_nobody_dies_of_silence() {
        let silence = Silence::default();
        assert_eq!(watch(&silence, &beat(1, 7), 0, 0, 1_000_000), Verdict::Suspect);
    }

    #[test]
    fn an_observer_that_was_stopped_itself_has_watched_nobody_meanwhile() {
        let silence = Silence::default();
        assert_eq!(silence.judge(&beat(1, 7), 500, 0), Verdict::Alive);
        // An hour later, at the first look after a pause that may have stopped the other as well.
        assert_eq!(silence.judge(&beat(1, 7), 500, 3_600_000), Verdict::Alive);
        assert_eq!(silence.judge(&beat(1, 7), 500, 3_600_249), Verdict::Alive);
        assert_eq!(silence.judge(&beat(1, 7), 500, 3_600_250), Verdict::Dead);
    }

    #[test]
    fn the_next_peer_of_a_slot_does_not_inherit_the_silence_of_the_last() {
        let silence = Silence::default();
        assert_eq!(watch(&silence, &beat(1, 7), 5000, 0, 4999), Verdict::Suspect);
        assert_eq!(watch(&silence, &beat(2, 7), 5000, 5000, 9999), Verdict::Suspect);
        assert_eq!(silence.judge(&beat(2, 7), 5000, 10_000), Verdict::Dead);
    }

    #[test]
    fn a_lease_shorter_than_the_grace_counts() {
        let silence = Silence::default();
        assert_eq!(silence.judge(&beat(1, 7), 100, 0), Verdict::Alive);
        assert_eq!(silence.judge(&beat(1, 7), 100, 100), Verdict::Dead);
    }

    #[test]
    fn a_heart_beats_several_times_within_any_lease() {
        for spans_kernels in [false, true] {
            for lease in [100, 500, 1250, 10_000] {
                let period = heartbeat_period_ms(spans_kernels, lease);
                assert!(period * BEATS_IN_LEASE <= lease, "{lease}: {period}");
            }
            assert!(heartbeat_period_ms(spans_kernels, 0) * 2 <= GRACE_MS);
            assert!(heartbeat_period_ms(spans_kernels, 1) > 0);
        }
    }
}
