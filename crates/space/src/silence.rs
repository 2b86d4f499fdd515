//! How long a peer's heartbeat count has stood still, as one observer has watched it.
//!
//! # What it owns
//! The rules by which heartbeats are judged: how often a peer counts up its heartbeat, and after which silence it is
//! suspect or, with a lease, dead. Observers keep their observations themselves.
//!
//! # Invariants
//! 1. A count that is seen for the first time begins its silence now, regardless of what happened before.
//! 2. Without a lease, no silence makes a peer dead.
//! 3. Only observed silence counts: each look adds [`WATCHED_MOST_MS`] at most, however long ago the last look was.
//!    An observer that was stopped, or whose machine was stopped, has seen nothing meanwhile, and must not blame
//!    peers for its own absence.

use commonhold_sync::Verdict;

use crate::PeerRecord;

/// The period of heartbeats while several kernels share the space, in milliseconds.
const PERIOD_MS: u64 = 250;
/// The period while no other kernel needs them, in milliseconds: short enough that a peer of another kernel that
/// attaches later does not find a living peer silent.
const PERIOD_ALONE_MS: u64 = 500;
/// A lease lasts at least this many heartbeats, so that a late one does not end it.
const BEATS_IN_LEASE: u64 = 5;
/// The silence after which a peer is suspect, in milliseconds.
const GRACE_MS: u64 = 1000;
/// Most silence that one look adds: one period.
const WATCHED_MOST_MS: u64 = PERIOD_MS;

/// The period in milliseconds at which a peer should count up its heartbeat and look at those of other peers.
/// `spans_kernels` says whether peers of other kernels are attached, and `lease_ms` is the lease of the
/// space, or 0.
#[must_use]
pub fn heartbeat_period_ms(spans_kernels: bool, lease_ms: u64) -> u64 {
    let period = if spans_kernels { PERIOD_MS } else { PERIOD_ALONE_MS };
    match lease_ms {
        0 => period,
        lease => (lease / BEATS_IN_LEASE).clamp(1, period),
    }
}

/// What an observer has seen of the heartbeat of one peer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Watched {
    slot: u16,
    generation: u32,
    heartbeat: u64,
    looked_ms: u64,
    silent_ms: u64,
}

impl Watched {
    /// No peer watched yet: no peer has generation 0.
    pub const NOBODY: Self =
        Self { slot: 0, generation: 0, heartbeat: 0, looked_ms: 0, silent_ms: 0 };

    /// Takes one more look at time `now_ms`, on any clock of the observer, and judges by the heartbeat
    /// alone. If another peer was watched before, this one's silence begins now.
    pub fn look(&mut self, record: &PeerRecord, lease_ms: u64, now_ms: u64) -> Verdict {
        let (slot, generation, heartbeat) =
            (record.peer.get(), record.generation, record.heartbeat);
        let same = (self.slot, self.generation, self.heartbeat) == (slot, generation, heartbeat);
        let watched = now_ms.saturating_sub(self.looked_ms).min(WATCHED_MOST_MS);
        let silent_ms = if same { self.silent_ms.saturating_add(watched) } else { 0 };
        *self = Self { slot, generation, heartbeat, looked_ms: now_ms, silent_ms };
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
    use crate::Identity;
    use commonhold_layout::{BootId, Evidence, PeerId, PeerName};

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
            death_futex: commonhold_layout::DeathFutex::NONE,
        }
    }

    /// Looks at a heartbeat that stands still, once a period from `from` to `to`.
    fn watch(
        silence: &mut Watched,
        record: &PeerRecord,
        lease: u64,
        from: u64,
        to: u64,
    ) -> Verdict {
        let mut verdict = silence.look(record, lease, from);
        let mut now = from;
        while now < to {
            now = (now + PERIOD_MS).min(to);
            verdict = silence.look(record, lease, now);
        }
        verdict
    }

    #[test]
    fn silence_begins_at_the_first_look_and_ends_with_a_heartbeat() {
        let silence = &mut Watched::default();
        let start = 1_000_000;
        assert_eq!(watch(silence, &beat(1, 7), 5000, start, start + 999), Verdict::Alive);
        assert_eq!(silence.look(&beat(1, 7), 5000, start + 1000), Verdict::Suspect);
        assert_eq!(watch(silence, &beat(1, 7), 5000, start + 1000, start + 4999), Verdict::Suspect);
        assert_eq!(silence.look(&beat(1, 7), 5000, start + 5000), Verdict::Dead);
        assert_eq!(silence.look(&beat(1, 8), 5000, start + 5000), Verdict::Alive);
        assert_eq!(watch(silence, &beat(1, 8), 5000, start + 5000, start + 9999), Verdict::Suspect);
    }

    #[test]
    fn without_a_lease_a_silent_peer_is_never_dead() {
        let silence = &mut Watched::default();
        assert_eq!(watch(silence, &beat(1, 7), 0, 0, 1_000_000), Verdict::Suspect);
    }

    #[test]
    fn the_time_in_which_the_observer_was_stopped_does_not_count_as_silence() {
        let silence = &mut Watched::default();
        assert_eq!(silence.look(&beat(1, 7), 500, 0), Verdict::Alive);
        // The first look after an hour in which the observer, and perhaps the peer, was stopped.
        assert_eq!(silence.look(&beat(1, 7), 500, 3_600_000), Verdict::Alive);
        assert_eq!(silence.look(&beat(1, 7), 500, 3_600_249), Verdict::Alive);
        assert_eq!(silence.look(&beat(1, 7), 500, 3_600_250), Verdict::Dead);
    }

    #[test]
    fn the_next_peer_of_a_slot_does_not_inherit_the_silence_of_the_last() {
        let silence = &mut Watched::default();
        assert_eq!(watch(silence, &beat(1, 7), 5000, 0, 4999), Verdict::Suspect);
        assert_eq!(watch(silence, &beat(2, 7), 5000, 5000, 9999), Verdict::Suspect);
        assert_eq!(silence.look(&beat(2, 7), 5000, 10_000), Verdict::Dead);
    }

    #[test]
    fn watching_another_peer_in_between_begins_the_silence_anew() {
        let silence = &mut Watched::default();
        let other = PeerRecord { peer: PeerId::new(6), ..beat(1, 7) };
        assert_eq!(watch(silence, &beat(1, 7), 5000, 0, 4999), Verdict::Suspect);
        assert_eq!(silence.look(&other, 5000, 5000), Verdict::Alive);
        assert_eq!(silence.look(&beat(1, 7), 5000, 5000), Verdict::Alive);
    }

    #[test]
    fn a_lease_shorter_than_the_grace_counts() {
        let silence = &mut Watched::default();
        assert_eq!(silence.look(&beat(1, 7), 100, 0), Verdict::Alive);
        assert_eq!(silence.look(&beat(1, 7), 100, 100), Verdict::Dead);
    }

    #[test]
    fn every_lease_lasts_several_heartbeats() {
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
