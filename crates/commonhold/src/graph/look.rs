//! The looks: what threads have announced, which threads hold the locks, and whether the first still wait.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::Ordering,
};

use commonhold_host::LinuxPlatform;
use commonhold_layout::{
    LockWord, Offset, Owner, PeerId, PeerPhase, PeerRef, PendingKind, ReadKey, RecordKind,
    RecordTag, RegionId, header_word, region_word,
};
use commonhold_space::{RegionRecord, ThreadRecord, View, WaitTarget};
use commonhold_sync::{Liveness, Verdict};

use super::{
    WaitKind,
    slot_owners::{self, SlotOwners},
    thread_ref::ThreadRef,
};
use crate::{RegionError, Space};

/// Which lock or event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Which {
    Directory,
    /// The lock of a region.
    Region(RegionId),
    /// A lock in the bytes of a region.
    Data(RegionId, Offset),
    /// An event in the bytes of a region: one of its own, or that of a semaphore or a barrier.
    Event(RegionId, Offset),
}

/// A lock, as it was between the two looks.
#[derive(Debug, Clone, Default)]
pub(super) struct Lock {
    /// Name of its region; `None`: the directory.
    pub(super) region: Option<String>,
    pub(super) offset: Option<u64>,
    /// The kind of record that its tag says, if it has a tag.
    pub(super) record: Option<RecordKind>,
    pub(super) owner: Option<ThreadRef>,
    /// Whether its owner lets readers in.
    pub(super) lets_readers_in: bool,
    pub(super) readers: Vec<ThreadRef>,
    pub(super) mappers: Vec<ThreadRef>,
    /// The owners of its slots, for a semaphore or a barrier.
    pub(super) places: Option<SlotOwners>,
}

/// A thread that waits.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) who: ThreadRef,
    pub(super) kind: WaitKind,
    pub(super) which: Option<Which>,
    pub(super) process: Option<u32>,
    pub(super) confirmed: bool,
}

/// Everything that was seen.
#[derive(Debug, Default)]
pub(super) struct Sight {
    pub(super) waiting: Vec<Waiting>,
    pub(super) locks: HashMap<Which, Lock>,
}

impl Space {
    pub(super) fn look_at_waits(&self) -> Result<Sight, RegionError> {
        let view = self.attachment().view()?;
        let records = self.records()?;
        let look = Look::new(view, &records);
        // The first look finds the waits. Then the owners of the locks are read. The second look finds the waits
        // that are still the same.
        let announced = announced(view);
        let mut sight = Sight::default();
        let mut looked_at = Vec::new();
        for (owner, record) in announced {
            let Some((kind, which)) = look.at_wait(&record) else { continue };
            let process = record.pending.and_then(|pending| pending.process());
            let who = ThreadRef::new(view, owner);
            sight.waiting.push(Waiting { who, kind, which, process, confirmed: false });
            looked_at.push((owner, record));
        }
        look.at_locks(&mut sight);
        for (waiting, (owner, record)) in sight.waiting.iter_mut().zip(&looked_at) {
            waiting.confirmed = view.still_waits(owner.peer(), record) && view.is_current(*owner);
        }
        bury(view, &mut sight);
        Ok(sight)
    }
}

/// Removes the waits of dead threads, and marks locks with slots of dead owners as open, even if no peer has
/// noticed the deaths. This comes last: a thread that lives now lived during the looks.
fn bury(view: &View<LinuxPlatform>, sight: &mut Sight) {
    let mut dead = HashMap::new();
    let mut is_dead = |peer: PeerId, generation: u32| {
        *dead
            .entry((peer, generation))
            .or_insert_with(|| view.verdict_of(PeerRef::new(peer, generation)) == Verdict::Dead)
    };
    sight.waiting.retain(|waiting| !is_dead(waiting.who.peer, waiting.who.generation));
    for places in sight.locks.values_mut().filter_map(|lock| lock.places.as_mut()) {
        places.is_open |= places.awaited.iter().any(|(owner, _)| {
            let peer = view.peer_of(*owner).filter(|_| view.is_current(*owner));
            peer.is_none_or(|peer| is_dead(peer.peer, peer.generation))
        });
    }
}

