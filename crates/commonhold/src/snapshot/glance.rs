//! What is looked at once, however many locks there are.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
};

use commonhold_host::LinuxPlatform;
use commonhold_layout::{Offset, Owner, PeerId, PeerRef, PendingKind};
use commonhold_space::{PeerRecord, RegionRecord, View};
use commonhold_sync::{Liveness, Verdict};

use crate::{Holder, PeerLife, info::domain};

/// Who waits for what: threads, by the offset of the word that they wait for.
type Waiters = HashMap<Offset, usize>;

/// What is looked at once, however many regions there are: a space may have thousands of peers, each with
/// hundreds of threads, and a look at the life of one costs system calls.
pub(super) struct Glance<'a> {
    pub(super) view: &'a View<LinuxPlatform>,
    /// Who waits for locks.
    pub(super) waiters: Waiters,
    /// Who waits for events, as those do that wait for a permit.
    listeners: Waiters,
    /// Who reads under which lock, by the words of their threads: one of each peer.
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

    /// How many wait for the lock whose word lies there.
    pub(super) fn waiters(&self, at: Offset) -> usize {
        self.waiters.get(&at).copied().unwrap_or(0)
    }

    /// How many wait for the event whose word lies there.
    pub(super) fn listeners(&self, at: Offset) -> usize {
        self.listeners.get(&at).copied().unwrap_or(0)
    }

    /// Who reads under the lock with this key, by the words of their threads, once for each peer.
    pub(super) fn readers_by(&self, key: u64) -> BTreeMap<PeerId, PeerRef> {
        self.readers.get(&key).cloned().unwrap_or_default()
    }

    /// Who reads under the lock of a region, once for each peer.
    pub(super) fn readers(&self, record: &RegionRecord) -> BTreeMap<PeerId, PeerRef> {
        let mut readers = self.readers_by(View::<LinuxPlatform>::key_of(record.handle));
        for (of, share) in self.view.shares(record.handle.region) {
            if share.readers() > 0 {
                readers.insert(of.peer, of);
            }
        }
        readers
    }

    /// Who an owner is, or was.
    pub(super) fn holder(&self, owner: Owner) -> Holder {
        // Of one that nobody knows any more there is nothing to tell but that it is dead.
        let peer = self.view.peer_of(owner).unwrap_or(PeerRef::new(owner.peer(), 0));
        let known = self.peer(peer);
        // A thread may have ended alone. What its own look finds out marks it, so it is looked at once.
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
