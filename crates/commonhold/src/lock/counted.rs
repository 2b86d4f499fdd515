//! Read locks that threads of this process hold without a word of their own for them.
//!
//! A thread has few words in shared memory that say what it reads; further read locks are counted with
//! those of its whole peer, which is enough for writers, but tells neither the thread itself what it holds, nor
//! anybody whose lock it was when the thread ends. So each attachment keeps a list, here.
//!
//! # Invariants
//! 1. What a thread enters it takes out itself, by the guard; guards stay in the thread that took them.
//! 2. What a thread that has ended did not take out is given back for it, at a beat of the heart.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use commonhold_host::LinuxPlatform;
use commonhold_layout::{Owner, PeerRef};
use commonhold_space::{Attached, RegionHandle};
use commonhold_sync::Liveness;

/// The list of one attachment.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    held: Mutex<Vec<(Owner, RegionHandle)>>,
    /// How long the list is: mostly it is empty, and nobody has to look.
    count: AtomicUsize,
}

impl Counted {
    fn held(&self) -> MutexGuard<'_, Vec<(Owner, RegionHandle)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives back what threads that have ended still hold.
    pub(crate) fn forget_ended(&self, core: &Attached<LinuxPlatform>) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let view = core.view();
        let peer = PeerRef::new(core.peer(), core.generation());
        let mut held = self.held();
        held.retain(|(owner, handle)| {
            let lives = view.is_current(*owner);
            if !lives {
                // Fails only if this peer was declared dead: then nothing of it counts.
                let _ = core.uncount_reader(*handle, peer);
            }
            lives
        });
        self.count.store(held.len(), Ordering::Relaxed);
    }

    /// The thread holds one more.
    pub(super) fn enter(&self, region: RegionHandle, me: Owner) {
        let mut held = self.held();
        held.push((me, region));
        self.count.store(held.len(), Ordering::Relaxed);
    }

    /// The thread holds one less.
    pub(super) fn leave(&self, region: RegionHandle, me: Owner) {
        let mut held = self.held();
        if let Some(at) = held.iter().rposition(|entry| *entry == (me, region)) {
            held.swap_remove(at);
        }
        self.count.store(held.len(), Ordering::Relaxed);
    }

    /// Whether the thread holds the lock of the region in this way.
    pub(super) fn holds(&self, region: RegionHandle, me: Owner) -> bool {
        // Relaxed: what this thread has entered itself it sees.
        self.count.load(Ordering::Relaxed) > 0 && self.held().contains(&(me, region))
    }
}