/// Every thread of a living peer that has announced something.
fn announced(view: &View<LinuxPlatform>) -> Vec<(Owner, ThreadRecord)> {
    let mut all = Vec::new();
    for peer in view.peer_ids() {
        let state = view.peer_state(peer);
        if !matches!(state.phase, PeerPhase::Live | PeerPhase::Attaching) {
            continue;
        }
        let waiting = view.threads(peer).filter(|record| record.pending.is_some());
        all.extend(
            waiting.filter_map(|record| Some((view.owner_of(peer, record.thread)?, record))),
        );
    }
    all
}

/// The offset of the event `drained` from the first word of a reader/writer lock.
const DRAINED: u64 = 8 * (region_word::DRAINED - region_word::LOCK) as u64;

struct Look<'a> {
    view: &'a View<LinuxPlatform>,
    by_id: HashMap<RegionId, &'a RegionRecord>,
    /// The regions in the order of their extents.
    by_place: Vec<&'a RegionRecord>,
}

impl<'a> Look<'a> {
    fn new(view: &'a View<LinuxPlatform>, records: &'a [RegionRecord]) -> Self {
        let by_id = records.iter().map(|record| (record.handle.region, record)).collect();
        let mut by_place: Vec<_> =
            records.iter().filter(|record| !record.extent.is_empty()).collect();
        by_place.sort_by_key(|record| record.extent.start());
        Self { view, by_id, by_place }
    }

    /// What a thread waits for; `None` if it does not wait, or its word is in no region.
    fn at_wait(&self, record: &ThreadRecord) -> Option<(WaitKind, Option<Which>)> {
        let pending = record.pending?;
        let kind = match pending.kind {
            PendingKind::Exclusive => WaitKind::Exclusive,
            PendingKind::Shared => WaitKind::Shared,
            PendingKind::Event => WaitKind::Event,
            PendingKind::Process => return Some((WaitKind::Process, None)),
            PendingKind::Release => return None,
        };
        let is_event = kind == WaitKind::Event;
        let (kind, which) = match self.view.place(pending.lock) {
            WaitTarget::Directory if !is_event => (kind, Which::Directory),
            WaitTarget::Lock(region) if !is_event => (kind, Which::Region(region)),
            WaitTarget::Drained(region) if is_event => (WaitKind::Readers, Which::Region(region)),
            WaitTarget::Unmapped(region) if is_event => (WaitKind::Mappings, Which::Region(region)),
            WaitTarget::Elsewhere(at) => {
                let record = self.region_at(at)?;
                let region = record.handle.region;
                match self.drained_by(record, at).filter(|_| is_event) {
                    Some(lock) => (WaitKind::Readers, Which::Data(region, lock)),
                    None if is_event => (self.kind_of_event(record, at), Which::Event(region, at)),
                    None => (kind, Which::Data(region, at)),
                }
            }
            _ => return None,
        };
        Some((kind, Some(which)))
    }

    /// The tag of the record that begins at `at`, if there is one.
    fn tag_at(&self, region: &RegionRecord, at: Offset) -> Option<RecordTag> {
        self.view.look_for_record(at, region.extent.end())
    }

    fn kind_at(&self, region: &RegionRecord, at: Offset) -> Option<RecordKind> {
        self.tag_at(region, at).map(|tag| tag.kind)
    }

    /// The kind of a wait for the event at `at`.
    fn kind_of_event(&self, region: &RegionRecord, at: Offset) -> WaitKind {
        let record = self.kind_at(region, at);
        record.and_then(slot_owners::wait_for).unwrap_or(WaitKind::Event)
    }

    /// The reader/writer lock in the region's bytes to which the event `drained` at `at` belongs.
    fn drained_by(&self, region: &RegionRecord, at: Offset) -> Option<Offset> {
        let lock = Offset::new(at.get().checked_sub(DRAINED)?)?;
        let inside = lock >= region.extent.start();
        (inside && self.kind_at(region, lock) == Some(RecordKind::RwLock)).then_some(lock)
    }

