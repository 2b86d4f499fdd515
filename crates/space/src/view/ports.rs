//! The ports of `commonhold-sync` that a view implements: how a thread waits ([`Park`]), and where the readers of a
//! region's lock are counted ([`Shares`]). [`Liveness`](commonhold_sync::Liveness) is in `life.rs`.

use core::sync::atomic::AtomicU64;

use commonhold_layout::{Damage, Owner, PeerId, ReadKey, RegionId, ThreadId, thread_word};
use commonhold_sync::{Park, RwLock, Shares, Wake};

use super::outside;
use crate::{Mapped, Platform, RegionHandle, View};

impl<P: Platform> View<P> {
    /// The words of the lock of a mapped region.
    ///
    /// # Errors
    /// [`Damage`] if they do not lie in the window.
    #[inline]
    pub fn lock_words(&self, mapped: &Mapped) -> Result<&[AtomicU64; 3], Damage> {
        self.window().words(mapped.lock_at).map_err(outside)
    }

    /// The lock of a mapped region, which has these [words](Self::lock_words).
    #[inline]
    pub const fn lock_of<'a>(
        &'a self,
        mapped: &Mapped,
        words: &'a [AtomicU64; 3],
    ) -> RwLock<'a, RegionShares<'a, P>> {
        let shares = RegionShares::new(self, mapped.handle.region);
        RwLock::new(words, mapped.lock_at, region_key(mapped.handle), shares)
    }
}

/// The key that a reader of a region's lock writes into its thread slot. No other region ever has the same key.
#[inline]
#[must_use]
pub const fn region_key(handle: RegionHandle) -> u64 {
    ReadKey::of_region(handle.region, handle.generation).word()
}

/// The share words of one region, where its readers are counted.
#[derive(Debug)]
pub struct RegionShares<'a, P> {
    view: &'a View<P>,
    region: RegionId,
}

impl<'a, P> RegionShares<'a, P> {
    /// Those of the region `region`.
    #[inline]
    #[must_use]
    pub const fn new(view: &'a View<P>, region: RegionId) -> Self {
        Self { view, region }
    }
}

impl<P> Clone for RegionShares<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for RegionShares<'_, P> {}

impl<P: Platform> Shares for RegionShares<'_, P> {
    fn peers(&self) -> u16 {
        self.view.peers_used()
    }

    fn generation(&self, peer: PeerId) -> u32 {
        let state = self.view.peer_state(peer);
        if state.is_current(state.generation) { state.generation } else { 0 }
    }

    fn owner(&self, peer: PeerId, thread: ThreadId) -> Option<Owner> {
        self.view.owner_of(peer, thread)
    }

    fn share(&self, peer: PeerId) -> Option<&AtomicU64> {
        self.view.share(peer, self.region)
    }

    fn threads(&self, peer: PeerId) -> u16 {
        self.view.threads_used(peer)
    }

    fn thread(&self, peer: PeerId, thread: ThreadId) -> Option<&[AtomicU64; thread_word::COUNT]> {
        self.view.thread(peer, thread).ok()
    }
}

impl<P: Platform> Park for View<P> {
    fn now(&self) -> u64 {
        self.platform.now()
    }

    fn wait(&self, word: &AtomicU64, expected: u64, until: u64) {
        // A peer must not fall silent while it waits for a peer of another kernel.
        self.beat();
        if self.spans_kernels() {
            self.platform.wait_among_kernels(word, expected, until);
        } else {
            self.platform.wait(word, expected, until);
        }
    }

    fn wait_for(&self, owners: &[Owner], word: &AtomicU64, expected: u64, until: u64) {
        if self.spans_kernels() || !self.sleep_on_death_futexes(owners, word, expected, until) {
            self.wait(word, expected, until);
        } else {
            self.beat();
        }
    }

    fn wake(&self, word: &AtomicU64, who: Wake) {
        self.platform.wake(word, who);
    }

    fn wake_any(&self, word: &AtomicU64, who: Wake) -> bool {
        // Waiters of other kernels poll.
        self.platform.wake_any(word, who)
    }

    fn yield_now(&self) {
        self.platform.yield_now();
    }

    #[inline]
    fn spin(&self, word: &AtomicU64, turn: u32) -> bool {
        self.platform.spin(word, turn)
    }

    fn has_spun(&self, word: &AtomicU64, won: bool) {
        self.platform.has_spun(word, won);
    }
}
