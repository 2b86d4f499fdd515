//! Peers and domains, read from their records: which peers are attached, what their threads wait for, what they map.
//!
//! Another peer may take the slot at any time. So what is read of a peer is used only if the state word of its slot
//! is the same before and after the reads.

use core::sync::atomic::{AtomicU64, Ordering};

use commonhold_layout::{
    BootId, DeathFutex, DomainState, Owner, PeerId, PeerName, PeerPhase, PeerRef, PeerState,
    Pending, PendingKind, RegionId, ShareWord, ThreadId, domain_word, header_word, peer_word,
    thread_word,
};
use commonhold_sync::{ThreadSlot, used};
use commonhold_window::Point;

use crate::{Identity, PeerRecord, Platform, View};

impl<P: Platform> View<P> {
    /// Only slots below this number have ever had a peer.
    pub fn peers_used(&self) -> u16 {
        let claim = self.header().map_or(0, |header| used(&header[header_word::PEERS_USED]));
        u16::try_from(claim).unwrap_or(u16::MAX).min(self.geometry.peers())
    }

    /// Every slot that has had a peer.
    pub fn peer_ids(&self) -> impl Iterator<Item = PeerId> + use<P> {
        (0..self.peers_used()).map(PeerId::new)
    }

    /// The state of a slot; a slot that does not exist is free.
    #[must_use]
    pub fn peer_state(&self, peer: PeerId) -> PeerState {
        self.peer(peer).map_or(PeerState::read(0), |record| {
            // SeqCst: pairs with the exchange in `fence`. A share counts only if its peer is current, so loads of
            // shares and states are in one order with the fence.
            PeerState::read(record[peer_word::STATE].load(Ordering::SeqCst))
        })
    }

    /// The share word of a peer in a region, if the peer's row reaches that far.
    pub(crate) fn share(&self, peer: PeerId, region: RegionId) -> Option<&AtomicU64> {
        let record = self.peer(peer).ok()?;
        // The peer that extended the row raised this number after it had committed the memory.
        if used(&record[peer_word::SHARES_USED]) <= u64::from(region.get()) {
            return None;
        }
        let at = self.geometry.share(peer, region)?;
        if !self.backed.has_share(&self.platform, &self.geometry, at) {
            return None;
        }
        self.window().word(at).ok()
    }

    /// The boot id of a domain.
    fn boot(&self, index: u64) -> BootId {
        let Some(domain) = u16::try_from(index).ok().and_then(|index| self.domain(index).ok())
        else {
            return BootId(0);
        };
        BootId(
            u128::from(domain[domain_word::BOOT_LOW].load(Ordering::Relaxed))
                | u128::from(domain[domain_word::BOOT_HIGH].load(Ordering::Relaxed)) << 64,
        )
    }

    /// The record of domain `index`, if it is in use.
    pub(crate) fn used_domain(&self, index: u16) -> Option<BootId> {
        let domain = self.domain(index).ok()?;
        // SeqCst: as Acquire it pairs with the store that marked the record as used, after the boot id; and a peer that
        // has just named the record looks here after that (Dekker, invariant 3 of `domain.rs`).
        let state = DomainState::read(domain[domain_word::STATE].load(Ordering::SeqCst));
        (state == DomainState::Used).then(|| self.boot(u64::from(index)))
    }

    /// The record of the peer in a slot, if there is one: live, still attaching, or fenced.
    pub fn peer_record(&self, peer: PeerId) -> Option<(PeerRecord, PeerPhase)> {
        self.last_record(peer).filter(|(_, phase)| *phase != PeerPhase::Free)
    }

    /// The record of an owner's peer, also after that peer has left, as long as no other peer has
    /// the slot.
    pub fn last_record_of(&self, owner: Owner) -> Option<PeerRecord> {
        let of = self.peer_of(owner)?;
        self.last_record(of.peer)
            .map(|(record, _)| record)
            .filter(|record| record.generation == of.generation)
    }

