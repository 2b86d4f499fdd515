//! What a space tells about itself.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    time::{Duration, SystemTime},
};

use commonhold_host::{LinuxPlatform, Supply};
use commonhold_layout::{
    BootId, Extent, LockFlags, LockWord, Offset, Owner, PeerId, PeerPhase, PeerRef, PendingKind,
    RegionId, RegionPhase, region_word,
};
use commonhold_space::{PeerRecord, RegionRecord, View};
use commonhold_sync::{Liveness, Verdict};

use crate::{
    Holder, LockInfo, LockKind, PeerInfo, PeerInfoBrief, PeerLife, RegionError, RegionInfo,
    RegionKey, Space, SpaceInfo, State,
    attachment::{checked, region_error},
};

/// Who waits for what: threads, by the offset of the lock's word.
type Waiters = HashMap<Offset, usize>;

pub(crate) fn dead_peer(record: &PeerRecord) -> PeerInfoBrief {
    PeerInfoBrief {
        slot: record.peer.get(),
        generation: record.generation,
        pid: record.identity.pid,
        name: record.identity.name.to_string(),
    }
}

fn time(unix_ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_millis(unix_ms))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A boot id in its usual form; empty if there is none.
pub(crate) fn domain(boot: BootId) -> String {
    if boot.0 == 0 {
        return String::new();
    }
    let hex = format!("{:032x}", boot.0);
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| hex.get(range).unwrap_or(""));
    parts.join("-")
}

impl Space {
    /// What the space is, and how much of it is used. Regions come and go meanwhile: it is as of no one moment.
    ///
    /// # Errors
    /// [`RegionError::Damaged`], [`RegionError::Forked`].
    pub fn info(&self) -> Result<SpaceInfo, RegionError> {
        let attachment = self.attachment();
        let core = attachment.core()?;
        let found = self.found()?;
        let geometry = core.view().geometry();
        let platform = core.view().platform();
        let data = geometry.data();
        let live = self.peers()?.iter().filter(|peer| peer.state != PeerLife::Dead).count();
        let used = found.records.iter().map(|record| record.extent.len()).sum();
        Ok(SpaceInfo {
            url: attachment.url.clone(),
            version: commonhold_layout::VERSION,
            uuid: geometry.uuid(),
            created: time(geometry.created_ms()),
            capacity: geometry.capacity(),
            tables: data.start().get(),
            used,
            free: data.len().saturating_sub(used),
            largest_free: largest_free(&found.records, data),
            page: geometry.page(),
            peers: (live, geometry.peers()),
            regions: (found.records.len() + found.damaged.len(), geometry.regions()),
            lease_ms: geometry.lease_ms(),
            memory: crate::MemoryInfo::of(platform.mapped()),
            resident: Extent::new(0, geometry.capacity())
                .and_then(|all| platform.mapped().resident(all)),
            supply: platform.mapped().supply(),
            waiting: platform.waiting_name(core.view().spans_kernels()),
            orphaned: platform.mapped().has_lost_its_name(),
        })
    }

    /// The region of a name, whatever it is going through.
    ///
    /// # Errors
    /// [`RegionError::NotFound`].
    pub fn stat(&self, name: &str) -> Result<RegionInfo, RegionError> {
        let checked = checked(name)?;
        let view = self.attachment().view()?;
        let record = view.stat(&checked).map_err(|error| region_error(error, name))?;
        let resident = view.platform().mapped().resident(record.extent);
        Ok(RegionInfo { resident, ..region_info(&record, &Glance::new(view)) })
    }

    /// How much there is of what limits the memory of the space; `None` of a device, whose memory is all there.
    ///
    /// # Errors
    /// [`RegionError::Forked`].
    pub fn supply(&self) -> Result<Option<Supply>, RegionError> {
        Ok(self.attachment().view()?.platform().mapped().supply())
    }

    /// All regions, in the order of their entries. An entry that makes no sense is listed as
    /// [`State::Damaged`].
    ///
    /// # Errors
    /// [`RegionError::Damaged`], [`RegionError::Forked`].
    pub fn regions(&self) -> Result<Vec<RegionInfo>, RegionError> {
        let glance = Glance::new(self.attachment().view()?);
        let found = self.found()?;
        let damaged = found.damaged.iter().map(|region| damaged_info(*region));
        let mut regions: Vec<_> = found
            .records
            .iter()
            .map(|record| region_info(record, &glance))
            .chain(damaged)
            .collect();
        regions.sort_by_key(|region| region.id.entry);
        Ok(regions)
    }

    /// What the entries say that make sense.
    pub(crate) fn records(&self) -> Result<Vec<RegionRecord>, RegionError> {
        self.found().map(|found| found.records)
    }

