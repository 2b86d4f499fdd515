//! A single look at all peers, for any number of locks.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
};

use commonhold_host::LinuxPlatform;
use commonhold_layout::{Offset, Owner, PeerId, PeerRef, PendingKind};
use commonhold_space::{PeerRecord, RegionRecord, View};
use commonhold_sync::{Liveness, Verdict};

use crate::{Holder, PeerLife, info::domain};

/// Numbers of waiting threads, by the offset of the word that they wait for.
type Waiters = HashMap<Offset, usize>;

/// What is read once, for any number of regions: a space may have thousands of peers with hundreds of threads each,
/// and to find out whether one lives costs system calls.
pub(super) struct Glance<'a> {
    pub(super) view: &'a View<LinuxPlatform>,
    /// Threads that wait for locks.
    pub(super) waiters: Waiters,
    /// Threads that wait for events. Threads that wait for a permit wait for an event.
    listeners: Waiters,
    /// The readers of each lock, by the key of the lock in the threads' words: each peer once.
    readers: HashMap<u64, BTreeMap<PeerId, PeerRef>>,
    holders: RefCell<HashMap<PeerRef, Holder>>,
}

impl<'a> Glance<'a> {
    pub(super) fn new(view: &'a View<LinuxPlatform>) -> Self {
        let (mut waiters, mut listeners) = (Waiters::new(), Waiters::new());
        let mut readers: HashMap<u64, BTreeMap<PeerId, PeerRef>> = HashMap::new();
        view.fence_fired();
        for peer in view.peer_ids() {
            let state = view.peer_state(peer);
            if !state.is_current(state.generation) {
                continue;
            }
            for (_, pending) in view.pendings(peer) {
                match pending.kind {
                    PendingKind::Exclusive | PendingKind::Shared => {
                        *waiters.entry(pending.lock).or_default() += 1;
                    }
                    PendingKind::Event => *listeners.entry(pending.lock).or_default() += 1,
                    PendingKind::Release | PendingKind::Process => {}
                }
            }
            for (_, key) in view.reading(peer) {
                readers.entry(key).or_default().insert(peer, PeerRef::new(peer, state.generation));
            }
        }
        Self { view, waiters, listeners, readers, holders: RefCell::default() }
    }

    /// How many threads wait for the lock whose word lies at `at`.
    pub(super) fn waiters(&self, at: Offset) -> usize {
        self.waiters.get(&at).copied().unwrap_or(0)
    }

    /// How many threads wait for the event whose word lies at `at`.
    pub(super) fn listeners(&self, at: Offset) -> usize {
        self.listeners.get(&at).copied().unwrap_or(0)
    }

    /// The peers with a thread whose words say that it reads under the lock with this key.
    pub(super) fn readers_by(&self, key: u64) -> BTreeMap<PeerId, PeerRef> {
        self.readers.get(&key).cloned().unwrap_or_default()
    }

    /// The peers that read under the lock of a region.
    pub(super) fn readers(&self, record: &RegionRecord) -> BTreeMap<PeerId, PeerRef> {
        let mut readers = self.readers_by(View::<LinuxPlatform>::key_of(record.handle));
        for (of, share) in self.view.shares(record.handle.region) {
            if share.readers() > 0 {
                readers.insert(of.peer, of);
            }
        }
        readers
    }

    /// Describes the peer of an owner, or of a past owner.
    pub(super) fn holder(&self, owner: Owner) -> Holder {
        // If its peer is not known any more, it is known only that it is dead.
        let peer = self.view.peer_of(owner).unwrap_or(PeerRef::new(owner.peer(), 0));
        let known = self.peer(peer);
        // The thread may have ended while its process lives. A verdict that finds this marks the thread, so each
        // dead thread is examined once.
        let is_dead = known.alive && self.view.verdict(owner) == Verdict::Dead;
        if is_dead || !self.view.is_current(owner) {
            let last = self.view.last_record_of(owner).filter(|_| known.pid == 0);
            let known = last.map_or(known, |record| told(&record, PeerLife::Dead));
            return Holder { alive: false, state: PeerLife::Dead, ..known };
        }
        known
    }

    pub(super) fn peer(&self, peer: PeerRef) -> Holder {
        let mut holders = self.holders.borrow_mut();
        holders.entry(peer).or_insert_with(|| self.look_at(peer)).clone()
    }

    fn look_at(&self, peer: PeerRef) -> Holder {
        let record = self.view.peer_record(peer.peer).map(|(record, _)| record);
        let state = PeerLife::new(self.view.verdict_of(peer));
        match record.filter(|record| record.generation == peer.generation) {
            Some(record) => told(&record, state),
            None => Holder {
                slot: peer.peer.get(),
                generation: peer.generation,
                pid: 0,
                domain: String::new(),
                alive: state == PeerLife::Live,
                state,
            },
        }
    }
}

fn told(record: &PeerRecord, state: PeerLife) -> Holder {
    Holder {
        slot: record.peer.get(),
        generation: record.generation,
        pid: record.identity.pid,
        domain: domain(record.identity.boot),
        alive: state == PeerLife::Live,
        state,
    }
}
