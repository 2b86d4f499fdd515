//! An attachment to a space: which peer it is, and where its words lie.
//!
//! The operations of a peer are in files of their own, and build on this one. `attach.rs` attaches and detaches.

use core::sync::atomic::Ordering;

use commonhold_layout::{Offset, PeerId};

use crate::{Platform, View};

/// A space that this peer is attached to.
///
/// Dropping it without [`detach`](Self::detach) is like dying: the slot stays taken until the
/// evidence is gone and another peer reaps.
#[derive(Debug)]
pub struct Attached<P> {
    pub(crate) view: View<P>,
    pub(crate) peer: PeerId,
    pub(crate) generation: u32,
    pub(crate) live: u64,
    /// Where the state word and the thread slots of this peer lie: every lock operation needs them.
    pub(crate) state_at: Offset,
    pub(crate) threads_at: Offset,
}

impl<P: Platform> Attached<P> {
    /// The view of the space, which does not depend on which peer looks.
    #[inline]
    pub const fn view(&self) -> &View<P> {
        &self.view
    }

    /// This peer's slot.
    pub const fn peer(&self) -> PeerId {
        self.peer
    }

    /// The generation: which of the slot's peers this is.
    pub const fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether this peer has not been declared dead.
    #[inline]
    pub fn is_live(&self) -> bool {
        // Relaxed: see `Thread::is_live`.
        self.view
            .window()
            .word(self.state_at)
            .is_ok_and(|state| state.load(Ordering::Relaxed) == self.live)
    }
}
