//! A thread as a lock sees it.

use commonhold_layout::{Offset, Owner, Pending, PendingKind};
use commonhold_window::atomic::{AtomicU64, Ordering};

/// One thread that takes locks: its identity, and the words through which others know of it.
#[derive(Debug, Clone, Copy)]
pub struct Thread<'a> {
    owner: Owner,
    pending: &'a AtomicU64,
    state: &'a AtomicU64,
    live: u64,
}

impl<'a> Thread<'a> {
    /// The thread `owner`, whose thread slot has the word `pending`, and whose peer's state word is
    /// `state` and holds `live` as long as nobody has fenced it.
    #[must_use]
    pub const fn new(
        owner: Owner,
        pending: &'a AtomicU64,
        state: &'a AtomicU64,
        live: u64,
    ) -> Self {
        Self { owner, pending, state, live }
    }

    /// Who it is.
    #[must_use]
    pub const fn owner(&self) -> Owner {
        self.owner
    }

    /// Whether others still count its peer among the living.
    #[inline]
    #[must_use]
    pub fn is_live(&self) -> bool {
        // Relaxed: a fence that comes a moment later is indistinguishable from one that comes a moment
        // after the lock was taken, and freeing the lock will tell.
        self.state.load(Ordering::Relaxed) == self.live
    }

    pub(crate) fn announce(&self, kind: PendingKind, lock: Offset) {
        // Release: whoever reads the announcement after our death also sees what we did before it.
        self.pending.store(Pending { kind, lock }.word(), Ordering::Release);
    }

    pub(crate) fn done(&self) {
        self.pending.store(0, Ordering::Release);
    }
}
