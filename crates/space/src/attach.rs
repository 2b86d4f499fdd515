//! Attaching to a space, and detaching.
//!
//! A peer becomes live after it has taken a slot and written its record (`slot.rs`); from then on other peers see it.
//! If it dies before that, its evidence shows it, and it has owned nothing but the slot.

use core::sync::atomic::Ordering;

use commonhold_layout::{Damage, Offset, PeerName, PeerPhase, PeerState, ThreadId, peer_word};
use commonhold_window::Point;

use crate::{
    AttachError, Attached, DirectoryError, Identity, Platform, View,
    slot::{leave_slot, take_slot, write_name, write_record},
    threads::NO_TID,
};

impl<P: Platform> Attached<P> {
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
                // A reaper still has to settle what the dead peer before us left behind.
                let phase = if inherited { PeerPhase::Fenced } else { PeerPhase::Free };
                leave_slot(&view, slot.peer, slot.state, phase);
                return Err(error);
            }
        }
        Point::AttachRecordWritten.reached();
        let live = slot.state.in_phase(PeerPhase::Live);
        let state = &view.peer(slot.peer).map_err(AttachError::damaged)?[peer_word::STATE];
        // SeqCst: as Release it publishes the record, which is written before; see `View::peer_state`.
        if state
            .compare_exchange(slot.state.word(), live.word(), Ordering::SeqCst, Ordering::Relaxed)
            .is_err()
        {
            return Err(AttachError::Directory(DirectoryError::Fenced));
        }
        Point::AttachLive.reached();
        let space = Self {
            state_at: place(view.geometry().peer(slot.peer)).map_err(AttachError::damaged)?,
            threads_at: place(view.geometry().thread(slot.peer, ThreadId::FIRST))
                .map_err(AttachError::damaged)?,
            peer: slot.peer,
            generation: live.generation,
            live: live.word(),
            view,
        };
        space.settle_inheritance(inherited).map_err(AttachError::Directory)?;
        Ok(space)
    }

    /// Settles what the last peer of the slot left behind, if it died. Otherwise frees deferred regions that no peer
    /// maps any more, if a hint says that there may be some.
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

    /// Gives the slot back. The caller has unmapped and unlocked everything before.
    ///
    /// # Errors
    /// [`DirectoryError::Fenced`] if the peer was declared dead.
    pub fn detach(&self) -> Result<(), DirectoryError> {
        Point::DetachBegins.reached();
        // Before the thread slots can be another peer's: the kernel must not mark words there for threads of this
        // process.
        self.view.platform().disarm_all();
        Point::ThreadsDisarmed.reached();
        // Whatever these threads still own belongs to dead threads from now on.
        self.view.mark_threads(self.peer, PeerState::read(self.live));
        self.view.settle_biases(self.peer, PeerState::read(self.live));
        if leave_slot(&self.view, self.peer, PeerState::read(self.live), PeerPhase::Free) {
            Ok(())
        } else {
            Err(DirectoryError::Fenced)
        }
    }

    /// Sets the name of this peer that listings and messages show.
    pub fn rename(&self, name: &PeerName) {
        if let Ok(record) = self.view.peer(self.peer) {
            write_name(record, name);
        }
    }

    /// Declares this peer dead. For when one of its living threads was declared dead, so that others may have taken
    /// over what that thread held.
    pub fn give_up(&self) {
        self.view.assume_dead(self.peer, self.generation);
    }
}

#[inline]
fn place(offset: Option<Offset>) -> Result<Offset, Damage> {
    offset.ok_or(Damage::new("an offset", 0))
}