    fn found(&self) -> Result<Found, RegionError> {
        let view = self.attachment().view()?;
        let used = view.regions_used().map_err(RegionError::Damaged)?;
        let mut found = Found::default();
        for region in (0..used).map(RegionId::new) {
            match view.region_record(region) {
                Ok(Some(record)) => found.records.push(record),
                Ok(None) => {}
                Err(_) => found.damaged.push(region),
            }
        }
        Ok(found)
    }

    /// All peers whose slots have not been given back, the dead among them included.
    ///
    /// # Errors
    /// [`RegionError::Forked`].
    pub fn peers(&self) -> Result<Vec<PeerInfo>, RegionError> {
        let view = self.attachment().view()?;
        let peers = view.peer_ids().filter_map(|peer| {
            let (record, phase) = view.peer_record(peer)?;
            let state = match phase {
                PeerPhase::Live | PeerPhase::Attaching => life(view.verdict_on(&record)),
                _ => PeerLife::Dead,
            };
            Some(PeerInfo {
                slot: peer.get(),
                generation: record.generation,
                pid: record.identity.pid,
                domain: domain(record.identity.boot),
                state,
                name: record.identity.name.to_string(),
            })
        });
        Ok(peers.collect())
    }

    /// Every lock that is held, waited for or not consistent. A mutex in the bytes of a region is
    /// known only while somebody waits for it.
    ///
    /// # Errors
    /// [`RegionError::Damaged`], [`RegionError::Forked`].
    pub fn locks(&self) -> Result<Vec<LockInfo>, RegionError> {
        let view = self.attachment().view()?;
        let glance = Glance::new(view);
        let mut waiters = glance.waiters.clone();
        let mut locks = Vec::new();
        let mut records = self.records()?;
        for record in &records {
            locks.extend(region_locks(record, &glance, usize::MAX));
            if let Some(at) = region_lock_at(view, record) {
                waiters.remove(&at);
            }
        }
        records.retain(|record| !record.extent.is_empty());
        records.sort_by_key(|record| record.extent.start());
        for (at, count) in waiters {
            let after = records.partition_point(|record| record.extent.start() <= at);
            let Some(record) = after.checked_sub(1).and_then(|before| records.get(before)) else {
                continue;
            };
            if at.get() >= record.extent.end() {
                continue;
            }
            // A thread may say that it waits for anything.
            let Some(word) = view.look_at(at) else { continue };
            // SeqCst: a bias may be revoked in it, and whether its thread is inside comes after it.
            let word = LockWord::from_word(word.load(std::sync::atomic::Ordering::SeqCst));
            locks.push(LockInfo {
                region: record.name.to_string(),
                offset: Some(at.get().saturating_sub(record.extent.start().get())),
                kind: kind(word),
                holder: view.holder(word, at).map(|owner| glance.holder(owner)),
                since: None,
                waiters: count,
            });
        }
        locks.sort_by(|a, b| (&a.region, a.offset).cmp(&(&b.region, b.offset)));
        Ok(locks)
    }
}

/// What the table of regions holds.
#[derive(Debug, Default)]
struct Found {
    records: Vec<RegionRecord>,
    /// Entries that make no sense.
    damaged: Vec<RegionId>,
}

/// Bytes of the largest part of `data` that no region covers.
fn largest_free(records: &[RegionRecord], data: Extent) -> u64 {
    let mut extents: Vec<_> = records.iter().map(|record| record.extent).collect();
    extents.retain(|extent| !extent.is_empty());
    extents.sort_by_key(|extent| extent.start());
    let mut end = data.start().get();
    let mut largest = 0;
    for extent in extents {
        largest = largest.max(extent.start().get().saturating_sub(end));
        end = end.max(extent.end());
    }
    largest.max(data.end().saturating_sub(end))
}

fn region_info(record: &RegionRecord, glance: &Glance<'_>) -> RegionInfo {
    RegionInfo {
        name: record.name.to_string(),
        id: RegionKey::of(record.handle),
        size: record.size,
        reserve: record.extent.len(),
        lazy: record.lazy,
        state: match record.phase {
            RegionPhase::Creating => State::Creating,
            RegionPhase::Active => State::Active,
            _ => State::Destroying,
        },
        maps: record.mappings,
        offset: record.extent.start().get(),
        resident: None,
        created: time(record.created_ms),
        lock: region_locks(record, glance, 1).into_iter().next(),
    }
}

fn damaged_info(region: RegionId) -> RegionInfo {
    RegionInfo {
        name: String::new(),
        id: RegionKey { entry: region.get(), generation: 0 },
        size: 0,
        reserve: 0,
        lazy: false,
        state: State::Damaged,
        maps: 0,
        offset: 0,
        resident: None,
        created: SystemTime::UNIX_EPOCH,
        lock: None,
    }
}

fn region_lock_at(view: &View<LinuxPlatform>, record: &RegionRecord) -> Option<Offset> {
    view.geometry().region(record.handle.region)?.plus(8 * region_word::LOCK as u64)
}

