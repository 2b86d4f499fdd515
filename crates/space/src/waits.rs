//! What threads wait for and hold, as an observer sees it.
//!
//! Nothing here changes a byte. What is read is a claim: a thread slot may name anything.

use core::sync::atomic::Ordering;

use commonhold_layout::{
    LockWord, Offset, Owner, PeerId, PeerRef, Pending, RegionId, ShareWord, ThreadId, header_word,
    region_word, thread_word,
};

use commonhold_sync::{Liveness, ThreadSlot, reading};

use crate::{Platform, RegionHandle, View, view::region_key};

/// What a thread was doing at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadRecord {
    /// Its slot.
    pub thread: ThreadId,
    /// Its id in its own PID namespace; 0 if no living thread has the slot.
    pub tid: u32,
    /// What it waits for, or is about to unlock or signal.
    pub pending: Option<Pending>,
    /// Number of completed waits before.
    waits: u64,
}

/// What the offset in a pending word refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WaitTarget {
    /// The directory mutex.
    Directory,
    /// The writer's word of a region's own lock.
    Lock(RegionId),
    /// The event that readers of a region's lock signal when they leave.
    Drained(RegionId),
    /// The event that is signalled when a region that is being destroyed is unmapped.
    Unmapped(RegionId),
    /// Somewhere else: in the bytes of a region, or nowhere.
    Elsewhere(Offset),
}

impl<P: Platform> View<P> {
    /// The thread slots of a peer that are, or were, in use.
    pub fn threads(&self, peer: PeerId) -> impl Iterator<Item = ThreadRecord> + '_ {
        (0..self.threads_used(peer))
            .filter_map(ThreadId::new)
            .filter_map(move |thread| self.thread_record(peer, thread))
    }

    /// One thread slot of a peer.
    #[must_use]
    pub fn thread_record(&self, peer: PeerId, thread: ThreadId) -> Option<ThreadRecord> {
        let slot = self.thread(peer, thread).ok()?;
        // Acquire, and before the load of the pending word: if the number already includes a wait, the pending word is
        // not that wait's. Pairs with the Release that counts the wait.
        let waits = slot[thread_word::WAITS].load(Ordering::Acquire);
        let pending = Pending::read(slot[thread_word::PENDING].load(Ordering::Acquire));
        // A dead thread does not wait for what its pending word still names.
        let named = ThreadSlot::new(slot);
        let lives = named.life().is_ready();
        let tid = if lives { named.tid() } else { 0 };
        Some(ThreadRecord { thread, tid, pending: pending.filter(|_| lives), waits })
    }

    /// Whether the thread is still in the same wait in which `before` saw it. Then it has done nothing
    /// else since, and has freed nothing.
    #[must_use]
    pub fn still_waits(&self, peer: PeerId, before: &ThreadRecord) -> bool {
        let Ok(slot) = self.thread(peer, before.thread) else { return false };
        // Acquire, and in this order: if the pending word announces a later wait, the number that was counted up
        // before the announcement is seen.
        let pending = Pending::read(slot[thread_word::PENDING].load(Ordering::Acquire));
        let waits = slot[thread_word::WAITS].load(Ordering::Acquire);
        pending.is_some() && pending == before.pending && waits == before.waits
    }

    /// The owner and key of each read lock that threads of a peer hold, or try to take, by a word of their slot.
    pub fn reading(&self, peer: PeerId) -> impl Iterator<Item = (Owner, u64)> + '_ {
        (0..self.threads_used(peer)).filter_map(ThreadId::new).flat_map(move |thread| {
            // The owner first: the thread that has the slot now has cleared what another left there.
            let owner = self.owner_of(peer, thread);
            let slot = owner.and_then(|_| self.thread(peer, thread).ok());
            // SeqCst: pairs with the reader's swap.
            let keys = slot.into_iter().flat_map(reading).map(|word| word.load(Ordering::SeqCst));
            keys.filter(|key| *key != 0).filter_map(move |key| Some((owner?, key)))
        })
    }

    /// The owner of the lock at `at`, whose word is `word`.
    #[must_use]
    pub fn holder(&self, word: LockWord, at: Offset) -> Option<Owner> {
        match word.bias() {
            Some(bias) => self.inside(bias, at),
            None => word.owner(),
        }
    }

    /// The key of a region's lock in [`reading`](Self::reading).
    #[must_use]
    pub const fn key_of(handle: RegionHandle) -> u64 {
        region_key(handle)
    }

    /// The share of each living peer in a region: mappings, and read locks for which its threads had no free word.
    pub fn shares(&self, region: RegionId) -> impl Iterator<Item = (PeerRef, ShareWord)> + '_ {
        self.peer_ids().filter_map(move |peer| self.current_share(peer, region))
    }

    /// What lies at the offset in a pending word.
    #[must_use]
    pub fn place(&self, at: Offset) -> WaitTarget {
        const ENTRY: u64 = 8 * region_word::COUNT as u64;
        if at.get() == 8 * header_word::DIRECTORY_LOCK as u64 {
            return WaitTarget::Directory;
        }
        let first = self.geometry().region(RegionId::new(0));
        let within = first.and_then(|first| at.get().checked_sub(first.get()));
        let region = within.and_then(|within| u32::try_from(within / ENTRY).ok());
        let known = region.filter(|region| self.regions_used().is_ok_and(|used| *region < used));
        let (Some(within), Some(region)) = (within, known) else {
            return WaitTarget::Elsewhere(at);
        };
        let region = RegionId::new(region);
        match usize::try_from(within % ENTRY / 8) {
            Ok(region_word::LOCK) => WaitTarget::Lock(region),
            Ok(region_word::DRAINED) => WaitTarget::Drained(region),
            Ok(region_word::UNMAPPED) => WaitTarget::Unmapped(region),
            _ => WaitTarget::Elsewhere(at),
        }
    }
}
