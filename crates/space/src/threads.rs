//! The thread slots of this peer: claiming one for a thread, finding it again, giving it back.
//!
//! A slot belongs to a thread from the moment when its life word says *claimed* until the kernel, the thread itself,
//! or a peer that has proof marks it dead. Only a slot whose life word says *vacant* or *dead* is claimed again, with
//! the next incarnation, and only after the biased mutexes that its last thread was inside of have been settled.

use core::sync::atomic::{AtomicU64, Ordering};

use commonhold_layout::{
    Damage, Owner, PeerId, PeerRef, PeerState, ThreadId, ThreadLife, peer_word, thread_word,
};
use commonhold_sync::{Thread, raise_used};

use crate::{Attached, DirectoryError, Platform, View};

/// A thread slot of this peer, and the value of its life word as long as it belongs to the thread that claimed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnThread {
    /// The slot.
    pub thread: ThreadId,
    /// Its life word.
    pub life: ThreadLife,
}

impl OwnThread {
    /// Not a slot of any thread: no thread has incarnation 0.
    pub const NONE: Self = Self { thread: ThreadId::FIRST, life: ThreadLife::from_word(0) };

    #[inline]
    const fn owner(self, peer: PeerId) -> Option<Owner> {
        Owner::new(peer, self.life.incarnation(), self.thread)
    }
}

/// The thread slots of a peer, looked up once, for a handle that takes locks many times.
#[derive(Debug, Clone, Copy)]
pub struct OwnThreads<'a> {
    slots: &'a [[AtomicU64; thread_word::COUNT]],
    state: &'a AtomicU64,
    live: u64,
    peer: PeerId,
}

impl<'a> OwnThreads<'a> {
    /// The thread of a slot, as the locks take it.
    #[inline]
    #[must_use]
    pub fn get(&self, own: OwnThread) -> Option<Thread<'a>> {
        let slot = self.slots.get(usize::from(own.thread.index()))?;
        let owner = own.owner(self.peer)?;
        Some(Thread::new(owner, slot, self.state, self.live, own.life))
    }

    /// Whether this peer has not been declared dead.
    #[inline]
    #[must_use]
    pub fn is_live(&self) -> bool {
        // Relaxed: see `Thread::is_live`.
        self.state.load(Ordering::Relaxed) == self.live
    }

    /// As [`get`](Self::get), for a thread that is known to have a slot.
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

/// Stands for the thread id when a slot is taken for one operation only.
pub(crate) const NO_TID: u32 = 0;

impl<P: Platform> Attached<P> {
    /// Claims a thread slot for the calling thread, whose id in its own PID namespace is `tid`, or 0 if it has none.
    /// It must have no other slot of this peer.
    ///
    /// The slot belongs to the thread until the thread ends; where possible, the kernel marks that. What the thread
    /// still holds then is a dead thread's, and another thread may claim the slot.
    ///
    /// # Errors
    /// [`DirectoryError::TooManyThreads`] if living threads have all slots.
    pub fn claim_thread(&self, tid: u32) -> Result<OwnThread, DirectoryError> {
        claim_thread(&self.view, PeerRef::new(self.peer, self.generation), tid)
    }

    /// Gives the calling thread's slot back before the thread ends. What it still holds is a dead thread's from then
    /// on.
    pub fn release_thread(&self, own: OwnThread) {
        if let Some(at) = self.view.geometry().thread(self.peer, own.thread) {
            // First: once another thread has the slot, the kernel must not mark it for this one.
            self.view.platform().disarm(at);
        }
        if let Ok(slot) = self.view.thread_slot(self.peer, own.thread) {
            self.view.settle_thread(self.peer, own.thread);
            // Fails only if the thread was declared dead: then the slot is vacant.
            let _ = slot.vacate(own.life);
        }
    }

    /// Whether the slot still belongs to this thread: the thread has not been declared dead.
    #[must_use]
    pub fn has_slot(&self, own: OwnThread) -> bool {
        self.view.thread_slot(self.peer, own.thread).is_ok_and(|slot| slot.life() == own.life)
    }

    /// Checks at most `count` thread slots of this peer, from `first` on, and marks those whose threads
    /// have ended unmarked. Returns the slot at which the next call should go on.
    pub fn mark_ended(&self, first: u16, count: u16) -> u16 {
        match self.view.peer_record(self.peer) {
            Some((record, _)) if self.is_live() => self.view.mark_ended(&record, first, count),
            _ => 0,
        }
    }

    /// The thread of a slot, as the locks take it.
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

    /// As [`thread`](Self::thread), for the fast path of every lock.
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

#[inline]
pub(crate) fn as_thread<P: Platform>(
    view: &View<P>,
    peer: PeerId,
    state: PeerState,
    own: OwnThread,
) -> Result<Thread<'_>, DirectoryError> {
    let owner = own.owner(peer).ok_or(DirectoryError::Fenced)?;
    let slot = view.thread(peer, own.thread)?;
    Ok(Thread::new(owner, slot, &view.peer(peer)?[peer_word::STATE], state.word(), own.life))
}

/// Claims a vacant slot; if there is none, one whose thread has ended unmarked.
pub(crate) fn claim_thread<P: Platform>(
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

/// Marks any slot that names the id of the calling thread, which has no slot: the thread of that slot has ended, or
/// the kernel would not have used its id again.
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
        // Peers look only at slots below this number, so it is raised before the slot is claimed.
        raise_used(&record[peer_word::THREADS_USED], u64::from(thread.index()) + 1);
        let slot = view.thread_slot(peer, thread)?;
        let seen = slot.life();
        if !seen.is_vacant() {
            continue;
        }
        // First: settles the biased mutexes that its last thread was inside of, and wakes the threads that it would
        // have woken.
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
