//! Reaping: finding dead peers, and cleaning up what they left.
//!
//! Fencing a peer voids everything it had at one instant: its mappings and read locks cease to count,
//! and its locks may be taken over. What remains is to settle the entries of which it was the actor, and
//! to free its slot. All of that is idempotent, so it may be interrupted, and several peers may do it at once.

use core::sync::atomic::Ordering;

use commonhold_layout::{Evidence, PeerId, PeerPhase, PeerRef, PeerState, peer_word};
use commonhold_sync::{Thread, Verdict};
use commonhold_window::Point;

use crate::{Attached, DirectoryError, Patience, PeerRecord, Platform, budget::Budget};

/// Slots that are freed after one look at all entries.
const AT_ONCE: usize = 64;

/// What was found and freed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Slots that are free now.
    pub peers: u32,
    /// Entries of dead actors that were completed or undone.
    pub settled: u32,
    /// Bytes of memory in free extents that were released.
    pub given_back: u64,
}

impl Reaped {
    pub(crate) const fn freed_anything(self) -> bool {
        self.peers > 0 || self.settled > 0
    }
}

impl<P: Platform> Attached<P> {
    /// Looks for dead peers and cleans up after them. Then releases memory in free extents.
    ///
    /// # Errors
    /// [`DirectoryError`]; what could not be cleaned up is left to the next reaper.
    pub fn reap(&self, me: &Thread<'_>, patience: Patience) -> Result<Reaped, DirectoryError> {
        self.reap_with(me, patience, |_| {})
    }

    /// As [`reap`](Self::reap), and hands each dead peer's record to `tell` when its slot has been freed.
    ///
    /// # Errors
    /// As for [`reap`](Self::reap).
    pub fn reap_with(
        &self,
        me: &Thread<'_>,
        patience: Patience,
        tell: impl FnMut(&PeerRecord),
    ) -> Result<Reaped, DirectoryError> {
        let budget = patience.begin(self.view());
        let reaped = self.reap_within(me, budget, tell)?;
        Ok(Reaped { given_back: self.reclaim(me, budget)?, ..reaped })
    }

    pub(crate) fn reap_within(
        &self,
        me: &Thread<'_>,
        budget: Budget,
        mut tell: impl FnMut(&PeerRecord),
    ) -> Result<Reaped, DirectoryError> {
        let view = self.view();
        let mut dead = 0;
        for peer in view.peer_ids() {
            let state = view.peer_state(peer);
            if state.phase == PeerPhase::Free || peer == self.peer() {
                continue;
            }
            let dies = view.verdict_of(PeerRef::new(peer, state.generation)) == Verdict::Dead;
            dead += u32::from(dies);
        }
        if dead == 0 && !self.has_hint()? {
            return Ok(Reaped::default());
        }
        // If one of them died holding the directory mutex, the directory is repaired now, unless another peer has the
        // mutex.
        drop(view.directory(me, Budget::NONE));
        let mut reaped = Reaped::default();
        let mut ids = view.peer_ids();
        loop {
            // The batch is fixed before the entries are settled: a peer that is fenced later may have left something
            // in an entry that was settled before, so its slot is not freed yet.
            let mut batch = [None; AT_ONCE];
            let fenced = ids.by_ref().map(|peer| (peer, view.peer_state(peer)));
            let fenced = fenced.filter(|(_, state)| state.phase == PeerPhase::Fenced);
            for (place, dead) in batch.iter_mut().zip(fenced) {
                *place = Some(dead);
            }
            reaped.settled += self.settle(me, budget)?;
            Point::ReapSettled.reached();
            for (peer, state) in batch.iter().flatten() {
                reaped.peers += u32::from(self.free_slot(*peer, *state, &mut tell)?);
            }
            if batch.last().is_none_or(Option::is_none) {
                return Ok(reaped);
            }
        }
    }

    /// Frees the slot of a peer that is fenced, and whose entries are settled.
    fn free_slot(
        &self,
        peer: PeerId,
        state: PeerState,
        tell: &mut impl FnMut(&PeerRecord),
    ) -> Result<bool, DirectoryError> {
        let view = self.view();
        view.mark_threads(peer, state);
        view.settle_biases(peer, state);
        view.wake_for(peer);
        let record = view.peer_record(peer);
        let free = PeerState { phase: PeerPhase::Free, evidence: Evidence::NONE, ..state };
        let word = &view.peer(peer)?[peer_word::STATE];
        // The word may have bits that no program sets: the freed word has none of them.
        let found = word.load(Ordering::SeqCst);
        let freed = PeerState::read(found) == state
            && word
                .compare_exchange(found, free.word(), Ordering::SeqCst, Ordering::Relaxed)
                .is_ok();
        if freed {
            Point::ReapFreed.reached();
            if let Some((record, _)) = record {
                tell(&record);
            }
        }
        Ok(freed)
    }
}