    fn region_at(&self, at: Offset) -> Option<&RegionRecord> {
        let after = self.by_place.partition_point(|record| record.extent.start() <= at);
        let record = self.by_place.get(after.checked_sub(1)?)?;
        (at.get() < record.extent.end()).then_some(record)
    }

    fn record(&self, region: RegionId) -> Option<&RegionRecord> {
        self.by_id.get(&region).copied()
    }

    /// Reads the owners of the locks that threads wait for.
    fn at_locks(&self, sight: &mut Sight) {
        for which in sight.waiting.iter().filter_map(|waiting| waiting.which) {
            if sight.locks.contains_key(&which) {
                continue;
            }
            if let Some(lock) = self.at_lock(which) {
                sight.locks.insert(which, lock);
            }
        }
        // The lock of a region that is gone by now has no waiters.
        let Sight { waiting, locks } = sight;
        waiting.retain(|waiting| waiting.which.is_none_or(|which| locks.contains_key(&which)));
        self.at_readers(locks);
    }

    fn at_lock(&self, which: Which) -> Option<Lock> {
        let geometry = self.view.geometry();
        let (at, record) = match which {
            Which::Directory => (Offset::new(8 * header_word::DIRECTORY_LOCK as u64)?, None),
            Which::Region(region) => {
                let at = geometry.region(region)?.plus(8 * region_word::LOCK as u64)?;
                (at, Some(self.record(region)?))
            }
            Which::Data(region, at) | Which::Event(region, at) => (at, Some(self.record(region)?)),
        };
        // SeqCst: in one total order with the threads' announcements.
        let word = LockWord::from_word(self.view.look_at(at)?.load(Ordering::SeqCst));
        let mut lock = Lock {
            region: record.map(|record| record.name.to_string()),
            owner: self.holder(which, word, at).map(|owner| ThreadRef::new(self.view, owner)),
            lets_readers_in: word.is_upgradable(),
            ..Lock::default()
        };
        if let (Which::Data(_, at) | Which::Event(_, at), Some(record)) = (which, record) {
            lock.offset = Some(at.get().saturating_sub(record.extent.start().get()));
            let (end, tag) = (record.extent.end(), self.tag_at(record, at));
            lock.record = tag.map(|tag| tag.kind);
            lock.places = tag.and_then(|tag| SlotOwners::look(self.view, at, end, tag));
        }
        Some(lock)
    }

    fn holder(&self, which: Which, word: LockWord, at: Offset) -> Option<Owner> {
        match which {
            Which::Event(..) => None,
            Which::Data(..) | Which::Region(_) => self.view.holder(word, at),
            Which::Directory => word.owner(),
        }
    }

    /// Finds the readers of the locks that threads wait for, and the mappers of regions whose own locks they wait
    /// for.
    fn at_readers(&self, locks: &mut HashMap<Which, Lock>) {
        let mut keys = HashMap::new();
        for (which, lock) in locks.iter_mut() {
            if let Which::Data(region, at) = *which
                && lock.record == Some(RecordKind::RwLock)
                && let Some(record) = self.record(region)
            {
                let key = ReadKey::of_record(at, region, record.handle.generation);
                keys.insert(key.word(), *which);
            }
            let Which::Region(region) = *which else { continue };
            for (peer, share) in self.view.shares(region) {
                if share.readers() > 0 {
                    lock.readers.push(ThreadRef::some_of(peer));
                }
                if share.mappings() > 0 {
                    lock.mappers.push(ThreadRef::some_of(peer));
                }
            }
            if let Some(record) = self.record(region) {
                keys.insert(View::<LinuxPlatform>::key_of(record.handle), *which);
            }
        }
        if keys.is_empty() {
            return;
        }
        let mut seen = HashSet::new();
        for peer in self.view.peer_ids() {
            for (owner, key) in self.view.reading(peer) {
                if let Some(which) = keys.get(&key)
                    && seen.insert((*which, owner))
                    && let Some(lock) = locks.get_mut(which)
                {
                    lock.readers.push(ThreadRef::new(self.view, owner));
                }
            }
        }
    }
}
