//! Read locks for which threads of this process have no `reading` word left.
//!
//! A thread has a few words in shared memory that say under which locks it reads. Further read locks are counted
//! for its whole peer. That is enough for writers, but it says neither what the thread holds, nor whose lock it was
//! when a thread ends. So each attachment keeps this list.
//!
//! # Invariants
//! 1. A thread removes its own entries, when it drops their guards; guards stay in the thread that took them.
//! 2. If a thread ends without removing its entries, the heartbeat thread gives back its locks.

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
    /// The length of the list. Mostly it is 0, and the list need not be locked.
    count: AtomicUsize,
}

impl Counted {
    fn held(&self) -> MutexGuard<'_, Vec<(Owner, RegionHandle)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives back the locks of threads that have ended.
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
                // Fails only if this peer was declared dead: then its read locks do not count anyway.
                let _ = core.uncount_reader(*handle, peer);
            }
            lives
        });
        self.count.store(held.len(), Ordering::Relaxed);
    }

    /// Enters a read lock of the thread.
    pub(super) fn enter(&self, region: RegionHandle, me: Owner) {
        let mut held = self.held();
        held.push((me, region));
        self.count.store(held.len(), Ordering::Relaxed);
    }

    /// Removes a read lock of the thread.
    pub(super) fn leave(&self, region: RegionHandle, me: Owner) {
        let mut held = self.held();
        if let Some(at) = held.iter().rposition(|entry| *entry == (me, region)) {
            held.swap_remove(at);
        }
        self.count.store(held.len(), Ordering::Relaxed);
    }

    /// Whether the list has a read lock of this region for the thread.
    pub(super) fn holds(&self, region: RegionHandle, me: Owner) -> bool {
        // Relaxed: only the thread's own entries matter, and it sees its own stores.
        self.count.load(Ordering::Relaxed) > 0 && self.held().contains(&(me, region))
    }
}
