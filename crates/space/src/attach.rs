//! Becoming a peer, and ceasing to be one.
//!
//! The order is what makes it safe to die at any instant: first the evidence is left in the kernel,
//! for a slot that is not ours yet; then one compare-and-swap takes the slot, with a new generation
//! and saying which evidence there is; then the record is written; then the peer is live. Whoever
//! dies in between is found dead by the evidence, and has owned nothing but the slot.

use core::sync::atomic::{AtomicU64, Ordering};

use commonhold_layout::{
    Damage, Evidence, Offset, Owner, PeerId, PeerName, PeerPhase, PeerRef, PeerState, ThreadId,
    ThreadLife, header_word, peer_word, thread_word,
};
use commonhold_sync::{Thread, Verdict, raise_used};
use commonhold_window::Point;

use crate::{
    AttachError, Deposit, DirectoryError, Identity, MediumError, Platform, RegionHandle, View,
    domain::take_domain, kernels::own_word,
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
        let thread = self.claim_thread(NO_TID)?;
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
        // Before the slots can be others': no thread of this process may mark words there any more.
        self.view.platform().disarm_all();
        Point::ThreadsDisarmed.reached();
        // What is still held was forgotten.
        self.view.mark_threads(self.peer, PeerState::read(self.live));
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

    /// Claims a thread slot for the calling thread, whose id in its own PID namespace is `tid`, or 0 if it has none.
    /// It must have no other slot of this peer.
    ///
    /// The slot is the thread's until it ends, which the kernel tells others where it can. What it holds then is
    /// as if it had died, and the slot is another's to claim.
    ///
    /// # Errors
    /// [`DirectoryError::TooManyThreads`] if living threads have all slots.
    pub fn claim_thread(&self, tid: u32) -> Result<OwnThread, DirectoryError> {
        claim_thread(&self.view, PeerRef::new(self.peer, self.generation), tid)
    }

    /// Gives the calling thread's slot back before the thread ends. What it still holds is as if it had died.
    pub fn release_thread(&self, own: OwnThread) {
        if let Some(at) = self.view.geometry().thread(self.peer, own.thread) {
            // First: once the slot is another's, the kernel must not mark it for this thread.
            self.view.platform().disarm(at);
        }
        if let Ok(slot) = self.view.thread_slot(self.peer, own.thread) {
            self.view.settle_thread(self.peer, own.thread);
            // Fails only if the thread was declared dead: then the slot is vacant.
            let _ = slot.vacate(own.life);
        }
    }

    /// Whether the slot still is this thread's: nobody has declared the thread dead.
    #[must_use]
    pub fn has_slot(&self, own: OwnThread) -> bool {
        self.view.thread_slot(self.peer, own.thread).is_ok_and(|slot| slot.life() == own.life)
    }

    /// Looks at the slots of this peer's threads from `first` on, `count` of them at most, and marks those whose threads
    /// have ended without a mark. Returns where to go on the next time.
    pub fn mark_ended(&self, first: u16, count: u16) -> u16 {
        match self.view.peer_record(self.peer) {
            Some((record, _)) if self.is_live() => self.view.mark_ended(&record, first, count),
            _ => 0,
        }
    }

    /// Gives back a read lock of a region that this peer counts, and whose thread has ended.
    ///
    /// # Errors
    /// [`DirectoryError::Fenced`] if this peer was declared dead.
    pub fn uncount_reader(&self, handle: RegionHandle, of: PeerRef) -> Result<(), DirectoryError> {
        let mapped = self.look_again(handle)?;
        let words = self.view.lock_words(&mapped)?;
        Ok(self.view.lock_of(&mapped, words).uncount_ended(of, &self.view)?)
    }

    /// Declares this peer dead: one of its living threads was taken for dead, so others may have taken over
    /// what it held.
    pub fn give_up(&self) {
        self.view.assume_dead(self.peer, self.generation);
    }

    /// The thread that has a slot, as locks know it.
    ///
    /// # Errors
    /// [`DirectoryError::Damaged`] if there is no such slot.
    pub fn thread(&self, own: OwnThread) -> Result<Thread<'_>, DirectoryError> {
        self.known_thread(own).ok_or(Damage::new("a thread slot", own.thread.index().into()).into())
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
        Ok(OwnThreads { slots: slots.as_chunks().0, state, live: self.live, peer: self.peer })
    }

    /// As [`thread`](Self::thread), on the path of every lock.
    #[inline]
    pub fn known_thread(&self, own: OwnThread) -> Option<Thread<'_>> {
        if own.thread.index() >= self.view.geometry().threads() {
            return None;
        }
        let owner = own.owner(self.peer)?;
        let slot = self.threads_at.plus(THREAD_BYTES * u64::from(own.thread.index()))?;
        let window = self.view.window();
        let (slot, state) = (window.words(slot).ok()?, window.word(self.state_at).ok()?);
        Some(Thread::new(owner, slot, state, self.live, own.life))
    }
}

