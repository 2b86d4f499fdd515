//! Becoming a peer, and ceasing to be one.
//!
//! The order is what makes it safe to die at any instant: first the evidence is left in the kernel,
//! for a slot that is not ours yet; then one compare-and-swap takes the slot, with a new generation
//! and saying which evidence there is; then the record is written; then the peer is live. Whoever
//! dies in between is found dead by the evidence, and has owned nothing but the slot.

use core::sync::atomic::{AtomicU64, Ordering};

use commonhold_layout::{
    Damage, Evidence, Offset, Owner, PeerId, PeerName, PeerPhase, PeerState, ThreadId, header_word,
    peer_word, thread_word,
};
use commonhold_sync::{Liveness, Thread, Verdict};
use commonhold_window::Point;

use crate::{
    AttachError, DirectoryError, Identity, MediumError, Platform, View, domain::take_domain,
    kernels::own_word,
};

/// A space that this peer is attached to.
///
/// Dropping it without [`detach`](Self::detach) is like dying: the slot stays taken until the
/// evidence is gone and somebody reaps.
#[derive(Debug)]
pub struct Space<P> {
    view: View<P>,
    peer: PeerId,
    generation: u32,
    live: u64,
    /// Where the state word and the thread slots of this peer lie: looked up at every lock.
    state_at: Offset,
    threads_at: Offset,
}

/// A slot that has been taken, in the phase of attaching.
struct Slot {
    peer: PeerId,
    state: PeerState,
    /// Its last peer was dead and has not been reaped: what it left behind must be settled.
    inherited: bool,
}

impl<P: Platform> Space<P> {
    /// Attaches to a space.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn attach(view: View<P>, identity: &Identity) -> Result<Self, AttachError> {
        Point::AttachBegins.reached();
        let slot = take_slot(&view)?;
        Point::AttachSlotTaken.reached();
        let inherited = slot.inherited;
        match write_record(&view, &slot, identity) {
            Ok(()) => {}
            Err(error) => {
                // What the last peer of the slot left behind is still to be settled, by a reaper.
                let phase = if inherited { PeerPhase::Fenced } else { PeerPhase::Free };
                leave_slot(&view, slot.peer, slot.state, phase);
                return Err(error);
            }
        }
        Point::AttachRecordWritten.reached();
        let live = slot.state.in_phase(PeerPhase::Live);
        let state = &view.peer(slot.peer).map_err(directory)?[peer_word::STATE];
        // SeqCst: the record is written before; see `View::peer_state`.
        if state
            .compare_exchange(slot.state.word(), live.word(), Ordering::SeqCst, Ordering::Relaxed)
            .is_err()
        {
            return Err(AttachError::Directory(DirectoryError::Fenced));
        }
        Point::AttachLive.reached();
        let space = Self {
            state_at: place(view.geometry().peer(slot.peer)).map_err(directory)?,
            threads_at: place(view.geometry().thread(slot.peer, ThreadId::FIRST))
                .map_err(directory)?,
            peer: slot.peer,
            generation: live.generation,
            live: live.word(),
            view,
        };
        space.settle_inheritance(inherited).map_err(AttachError::Directory)?;
        Ok(space)
    }

    /// What the last peer of the slot left, if it was dead, and deferred regions that nobody maps any more.
    fn settle_inheritance(&self, inherited: bool) -> Result<(), DirectoryError> {
        if !inherited && !self.has_hint()? {
            return Ok(());
        }
        let thread = self.claim_thread(1)?;
        let me = self.thread(thread)?;
        if inherited {
            self.settle_or_leave(&me);
        } else {
            self.sweep(&me);
        }
        self.release_thread(thread);
        Ok(())
    }

    /// Gives the slot back. Everything that was mapped or locked must have been given back before.
    ///
    /// # Errors
    /// [`DirectoryError::Fenced`] if the peer was declared dead.
    pub fn detach(&self) -> Result<(), DirectoryError> {
        Point::DetachBegins.reached();
        // What is still held was forgotten.
        self.view.settle_biases(self.peer, PeerState::read(self.live));
        if leave_slot(&self.view, self.peer, PeerState::read(self.live), PeerPhase::Free) {
            Ok(())
        } else {
            Err(DirectoryError::Fenced)
        }
    }

    /// The space, as anybody sees it.
    #[inline]
    pub const fn view(&self) -> &View<P> {
        &self.view
    }

    /// This peer's slot.
    pub const fn peer(&self) -> PeerId {
        self.peer
    }

    /// Which of the slot's peers this is.
    pub const fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether this peer still counts among the living.
    #[inline]
    pub fn is_live(&self) -> bool {
        // Relaxed: see `Thread::is_live`.
        self.view
            .window()
            .word(self.state_at)
            .is_ok_and(|state| state.load(Ordering::Relaxed) == self.live)
    }

    /// Names this peer for people.
    pub fn rename(&self, name: &PeerName) {
        if let Ok(record) = self.view.peer(self.peer) {
            write_name(record, name);
        }
    }

    /// Takes a thread slot for the thread with id `tid`, which must not be 0.
    ///
    /// # Errors
    /// [`DirectoryError::TooManyThreads`] if there is none left.
    pub fn claim_thread(&self, tid: u32) -> Result<ThreadId, DirectoryError> {
        claim_thread(&self.view, self.peer, tid)
    }

    /// Gives a thread slot back.
    pub fn release_thread(&self, thread: ThreadId) {
        if let Ok(slot) = self.view.thread(self.peer, thread) {
            clear_thread(slot);
        }
    }

    /// Gives up the slot of a thread that ends while it holds locks: they can be taken over, as from the
    /// dead.
    pub fn end_thread(&self, thread: ThreadId) {
        if let Ok(slot) = self.view.thread(self.peer, thread) {
            // Release: who takes over sees what the thread did.
            slot[thread_word::TID].store(thread_word::ENDED, Ordering::Release);
        }
        self.view.ring(self.peer);
    }

    /// The thread in a slot, as locks know it.
    ///
    /// # Errors
    /// [`DirectoryError::Damaged`] if there is no such slot.
    pub fn thread(&self, thread: ThreadId) -> Result<Thread<'_>, DirectoryError> {
        self.known_thread(thread).ok_or(Damage::new("a thread slot", thread.index().into()).into())
    }

    /// The slots of all threads.
    ///
    /// # Errors
    /// [`DirectoryError::Damaged`] if they do not lie in the window.
    pub fn threads(&self) -> Result<OwnThreads<'_>, DirectoryError> {
        let damage = |_| Damage::new("a thread slot", self.threads_at.get());
        let window = self.view.window();
        let words = usize::from(self.view.geometry().threads()) * thread_word::COUNT;
        let slots = window.run(self.threads_at, words).map_err(damage)?.words();
        let state = window.word(self.state_at).map_err(damage)?;
        let first = Owner::new(self.peer, self.generation, ThreadId::FIRST);
        let first = first.ok_or(DirectoryError::Fenced)?;
        Ok(OwnThreads { slots: slots.as_chunks().0, state, live: self.live, first })
    }

    /// As [`thread`](Self::thread), on the path of every lock.
    #[inline]
    pub fn known_thread(&self, thread: ThreadId) -> Option<Thread<'_>> {
        if thread.index() >= self.view.geometry().threads() {
            return None;
        }
        let owner = Owner::new(self.peer, self.generation, thread)?;
        let slot = self.threads_at.plus(THREAD_BYTES * u64::from(thread.index()))?;
        let window = self.view.window();
        let (slot, state) = (window.words(slot).ok()?, window.word(self.state_at).ok()?);
        Some(Thread::new(owner, slot, state, self.live))
    }
}