/// What is looked at once, however many regions there are: a space may have thousands of peers, each with
/// hundreds of threads, and a look at the life of one costs system calls.
struct Glance<'a> {
    view: &'a View<LinuxPlatform>,
    waiters: Waiters,
    /// Who reads under which lock, by the words of their threads: one of each peer.
    readers: HashMap<u64, BTreeMap<PeerId, PeerRef>>,
    holders: RefCell<HashMap<PeerRef, Holder>>,
}

impl<'a> Glance<'a> {
    fn new(view: &'a View<LinuxPlatform>) -> Self {
        let mut waiters = Waiters::new();
        let mut readers: HashMap<u64, BTreeMap<PeerId, PeerRef>> = HashMap::new();
        view.fence_rung();
        for peer in view.peer_ids() {
            let state = view.peer_state(peer);
            if !state.is_current(state.generation) {
                continue;
            }
            for (_, pending) in view.pendings(peer) {
                if matches!(pending.kind, PendingKind::Exclusive | PendingKind::Shared) {
                    *waiters.entry(pending.lock).or_default() += 1;
                }
            }
            for (_, key) in view.reading(peer) {
                readers.entry(key).or_default().insert(peer, PeerRef::new(peer, state.generation));
            }
        }
        Self { view, waiters, readers, holders: RefCell::default() }
    }

    /// Who reads under the lock of a region, once for each peer.
    fn readers(&self, record: &RegionRecord) -> BTreeMap<PeerId, PeerRef> {
        let key = View::<LinuxPlatform>::key_of(record.handle);
        let mut readers = self.readers.get(&key).cloned().unwrap_or_default();
        for (of, share) in self.view.shares(record.handle.region) {
            if share.readers() > 0 {
                readers.insert(of.peer, of);
            }
        }
        readers
    }

    fn holder(&self, owner: Owner) -> Holder {
        // Of one whom nobody knows any more there is nothing to tell but that it is dead.
        let peer = self.view.peer_of(owner).unwrap_or(PeerRef::new(owner.peer(), 0));
        let known = self.peer(peer);
        // A thread may have ended alone. What its own look finds out marks it, so it is looked at once.
        if known.alive && self.view.verdict(owner) == Verdict::Dead {
            return Holder { alive: false, state: PeerLife::Dead, ..known };
        }
        if !self.view.is_current(owner) {
            return Holder { alive: false, state: PeerLife::Dead, ..known };
        }
        known
    }

    fn peer(&self, peer: PeerRef) -> Holder {
        let mut holders = self.holders.borrow_mut();
        holders.entry(peer).or_insert_with(|| self.look_at(peer)).clone()
    }

    fn look_at(&self, peer: PeerRef) -> Holder {
        let record = self
            .view
            .peer_record(peer.peer)
            .map(|(record, _)| record)
            .filter(|record| record.generation == peer.generation);
        let state = life(self.view.verdict_of(peer));
        Holder {
            slot: peer.peer.get(),
            generation: peer.generation,
            pid: record.map_or(0, |record| record.identity.pid),
            domain: record.map_or(String::new(), |record| domain(record.identity.boot)),
            alive: state == PeerLife::Live,
            state,
        }
    }
}

/// The lines of a region's own lock, and no more than `most` of them.
fn region_locks(record: &RegionRecord, glance: &Glance<'_>, most: usize) -> Vec<LockInfo> {
    let at = region_lock_at(glance.view, record);
    let waiting = at.and_then(|at| glance.waiters.get(&at).copied()).unwrap_or(0);
    let line = |kind, holder| LockInfo {
        region: record.name.to_string(),
        offset: None,
        kind,
        holder,
        since: record.held_since_ms.map(time),
        waiters: waiting,
    };
    let word = record.lock;
    let mut locks = Vec::new();
    if let Some(owner) = word.owner() {
        locks.push(line(kind(word), Some(glance.holder(owner))));
    } else if kind(word) != LockKind::Exclusive {
        locks.push(line(kind(word), None));
    }
    if locks.len() < most {
        let readers = glance.readers(record).into_values().take(most - locks.len());
        let shared = readers.map(|reader| line(LockKind::Shared, Some(glance.peer(reader))));
        locks.extend(shared);
    }
    if locks.is_empty() && waiting > 0 {
        locks.push(line(LockKind::Exclusive, None));
    }
    locks
}

pub(crate) const fn life(verdict: Verdict) -> PeerLife {
    match verdict {
        Verdict::Alive => PeerLife::Live,
        Verdict::Suspect => PeerLife::Suspect,
        Verdict::Dead => PeerLife::Dead,
    }
}

/// How a word is to be called.
fn kind(word: LockWord) -> LockKind {
    if word.is_upgradable() {
        LockKind::Upgradable
    } else if word.is_owned() {
        LockKind::Exclusive
    } else if word.is_unrecoverable() {
        LockKind::Unrecoverable
    } else if word.flags().contains(LockFlags::INCONSISTENT) {
        LockKind::Inconsistent
    } else {
        LockKind::Exclusive
    }
}