/// A thread slot of this peer, and what its life word says as long as it is the thread's that claimed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnThread {
    /// The slot.
    pub thread: ThreadId,
    /// Its life word.
    pub life: ThreadLife,
}

impl OwnThread {
    /// No slot that any thread has: incarnation 0 is nobody's.
    pub const NONE: Self = Self { thread: ThreadId::FIRST, life: ThreadLife::from_word(0) };

    #[inline]
    const fn owner(self, peer: PeerId) -> Option<Owner> {
        Owner::new(peer, self.life.incarnation(), self.thread)
    }
}

/// The threads of a peer, found once: for a handle that its owner takes locks with again and again.
#[derive(Debug, Clone, Copy)]
pub struct OwnThreads<'a> {
    slots: &'a [[AtomicU64; thread_word::COUNT]],
    state: &'a AtomicU64,
    live: u64,
    peer: PeerId,
}

impl<'a> OwnThreads<'a> {
    /// The thread that has a slot, as locks know it.
    #[inline]
    #[must_use]
    pub fn get(&self, own: OwnThread) -> Option<Thread<'a>> {
        let slot = self.slots.get(usize::from(own.thread.index()))?;
        let owner = own.owner(self.peer)?;
        Some(Thread::new(owner, slot, self.state, self.live, own.life))
    }

    /// Whether this peer still counts among the living.
    #[inline]
    #[must_use]
    pub fn is_live(&self) -> bool {
        // Relaxed: see `Thread::is_live`.
        self.state.load(Ordering::Relaxed) == self.live
    }

    /// As [`get`](Self::get), of a thread that is known to have a slot.
    ///
    /// # Panics
    /// If it has none.
    #[inline]
    #[allow(clippy::expect_used, reason = "the documented panic")]
    #[must_use]
    pub fn known(&self, own: OwnThread) -> Thread<'a> {
        self.get(own).expect("a thread that holds a lock has a slot")
    }
}

const THREAD_BYTES: u64 = 8 * thread_word::COUNT as u64;

/// In place of the id of a thread that takes a slot for one operation.
const NO_TID: u32 = 0;

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
    own: OwnThread,
) -> Result<Thread<'_>, DirectoryError> {
    let owner = own.owner(peer).ok_or(DirectoryError::Fenced)?;
    let slot = view.thread(peer, own.thread)?;
    Ok(Thread::new(owner, slot, &view.peer(peer)?[peer_word::STATE], state.word(), own.life))
}

/// Claims a slot that is vacant; or, where there is none, one whose thread has ended without a mark.
fn claim_thread<P: Platform>(
    view: &View<P>,
    peer: PeerRef,
    tid: u32,
) -> Result<OwnThread, DirectoryError> {
    mark_namesake(view, peer.peer, tid)?;
    if let Some(own) = claim_vacant(view, peer.peer, tid)? {
        return Ok(own);
    }
    let threads = view.geometry().threads();
    if let Some((record, _)) = view.peer_record(peer.peer) {
        view.mark_ended(&record, 0, threads);
    }
    claim_vacant(view, peer.peer, tid)?.ok_or(DirectoryError::TooManyThreads { threads })
}

