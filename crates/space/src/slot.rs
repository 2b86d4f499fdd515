//! The peer slots of a space: taking one, filling in its record, leaving it.
//!
//! The order of the steps makes it safe to die at any instant. First the peer publishes evidence of life in the
//! kernel, for a slot that is not its own yet. Then one compare-and-swap takes the slot, with a new generation, and
//! records which kinds of evidence there are. Then the record is written.

use core::sync::atomic::{AtomicU64, Ordering};

use commonhold_layout::{
    Evidence, PeerId, PeerName, PeerPhase, PeerRef, PeerState, ThreadId, header_word, peer_word,
};
use commonhold_sync::{Verdict, raise_used};
use commonhold_window::Point;

use crate::{
    AttachError, EvidenceLock, Identity, Platform, View,
    domain::take_domain,
    kernels::own_word,
    threads::{NO_TID, as_thread, claim_thread},
};

/// A slot that has been taken, in the phase of attaching.
pub(crate) struct PeerSlot {
    pub(crate) peer: PeerId,
    pub(crate) state: PeerState,
    /// The slot's last peer died and was not reaped: what it left behind must be settled.
    pub(crate) inherited: bool,
}

/// Takes a free slot, or else one of a dead peer. If the evidence byte of a free slot was locked, tries again with a
/// shared lock: processes that may only read the space may have locked the bytes of all slots.
pub(crate) fn take_slot<P: Platform>(view: &View<P>) -> Result<PeerSlot, AttachError> {
    let slots = || (0..view.geometry().peers()).map(PeerId::new);
    let mut locked = None;
    for hold in [EvidenceLock::Alone, EvidenceLock::BesideReaders] {
        for peer in slots().filter(|peer| view.peer_state(*peer).phase == PeerPhase::Free) {
            match try_slot(view, peer, hold)? {
                Try::Taken(slot) => return Ok(slot),
                Try::Locked => locked = Some(peer),
                Try::Lost => {}
            }
        }
        for peer in slots() {
            let state = view.peer_state(peer);
            let dead = view.verdict_of(PeerRef::new(peer, state.generation)) == Verdict::Dead;
            if dead && let Try::Taken(slot) = try_slot(view, peer, hold)? {
                return Ok(slot);
            }
        }
        if locked.is_none() {
            break;
        }
    }
    Err(AttachError::NoSlot { peers: view.geometry().peers(), locked })
}

/// The result of an attempt to take a slot.
enum Try {
    Taken(PeerSlot),
    /// Another peer was faster.
    Lost,
    /// Another process has the evidence byte locked.
    Locked,
}

fn try_slot<P: Platform>(
    view: &View<P>,
    peer: PeerId,
    hold: EvidenceLock,
) -> Result<Try, AttachError> {
    let Some(evidence) = view.platform().publish(peer, hold).map_err(AttachError::BackingMemory)?
    else {
        return Ok(Try::Locked);
    };
    Point::AttachEvidence.reached();
    let slot = swap_slot(view, peer, evidence);
    if slot.is_none() {
        view.platform().withdraw(peer);
    }
    Ok(slot.map_or(Try::Lost, Try::Taken))
}

fn swap_slot<P: Platform>(view: &View<P>, peer: PeerId, evidence: Evidence) -> Option<PeerSlot> {
    let state = view.peer_state(peer);
    let inherited = match state.phase {
        PeerPhase::Free => false,
        PeerPhase::Fenced => {
            view.mark_threads(peer, state);
            view.settle_biases(peer, state);
            view.wake_for(peer);
            true
        }
        PeerPhase::Attaching | PeerPhase::Live => return None,
    };
    // `None`, for ever, if the generations of the slot are used up: none is used twice.
    let generation = state.generation.checked_add(1)?;
    let taken = PeerState { generation, phase: PeerPhase::Attaching, evidence };
    // Peers look only at slots below this number, so it is raised before the slot is taken.
    raise_used(&view.header().ok()?[header_word::PEERS_USED], u64::from(peer.get()) + 1);
    Point::AttachCounted.reached();
    view.peer(peer).ok()?[peer_word::STATE]
        .compare_exchange(state.word(), taken.word(), Ordering::SeqCst, Ordering::Relaxed)
        .ok()?;
    view.own.store(own_word(peer, generation), Ordering::Relaxed);
    Some(PeerSlot { peer, state: taken, inherited })
}

pub(crate) fn leave_slot<P: Platform>(
    view: &View<P>,
    peer: PeerId,
    state: PeerState,
    phase: PeerPhase,
) -> bool {
    let left = PeerState { generation: state.generation, phase, evidence: Evidence::NONE };
    let left = view.peer(peer).is_ok_and(|record| {
        record[peer_word::STATE]
            .compare_exchange(state.word(), left.word(), Ordering::SeqCst, Ordering::Relaxed)
            .is_ok()
    });
    Point::DetachFreed.reached();
    // A thread that waits for a lock which this peer still held looks again.
    view.fire_death_futex(peer);
    view.own.store(0, Ordering::Relaxed);
    view.platform().withdraw(peer);
    left
}

pub(crate) fn write_record<P: Platform>(
    view: &View<P>,
    slot: &PeerSlot,
    identity: &Identity,
) -> Result<(), AttachError> {
    let record = view.peer(slot.peer).map_err(AttachError::damaged)?;
    if let Some(threads) = view.geometry().thread_row(slot.peer) {
        view.platform().commit(threads).map_err(AttachError::BackingMemory)?;
    }
    for thread in (0..view.geometry().threads()).filter_map(ThreadId::new) {
        // Damaged bytes may say otherwise, but no thread has any of these slots: their peer has just taken its own.
        let thread = view.thread_slot(slot.peer, thread).map_err(AttachError::damaged)?;
        let _ = thread.mark_dead(thread.life());
    }
    record[peer_word::THREADS_USED].store(0, Ordering::Relaxed);
    let of = PeerRef::new(slot.peer, slot.state.generation);
    let thread = claim_thread(view, of, NO_TID).map_err(AttachError::Directory)?;
    let me = as_thread(view, slot.peer, slot.state, thread).map_err(AttachError::Directory)?;
    take_domain(view, &me, identity.boot)?;
    let store = |index: usize, value: u64| {
        if let Some(word) = record.get(index) {
            word.store(value, Ordering::Relaxed);
        }
    };
    store(peer_word::PID, u64::from(identity.pid));
    store(peer_word::PID_NAMESPACE, identity.pid_namespace);
    store(peer_word::START_TIME, identity.start_time);
    store(peer_word::UID, u64::from(identity.uid));
    store(peer_word::ATTACHED_MS, view.platform().unix_ms());
    store(peer_word::HEARTBEAT, 0);
    store(peer_word::DEATH_FUTEX, 0);
    write_name(record, &identity.name);
    let words = view.thread_slot(slot.peer, thread.thread).map_err(AttachError::damaged)?;
    // Fails only if this peer was declared dead: then the slot is vacant.
    let _ = words.vacate(thread.life);
    Ok(())
}

pub(crate) fn write_name(record: &[AtomicU64], name: &PeerName) {
    for (word, value) in record.iter().skip(peer_word::NAME).zip(name.words()) {
        word.store(*value, Ordering::Relaxed);
    }
}
