//! Becoming a peer, and ceasing to be one.
//!
//! A peer is live once its slot has been taken and its record written (`slot.rs`); from then on others find it. If it dies before that, its
//! evidence tells, and it has owned nothing but the slot.

use core::sync::atomic::Ordering;

use commonhold_layout::{
    Damage, Offset, PeerId, PeerName, PeerPhase, PeerRef, PeerState, ThreadId, peer_word,
};
use commonhold_window::Point;

use crate::{
    AttachError, DirectoryError, Identity, MediumError, Platform, RegionHandle, View,
    slot::{leave_slot, take_slot, write_name, write_record},
    threads::NO_TID,
};

/// A space that this peer is attached to.
///
/// Dropping it without [`detach`](Self::detach) is like dying: the slot stays taken until the
/// evidence is gone and somebody reaps.
#[derive(Debug)]
pub struct Space<P> {
    pub(crate) view: View<P>,
    pub(crate) peer: PeerId,
    pub(crate) generation: u32,
    pub(crate) live: u64,
    /// Where the state word and the thread slots of this peer lie: looked up at every lock.
    pub(crate) state_at: Offset,
    pub(crate) threads_at: Offset,
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
}

#[inline]
fn place(offset: Option<Offset>) -> Result<Offset, Damage> {
    offset.ok_or(Damage::new("an offset", 0))
}

pub(crate) const fn directory(damage: commonhold_layout::Damage) -> AttachError {
    AttachError::Directory(DirectoryError::Damaged(damage))
}

/// What a medium says when it is full, where the operation has a name for that.
impl From<MediumError> for AttachError {
    fn from(error: MediumError) -> Self {
        Self::Medium(error)
    }
}