/// The threads of a peer, found once: for a handle that its owner takes locks with again and again.
#[derive(Debug, Clone, Copy)]
pub struct OwnThreads<'a> {
    slots: &'a [[AtomicU64; thread_word::COUNT]],
    state: &'a AtomicU64,
    live: u64,
    /// The owner in the first slot.
    first: Owner,
}

impl<'a> OwnThreads<'a> {
    /// The thread in a slot, as locks know it.
    #[inline]
    #[must_use]
    pub fn get(&self, thread: ThreadId) -> Option<Thread<'a>> {
        let slot = self.slots.get(usize::from(thread.index()))?;
        Some(Thread::new(self.first.with_thread(thread), slot, self.state, self.live))
    }

    /// As [`get`](Self::get), of a thread that is known to have a slot.
    ///
    /// # Panics
    /// If it has none.
    #[inline]
    #[allow(clippy::indexing_slicing, reason = "the documented panic")]
    #[must_use]
    pub fn known(&self, thread: ThreadId) -> Thread<'a> {
        let slot = &self.slots[usize::from(thread.index())];
        Thread::new(self.first.with_thread(thread), slot, self.state, self.live)
    }
}

const THREAD_BYTES: u64 = 8 * thread_word::COUNT as u64;

#[inline]
fn place(offset: Option<Offset>) -> Result<Offset, Damage> {
    offset.ok_or(Damage::new("an offset", 0))
}

const fn directory(damage: commonhold_layout::Damage) -> AttachError {
    AttachError::Directory(DirectoryError::Damaged(damage))
}

#[inline]
fn as_thread<P: Platform>(
    view: &View<P>,
    peer: PeerId,
    state: PeerState,
    thread: ThreadId,
) -> Result<Thread<'_>, DirectoryError> {
    let owner = Owner::new(peer, state.generation, thread).ok_or(DirectoryError::Fenced)?;
    let slot = view.thread(peer, thread)?;
    Ok(Thread::new(owner, slot, &view.peer(peer)?[peer_word::STATE], state.word()))
}

