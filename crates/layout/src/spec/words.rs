//! Words made of their parts.

use crate::{
    Evidence, Intent, IntentKind, IntentPhase, PeerPhase, PeerState, RegionFlags, RegionId,
    RegionPhase, RegionState,
};

pub(super) fn peer_state(generation: u32, phase: PeerPhase, evidence: Evidence) -> u64 {
    PeerState { generation, phase, evidence }.word()
}

pub(super) fn region_state(generation: u32, phase: RegionPhase, flags: RegionFlags) -> u64 {
    RegionState { generation, phase, flags }.word()
}

pub(super) fn intent(kind: IntentKind, phase: IntentPhase, region: u32) -> u64 {
    Intent { kind, phase, region: RegionId::new(region) }.word()
}
