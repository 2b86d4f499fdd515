//! The reader/writer lock of a record in the bytes of a region.

use core::sync::atomic::AtomicU64;

use commonhold_layout::{Offset, PeerId, ReadKey, ThreadId, thread_word};
use commonhold_sync::{RwLock, Shares};

use crate::{Platform, RegionHandle, RegionShares, View};

impl<P: Platform> View<P> {
    /// The reader/writer lock whose words lie at `at`, in the bytes of a region that is mapped.
    #[inline]
    pub const fn record_lock<'a>(
        &'a self,
        words: &'a [AtomicU64; 3],
        at: Offset,
        handle: RegionHandle,
    ) -> RwLock<'a, RecordShares<'a, P>> {
        let key = ReadKey::of_record(at, handle.region, handle.generation).word();
        RwLock::new(words, at, key, RecordShares(RegionShares::of(self, handle.region)))
    }
}

/// Where the readers of such a lock are known: the words of their threads, and nowhere else. A thread
/// without a free word is refused, since the share words of a region count the readers of its own lock.
#[derive(Debug)]
pub struct RecordShares<'a, P>(RegionShares<'a, P>);

impl<P> Clone for RecordShares<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for RecordShares<'_, P> {}

impl<P: Platform> Shares for RecordShares<'_, P> {
    fn peers(&self) -> u16 {
        self.0.peers()
    }

    fn generation(&self, peer: PeerId) -> u32 {
        self.0.generation(peer)
    }

    fn share(&self, _: PeerId) -> Option<&AtomicU64> {
        None
    }

    fn threads(&self, peer: PeerId) -> u16 {
        self.0.threads(peer)
    }

    fn thread(&self, peer: PeerId, thread: ThreadId) -> Option<&[AtomicU64; thread_word::COUNT]> {
        self.0.thread(peer, thread)
    }
}
