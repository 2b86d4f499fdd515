//! Settling the locks that are biased to a thread, before another thread gets its slot.
//!
//! A biased lock word names a thread slot and the number of the bias. That slot has an entry with the same number, which
//! says whether its thread is *inside* (holds the lock) or *outside*: see `commonhold_sync`, `bias.rs`. The word is that
//! of a mutex, or the writer's word of a reader/writer lock; it lies in a region, or in the entry of a region.
//!
//! # Invariants
//! 1. Before a slot can have another peer, every biased lock that a thread of the last peer was inside of has been
//!    marked inconsistent. A biased lock that its thread was outside of stays as it is. The next contender revokes
//!    the bias and looks at the slot. No entry there says *inside* with that number, so the contender takes the lock
//!    as a free one.
//! 2. Each bias has a number of its own. So a number that was read from a dead peer's slot never names a bias of a
//!    later peer, however long ago it was read.

use commonhold_layout::{Bias, Offset, Owner, PeerId, PeerState, RegionId, RegionPhase, ThreadId};
use commonhold_sync::{ThreadSlot, inside_of, settle_bias};

use crate::{Platform, View, WaitTarget};

impl<P: Platform> View<P> {
    /// Marks the locks that threads of a dead peer died inside of by bias, so that the next owners are told. Called
    /// before the slot can have another peer: so what is read from it belongs to the dead one.
    pub(crate) fn settle_biases(&self, peer: PeerId, dead: PeerState) {
        for thread in (0..self.threads_used(peer)).filter_map(ThreadId::new) {
            self.settle_while(peer, thread, || self.peer_state(peer) == dead);
        }
    }

    /// The same for one thread, which is dead or gives its slot back. Called before another thread can have the slot.
    pub(crate) fn settle_thread(&self, peer: PeerId, thread: ThreadId) {
        let Ok(slot) = self.thread_slot(peer, thread) else { return };
        let life = slot.life();
        self.settle_while(peer, thread, || slot.life() == life);
    }

    fn settle_while(&self, peer: PeerId, thread: ThreadId, still: impl Fn() -> bool) {
        let Ok(slot) = self.thread(peer, thread) else { return };
        let dead = Owner::new(peer, ThreadSlot::new(slot).life().incarnation(), thread);
        for (at, bias) in inside_of(slot, |number| Bias { peer, thread, number }) {
            // Only where locks can be, and only where there is memory: elsewhere a look would commit memory.
            if still()
                && (self.is_in_a_region(at) || self.is_of_a_region(at))
                && let Some(word) = self.look_at(at)
            {
                settle_bias(word, bias, dead, self);
            }
        }
    }

    /// Whether the writer's word of a region's own lock lies at `at`.
    fn is_of_a_region(&self, at: Offset) -> bool {
        matches!(self.place(at), WaitTarget::Lock(_))
    }

    /// Whether the byte at `at` lies in an active region, or in one that is being destroyed.
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
