//! Which peers and threads are alive.
//!
//! # What it owns
//! The verdicts on peers and threads, and the marks on life words that the kernel has not made itself.
//!
//! # Invariants
//! 1. A thread is dead if its life word is marked or of another incarnation, or its peer is fenced. That is
//!    checked before any evidence, and is final.
//! 2. The life words of all threads of a peer are marked before its slot can have another peer. So if a thread of a
//!    fenced peer lives on, it finds that its slot is no longer its own before another thread writes there.
//! 3. The word of a single thread is marked only on proof: the kernel says that the thread can run no more.
//! 4. A life word is *armed* if it has the id of its thread, and the kernel marks it when that thread ends. A peer
//!    that is fenced without proof (by a lease, or because a user assumes it dead) may still run, with its kernel
//!    told to mark its words. If a later peer of the slot armed a word, and one of its threads had the same id in
//!    another PID namespace or kernel, the end of the old thread would mark a living one. So before such a fence,
//!    the slot is flagged ([`UNPROVEN`](peer_word::UNPROVEN)), and no word of a flagged slot is armed again: a word
//!    that has no id is not marked by the kernel.

use core::sync::atomic::Ordering;

use commonhold_layout::{
    Bias, Damage, Offset, Owner, PeerId, PeerPhase, PeerRef, PeerState, Pending, PendingKind,
    ThreadId, peer_word, thread_word,
};
use commonhold_sync::{self as sync, Liveness, ThreadSlot, Verdict, Wake};

use crate::{PeerRecord, Platform, View};

impl<P: Platform> View<P> {
    /// A slot of the table of threads.
    pub(crate) fn thread_slot(
        &self,
        peer: PeerId,
        thread: ThreadId,
    ) -> Result<ThreadSlot<'_>, Damage> {
        self.thread(peer, thread).map(ThreadSlot::new)
    }

    /// A slot of the table of threads that some thread of the peer in `peer`'s slot has used: it has memory.
    fn used_slot(&self, peer: PeerId, thread: ThreadId) -> Option<ThreadSlot<'_>> {
        let used = thread.index() < self.threads_used(peer);
        self.thread_slot(peer, thread).ok().filter(|_| used)
    }

    /// The owner that a thread slot stands for now, if the thread and its peer are not known to be dead.
    #[must_use]
    pub fn owner_of(&self, peer: PeerId, thread: ThreadId) -> Option<Owner> {
        let state = self.peer_state(peer);
        let life = self.used_slot(peer, thread)?.life();
        let lives = life.is_ready() && state.is_current(state.generation);
        Owner::new(peer, life.incarnation(), thread).filter(|_| lives)
    }

    /// Whether a peer has its slot and has not been fenced.
    #[must_use]
    pub fn is_peer_current(&self, peer: PeerRef) -> bool {
        self.peer_state(peer.peer).is_current(peer.generation)
    }

    /// The peer that an owner is, or was, a thread of, if no other thread has had the slot since.
    #[must_use]
    pub fn peer_of(&self, owner: Owner) -> Option<PeerRef> {
        let peer = PeerRef::new(owner.peer(), self.peer_state(owner.peer()).generation);
        let life = self.used_slot(owner.peer(), owner.thread())?.life();
        (life.incarnation() == owner.incarnation()).then_some(peer)
    }

    /// Marks the life words of all threads of a peer that is fenced or detaches, and wakes the threads that sleep on
    /// them. `dead` is the state word of that peer.
    pub(crate) fn mark_threads(&self, peer: PeerId, dead: PeerState) {
        for thread in (0..self.threads_used(peer)).filter_map(ThreadId::new) {
            let Ok(slot) = self.thread_slot(peer, thread) else { continue };
            let life = slot.life();
            // Checked after the life word was read: if the state is the same, that life word is of a thread of this
            // peer. (The caller may have been stopped since it saw the peer dead, and another peer may have the
            // slot.)
            if self.peer_state(peer) != dead {
                return;
            }
            if slot.mark_dead(life) {
                self.platform().wake(slot.word(), Wake::All);
            }
        }
    }

    /// Wakes the sleepers on the lock or event that a dead thread had announced: it may have died before it woke
    /// them, or after it was woken in place of one of them.
    pub(crate) fn wake_for_thread(&self, peer: PeerId, thread: ThreadId) {
        let Ok(slot) = self.thread(peer, thread) else { return };
        // Acquire: pairs with the Release of the announcement.
        let pending = Pending::read(slot[thread_word::PENDING].load(Ordering::Acquire));
        if let Some(pending) = pending.filter(|pending| pending.kind != PendingKind::Process)
            && let Ok(word) = self.window().word(pending.lock)
        {
            self.platform().wake(word, Wake::All);
        }
    }

    /// Records that a peer of the slot is declared dead without proof.
    pub(crate) fn doubt(&self, peer: PeerId) {
        if let Ok(record) = self.peer(peer) {
            // SeqCst: pairs with the load in `claim_vacant`. It comes before the fence, and so before another peer
            // has the slot.
            record[peer_word::UNPROVEN].store(1, Ordering::SeqCst);
        }
    }

    /// The verdict on a peer, as [`verdict`](Liveness::verdict) on a thread of it.
    #[must_use]
    pub fn verdict_of(&self, peer: PeerRef) -> Verdict {
        self.look_for_death(peer, |_| false)
    }

    /// Fences the peers whose death futexes have fired, if they are dead by now: their mappings cease to count. Each
    /// other peer costs one load.
    pub fn fence_fired(&self) {
        for peer in self.peer_ids() {
            if self.death_futex_at(peer).is_some_and(|(_, death_futex)| death_futex.has_fired()) {
                let generation = self.peer_state(peer).generation;
                let _: Verdict = self.verdict_of(PeerRef::new(peer, generation));
            }
        }
    }

    /// Looks for evidence that a peer has died, or that the thread that `thread_ended` asks about has ended. Fences a
    /// dead peer.
    fn look_for_death(&self, peer: PeerRef, thread_ended: impl Fn(&PeerRecord) -> bool) -> Verdict {
        /// More changes than honest peers make in a row. Each attempt may cost some system calls.
        const ATTEMPTS: u32 = 64;
        for _ in 0..ATTEMPTS {
            if !self.is_peer_current(peer) {
                return Verdict::Dead;
            }
            // The slot may get another peer between any two looks: then this looks again.
            let Some((record, phase)) = self.peer_record(peer.peer) else { continue };
            if record.generation != peer.generation || thread_ended(&record) {
                return Verdict::Dead;
            }
            let lease_ms = self.geometry().lease_ms();
            let attaching = phase == PeerPhase::Attaching;
            let verdict = self.platform().verdict(&record, attaching, lease_ms);
            if verdict != Verdict::Dead {
                return verdict;
            }
            if lease_ms != 0 {
                self.doubt(peer.peer);
            }
            if self.fence(peer.peer, peer.generation) {
                return Verdict::Dead;
            }
        }
        Verdict::Suspect
    }

    /// Marks the thread of `owner` if the kernel says that it can run no more. Whether it does.
    fn mark_if_ended(&self, owner: Owner, record: &PeerRecord) -> bool {
        let Some(slot) = self.used_slot(owner.peer(), owner.thread()) else { return false };
        let (life, tid) = (slot.life(), slot.tid());
        if tid == 0 || !life.is_of(owner.incarnation()) || slot.life() != life {
            return false;
        }
        let ended = self.platform().thread_has_ended(record, tid);
        if ended && slot.mark_dead(life) {
            self.platform().wake(slot.word(), Wake::All);
            self.wake_for_thread(owner.peer(), owner.thread());
        }
        ended
    }

    /// Checks at most `count` thread slots of a peer, from `first` on, and marks those whose threads have ended
    /// unmarked. Returns the slot at which the next call should go on.
    pub(crate) fn mark_ended(&self, record: &PeerRecord, first: u16, count: u16) -> u16 {
        let used = self.threads_used(record.peer);
        let end = first.saturating_add(count).min(used);
        for thread in (first..end).filter_map(ThreadId::new) {
            if let Some(owner) = self.owner_of(record.peer, thread) {
                self.mark_if_ended(owner, record);
            }
        }
        if end >= used { 0 } else { end }
    }
}

