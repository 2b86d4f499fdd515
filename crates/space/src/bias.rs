//! What becomes of the mutexes that are biased to a thread whose slot goes to somebody else.
//!
//! # Invariants
//! 1. Before a slot can have another peer, the words of all mutexes in which threads of its last one are inside,
//!    or were when it died, say that they are inconsistent. What such threads are outside of needs nothing:
//!    its words are of biases that no entry knows.
//! 2. A number is that of one bias only, so one that was read while the slot was the dead's is none of a
//!    later peer's, however long whoever read it sleeps.

use commonhold_layout::{Bias, Offset, PeerId, PeerState, RegionId, RegionPhase, ThreadId};
use commonhold_sync::{inside_of, settle_bias};

use crate::{Platform, View};

impl<P: Platform> View<P> {
    /// Tells the next owners of the mutexes that were biased to threads of a dead peer, and in which those
    /// died. Called before the slot can have another peer; what was read of it by then was the dead's.
    pub(crate) fn settle_biases(&self, peer: PeerId, dead: PeerState) {
        for thread in (0..self.threads_used(peer)).filter_map(ThreadId::new) {
            self.settle_while(peer, thread, || self.peer_state(peer) == dead);
        }
    }

    /// The same for one thread, which is dead or gives its slot back. Called before the slot can have another.
    pub(crate) fn settle_thread(&self, peer: PeerId, thread: ThreadId) {
        let Ok(slot) = self.thread_slot(peer, thread) else { return };
        let life = slot.life();
        self.settle_while(peer, thread, || slot.life() == life);
    }

    fn settle_while(&self, peer: PeerId, thread: ThreadId, still: impl Fn() -> bool) {
        let Ok(slot) = self.thread(peer, thread) else { return };
        for (at, bias) in inside_of(slot, |number| Bias { peer, thread, number }) {
            // Where a region has been freed, or never had memory, a look would take it.
            if still()
                && self.is_in_a_region(at)
                && let Some(word) = self.look_at(at)
            {
                settle_bias(word, bias, self);
            }
        }
    }

    /// Whether a region has the byte at `at`, with memory behind it.
    fn is_in_a_region(&self, at: Offset) -> bool {
        let has = |region| {
            let state = self.region_state(region).ok()?;
            let extent = self.extent(self.entry(region).ok()?).ok()?;
            let phases = [RegionPhase::Active, RegionPhase::Destroying];
            let inside = extent.start() <= at && at.get() < extent.end();
            Some(inside && phases.contains(&state.phase))
        };
        let used = self.regions_used().unwrap_or(0);
        (0..used).map(RegionId::new).any(|region| has(region) == Some(true))
    }
}