    fn last_record(&self, peer: PeerId) -> Option<(PeerRecord, PeerPhase)> {
        let words = self.peer(peer).ok()?;
        let state = self.peer_state(peer);
        let read = |index: usize| words.get(index).map_or(0, |word| word.load(Ordering::Relaxed));
        let attaching = state.phase == PeerPhase::Attaching;
        let known = |word: u64| if attaching { 0 } else { word };
        let mut name = [0; PeerName::WORDS];
        for (index, word) in name.iter_mut().enumerate() {
            *word = known(read(peer_word::NAME + index));
        }
        let record = PeerRecord {
            peer,
            generation: state.generation,
            evidence: state.evidence,
            identity: Identity {
                boot: if attaching { BootId(0) } else { self.boot(read(peer_word::DOMAIN)) },
                pid: u32::try_from(known(read(peer_word::PID))).unwrap_or(0),
                pid_namespace: known(read(peer_word::PID_NAMESPACE)),
                start_time: known(read(peer_word::START_TIME)),
                uid: u32::try_from(known(read(peer_word::UID))).unwrap_or(0),
                name: PeerName::from_words(name),
            },
            attached_ms: known(read(peer_word::ATTACHED_MS)),
            heartbeat: read(peer_word::HEARTBEAT),
            death_futex: DeathFutex::from_word(known(read(peer_word::DEATH_FUTEX))),
        };
        // If another peer has the slot by now, what was read is void.
        (self.peer_state(peer) == state).then_some((record, state.phase))
    }

    /// Fences a dead peer: from now on it owns nothing. Then wakes the threads that sleep on a lock or event
    /// which one of its threads had announced. False if the peer was not current any more.
    pub(crate) fn fence(&self, peer: PeerId, generation: u32) -> bool {
        let Ok(record) = self.peer(peer) else { return false };
        // The raw word: it may have bits that no program sets, and must be fenced all the same.
        let found = record[peer_word::STATE].load(Ordering::SeqCst);
        let state = PeerState::read(found);
        if !state.is_current(generation) {
            return false;
        }
        let fenced = state.in_phase(PeerPhase::Fenced).word();
        // SeqCst: see `peer_state`.
        let won = record[peer_word::STATE]
            .compare_exchange(found, fenced, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok();
        if won {
            Point::ReapFenced.reached();
            self.mark_threads(peer, PeerState::read(fenced));
            // The kernel has woken at most one of the threads that sleep on the death futex.
            self.fire_death_futex(peer);
            self.wake_for(peer);
        }
        won
    }

    /// [Wakes](Self::wake_for_thread) the sleepers on all locks and events that threads of a dead peer had announced.
    pub(crate) fn wake_for(&self, peer: PeerId) {
        for thread in (0..self.threads_used(peer)).filter_map(ThreadId::new) {
            self.wake_for_thread(peer, thread);
        }
    }

    /// Only thread slots of a peer below this number have ever been used; those have memory.
    pub(crate) fn threads_used(&self, peer: PeerId) -> u16 {
        let claim = self.peer(peer).map_or(0, |record| used(&record[peer_word::THREADS_USED]));
        u16::try_from(claim).unwrap_or(u16::MAX).min(self.geometry.threads())
    }

    /// The locks and events that the threads of a peer wait for, or are about to unlock or signal.
    pub fn pendings(&self, peer: PeerId) -> impl Iterator<Item = (ThreadId, Pending)> + '_ {
        (0..self.threads_used(peer)).filter_map(ThreadId::new).filter_map(move |thread| {
            let slot = self.thread(peer, thread).ok()?;
            if !ThreadSlot::new(slot).life().is_ready() {
                return None;
            }
            let pending = Pending::read(slot[thread_word::PENDING].load(Ordering::Acquire))?;
            (pending.kind != PendingKind::Process).then_some((thread, pending))
        })
    }

    /// The number of living peers' mappings of a region.
    pub(crate) fn mappings(&self, region: RegionId) -> u64 {
        self.mappers(region).map(|(_, count)| u64::from(count)).sum()
    }

    /// The living peers that map a region, and how often each maps it.
    pub fn mappers(&self, region: RegionId) -> impl Iterator<Item = (PeerRef, u16)> + '_ {
        self.peer_ids().filter_map(move |peer| {
            let (mapper, share) = self.current_share(peer, region)?;
            (share.mappings() > 0).then_some((mapper, share.mappings()))
        })
    }

    pub(crate) fn current_share(
        &self,
        peer: PeerId,
        region: RegionId,
    ) -> Option<(PeerRef, ShareWord)> {
        // SeqCst: pairs with the mapper's count, which comes before its second look at the state (Dekker).
        let word = self.share(peer, region)?.load(Ordering::SeqCst);
        let share = ShareWord::from_word(word);
        let peer = PeerRef::new(peer, share.generation());
        self.is_peer_current(peer).then_some((peer, share))
    }
}