impl<P: Platform> Liveness for View<P> {
    fn is_current(&self, owner: Owner) -> bool {
        let state = self.peer_state(owner.peer());
        state.is_current(state.generation)
            && self
                .used_slot(owner.peer(), owner.thread())
                .is_some_and(|slot| slot.life().is_of(owner.incarnation()))
    }

    fn is_same_thread(&self, me: Owner, other: Owner) -> bool {
        if me.peer() == other.peer() {
            return me == other;
        }
        let tid = |owner: Owner| {
            let slot = self.used_slot(owner.peer(), owner.thread())?;
            Some(slot.tid()).filter(|tid| *tid != 0)
        };
        let process = |owner: Owner| {
            let (record, _) = self.peer_record(owner.peer())?;
            let identity = record.identity;
            let known = identity.boot.0 != 0 && identity.pid != 0 && identity.pid_namespace != 0;
            let start = identity.start_time;
            known.then_some((identity.boot, identity.pid_namespace, identity.pid, start))
        };
        let mine = tid(me);
        mine.is_some()
            && mine == tid(other)
            && process(me).is_some_and(|mine| Some(mine) == process(other))
            // Last: if this owner still has its slot, what was read belongs to it.
            && self.is_current(other)
    }

    fn inside(&self, bias: Bias, at: Offset) -> Option<Owner> {
        let slot = self.used_slot(bias.peer, bias.thread)?;
        let words = self.thread(bias.peer, bias.thread).ok()?;
        if !sync::is_inside(words, bias, at) {
            return None;
        }
        let incarnation = slot.life().incarnation();
        // Checked again: if the thread still is inside, the incarnation is its own. A dead thread's slot says so until
        // another thread claims it, which settles the bias before.
        let still = sync::is_inside(words, bias, at);
        Owner::new(bias.peer, incarnation, bias.thread).filter(|_| still)
    }

    fn may_bias(&self) -> bool {
        self.geometry().lease_ms() == 0
    }

    fn death_notice(&self, owner: Owner) -> sync::DeathNotice {
        if !self.tells_deaths(owner.peer()) {
            return sync::DeathNotice::Unavailable;
        }
        let futex = self.death_futex_at(owner.peer());
        let armed =
            self.used_slot(owner.peer(), owner.thread()).is_some_and(|slot| slot.life().is_armed());
        match futex {
            Some((_, death_futex)) if death_futex.has_fired() && armed => {
                sync::DeathNotice::Imminent
            }
            Some((_, death_futex)) if death_futex.has_fired() => sync::DeathNotice::Fired,
            None if !armed => sync::DeathNotice::Unavailable,
            _ => sync::DeathNotice::Pending,
        }
    }

    fn verdict(&self, owner: Owner) -> Verdict {
        let generation = self.peer_state(owner.peer()).generation;
        if !self.is_current(owner) {
            return Verdict::Dead;
        }
        self.look_for_death(PeerRef::new(owner.peer(), generation), |record| {
            !self.is_current(owner) || self.mark_if_ended(owner, record)
        })
    }
}