/// Marks the slot of a thread that had the same id as the one that calls, which has none: that thread has ended, or
/// its id would not have been given out again.
fn mark_namesake<P: Platform>(
    view: &View<P>,
    peer: PeerId,
    tid: u32,
) -> Result<(), DirectoryError> {
    for thread in (0..view.threads_used(peer)).filter_map(ThreadId::new) {
        let slot = view.thread_slot(peer, thread)?;
        let life = slot.life();
        if tid != NO_TID && slot.tid() == tid && life.is_ready() && slot.mark_dead(life) {
            view.wake_for_thread(peer, thread);
        }
    }
    Ok(())
}

fn claim_vacant<P: Platform>(
    view: &View<P>,
    peer: PeerId,
    tid: u32,
) -> Result<Option<OwnThread>, DirectoryError> {
    let record = view.peer(peer)?;
    for thread in (0..view.geometry().threads()).filter_map(ThreadId::new) {
        // Others look at the slots below this, so it grows before the slot is taken.
        raise_used(&record[peer_word::THREADS_USED], u64::from(thread.index()) + 1);
        let slot = view.thread_slot(peer, thread)?;
        let seen = slot.life();
        if !seen.is_vacant() {
            continue;
        }
        // What its last thread was inside of, and whom it would have woken.
        view.settle_thread(peer, thread);
        view.wake_for_thread(peer, thread);
        let Some(claimed) = slot.claim(seen, tid) else { continue };
        let arm = || {
            let unproven = record[peer_word::UNPROVEN].load(Ordering::SeqCst) != 0;
            let geometry = view.geometry();
            let places = geometry.thread_row(peer).zip(geometry.thread(peer, thread));
            tid != NO_TID
                && !unproven
                && places.is_some_and(|(row, at)| view.platform().arm(row, at))
        };
        let life = slot.make_ready(claimed, arm).ok_or(DirectoryError::Fenced)?;
        return Ok(Some(OwnThread { thread, life }));
    }
    Ok(None)
}

/// Free slots first; then those of the dead; and the same once more, if strangers who may only read the space are in
/// the way everywhere.
fn take_slot<P: Platform>(view: &View<P>) -> Result<Slot, AttachError> {
    let slots = || (0..view.geometry().peers()).map(PeerId::new);
    let mut locked = None;
    for hold in [Deposit::Alone, Deposit::BesideReaders] {
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

/// What came of an attempt at a slot.
enum Try {
    Taken(Slot),
    /// Others were faster.
    Lost,
    /// Somebody else's evidence is in the way.
    Locked,
}

fn try_slot<P: Platform>(view: &View<P>, peer: PeerId, hold: Deposit) -> Result<Try, AttachError> {
    let Some(evidence) = view.platform().deposit(peer, hold).map_err(AttachError::Medium)? else {
        return Ok(Try::Locked);
    };
    Point::AttachEvidence.reached();
    let slot = swap_slot(view, peer, evidence);
    if slot.is_none() {
        view.platform().withdraw(peer);
    }
    Ok(slot.map_or(Try::Lost, Try::Taken))
}

fn swap_slot<P: Platform>(view: &View<P>, peer: PeerId, evidence: Evidence) -> Option<Slot> {
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
    // A slot whose generations are used up is retired: no generation is ever used twice.
    let generation = state.generation.checked_add(1)?;
    let taken = PeerState { generation, phase: PeerPhase::Attaching, evidence };
    // Others look at the slots below this, so it grows before the slot is taken.
    raise_used(&view.header().ok()?[header_word::PEERS_USED], u64::from(peer.get()) + 1);
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
        // Whatever bytes say: no thread of a peer that has just taken the slot has one of its threads'.
        let thread = view.thread_slot(slot.peer, thread).map_err(directory)?;
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
    store(peer_word::BELL, 0);
    write_name(record, &identity.name);
    let words = view.thread_slot(slot.peer, thread.thread).map_err(directory)?;
    // Fails only if this peer was declared dead: then the slot is vacant.
    let _ = words.vacate(thread.life);
    Ok(())
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