fn claim_thread<P: Platform>(
    view: &View<P>,
    peer: PeerId,
    tid: u32,
) -> Result<ThreadId, DirectoryError> {
    let used = &view.peer(peer)?[peer_word::THREADS_USED];
    let threads = view.geometry().threads();
    for thread in (0..threads).filter_map(ThreadId::new) {
        // Others look at the slots below this, so it grows before the slot is taken.
        used.fetch_max(u64::from(thread.index()) + 1, Ordering::SeqCst);
        let slot = view.thread(peer, thread)?;
        let free = slot[thread_word::TID].compare_exchange(
            0,
            u64::from(tid.max(1)),
            Ordering::Acquire,
            Ordering::Relaxed,
        );
        if free.is_ok() {
            Point::ThreadClaimed.reached();
            return Ok(thread);
        }
    }
    Err(DirectoryError::TooManyThreads { threads })
}

/// Free slots first; then those of the dead.
fn take_slot<P: Platform>(view: &View<P>) -> Result<Slot, AttachError> {
    let slots = || (0..view.geometry().peers()).map(PeerId::new);
    for peer in slots() {
        if view.peer_state(peer).phase == PeerPhase::Free
            && let Some(slot) = try_slot(view, peer)?
        {
            return Ok(slot);
        }
    }
    for peer in slots() {
        let state = view.peer_state(peer);
        let dead = Owner::new(peer, state.generation, ThreadId::FIRST)
            .is_none_or(|owner| view.verdict(owner) == Verdict::Dead);
        if dead && let Some(slot) = try_slot(view, peer)? {
            return Ok(slot);
        }
    }
    Err(AttachError::NoSlot { peers: view.geometry().peers() })
}

fn try_slot<P: Platform>(view: &View<P>, peer: PeerId) -> Result<Option<Slot>, AttachError> {
    let Some(evidence) = view.platform().deposit(peer).map_err(AttachError::Medium)? else {
        return Ok(None);
    };
    Point::AttachEvidence.reached();
    let slot = swap_slot(view, peer, evidence);
    if slot.is_none() {
        view.platform().withdraw(peer);
    }
    Ok(slot)
}

fn swap_slot<P: Platform>(view: &View<P>, peer: PeerId, evidence: Evidence) -> Option<Slot> {
    let state = view.peer_state(peer);
    let inherited = match state.phase {
        PeerPhase::Free => false,
        PeerPhase::Fenced => {
            view.settle_biases(peer, state);
            view.wake_for(peer);
            true
        }
        PeerPhase::Attaching | PeerPhase::Live => return None,
    };
    // A slot whose generations are used up is retired: no generation is ever used twice.
    let generation = state.generation.checked_add(1)?;
    let taken = PeerState { generation, phase: PeerPhase::Attaching, evidence };
    // Others look at the slots below this, so it grows before the slot is taken.
    view.header().ok()?[header_word::PEERS_USED]
        .fetch_max(u64::from(peer.get()) + 1, Ordering::SeqCst);
    Point::AttachCounted.reached();
    view.peer(peer).ok()?[peer_word::STATE]
        .compare_exchange(state.word(), taken.word(), Ordering::SeqCst, Ordering::Relaxed)
        .ok()?;
    view.own.store(own_word(peer, generation), Ordering::Relaxed);
    Some(Slot { peer, state: taken, inherited })
}

fn leave_slot<P: Platform>(
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
    // Whoever waits for a lock that was not given back looks again.
    view.ring(peer);
    view.own.store(0, Ordering::Relaxed);
    view.platform().withdraw(peer);
    left
}

fn write_record<P: Platform>(
    view: &View<P>,
    slot: &Slot,
    identity: &Identity,
) -> Result<(), AttachError> {
    let record = view.peer(slot.peer).map_err(directory)?;
    if let Some(threads) = view.geometry().thread_row(slot.peer) {
        view.platform().commit(threads).map_err(AttachError::Medium)?;
    }
    for thread in (0..view.geometry().threads()).filter_map(ThreadId::new) {
        let words = view.thread(slot.peer, thread).map_err(directory)?;
        clear_thread(words);
    }
    record[peer_word::THREADS_USED].store(0, Ordering::Relaxed);
    let thread = claim_thread(view, slot.peer, 1).map_err(AttachError::Directory)?;
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
    store(peer_word::BELL, 0);
    write_name(record, &identity.name);
    let words = view.thread(slot.peer, thread).map_err(directory)?;
    words[thread_word::TID].store(0, Ordering::Release);
    Ok(())
}

/// Empties a thread slot; the id goes last, since it is what keeps others from taking the slot. The
/// numbers of waits and of biases go on from one thread to the next.
fn clear_thread(slot: &[AtomicU64; thread_word::COUNT]) {
    for (index, word) in slot.iter().enumerate().rev() {
        if matches!(index, thread_word::WAITS | thread_word::BIASES) {
            continue;
        }
        // Release: pairs with the Acquire of whoever claims the slot.
        word.store(0, Ordering::Release);
    }
}

fn write_name(record: &[AtomicU64], name: &PeerName) {
    for (word, value) in record.iter().skip(peer_word::NAME).zip(name.words()) {
        word.store(*value, Ordering::Relaxed);
    }
}

/// What a medium says when it is full, where the operation has a name for that.
impl From<MediumError> for AttachError {
    fn from(error: MediumError) -> Self {
        Self::Medium(error)
    }
}
