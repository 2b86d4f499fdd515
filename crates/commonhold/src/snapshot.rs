//! What a space tells about itself.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use commonhold_layout::{
    BootId, LockFlags, LockWord, Offset, Owner, PeerPhase, PeerRef, PendingKind, RegionId,
    RegionPhase, region_word,
};
use commonhold_space::{PeerRecord, RegionRecord};
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
    /// What the space is, and how much of it is used.
    ///
    /// # Errors
    /// [`RegionError::Damaged`], [`RegionError::Forked`].
    pub fn info(&self) -> Result<SpaceInfo, RegionError> {
        let attachment = self.attachment();
        let core = attachment.core()?;
        let census = core.check(&attachment.me()?).map_err(|error| region_error(error, ""))?;
        let geometry = core.view().geometry();
        let platform = core.view().platform();
        let data = geometry.data();
        let live = self.peers()?.iter().filter(|peer| peer.state != PeerLife::Dead).count();
        let regions = census.active + census.creating + census.destroying;
        Ok(SpaceInfo {
            url: attachment.url.clone(),
            version: commonhold_layout::VERSION,
            uuid: geometry.uuid(),
            created: time(geometry.created_ms()),
            capacity: geometry.capacity(),
            tables: data.start().get(),
            used: census.used,
            free: data.len().saturating_sub(census.used),
            largest_free: census.largest_free,
            page: geometry.page(),
            peers: (live, geometry.peers()),
            regions: (usize::try_from(regions).unwrap_or(usize::MAX), geometry.regions()),
            lease_ms: geometry.lease_ms(),
            memory: crate::MemoryInfo::of(platform.mapped()),
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
        let attachment = self.attachment();
        attachment.view()?.fence_rung();
        let record = attachment
            .view()?
            .stat(&attachment.me()?, &checked)
            .map_err(|error| region_error(error, name))?;
        self.region_info(&record, &self.waiters()?)
    }

    /// All regions, in the order of their entries.
    ///
    /// # Errors
    /// [`RegionError::Damaged`], [`RegionError::Forked`].
    pub fn regions(&self) -> Result<Vec<RegionInfo>, RegionError> {
        self.attachment().view()?.fence_rung();
        let waiters = self.waiters()?;
        self.records()?.iter().map(|record| self.region_info(record, &waiters)).collect()
    }

    pub(crate) fn records(&self) -> Result<Vec<RegionRecord>, RegionError> {
        let view = self.attachment().view()?;
        let used = view.regions_used().map_err(RegionError::Damaged)?;
        (0..used)
            .filter_map(|region| view.region_record(RegionId::new(region)).transpose())
            .collect::<Result<_, _>>()
            .map_err(RegionError::Damaged)
    }

    fn region_info(
        &self,
        record: &RegionRecord,
        waiters: &Waiters,
    ) -> Result<RegionInfo, RegionError> {
        Ok(RegionInfo {
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
            created: time(record.created_ms),
            lock: self.region_locks(record, waiters)?.into_iter().next(),
        })
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
        let mut waiters = self.waiters()?;
        let mut locks = Vec::new();
        let records = self.records()?;
        for record in &records {
            locks.extend(self.region_locks(record, &waiters)?);
            if let Some(at) = self.region_lock_at(record) {
                waiters.remove(&at);
            }
        }
        let view = self.attachment().view()?;
        for (at, count) in waiters {
            let Some(record) = records
                .iter()
                .find(|record| record.extent.start() <= at && at.get() < record.extent.end())
            else {
                continue;
            };
            let Ok(word) = view.window().word(at) else { continue };
            // SeqCst: a bias may be revoked in it, and whether its thread is inside comes after it.
            let word = LockWord::from_word(word.load(std::sync::atomic::Ordering::SeqCst));
            locks.push(LockInfo {
                region: record.name.to_string(),
                offset: Some(at.get().saturating_sub(record.extent.start().get())),
                kind: kind(word),
                holder: view.holder(word, at).map(|owner| self.holder(owner)).transpose()?,
                since: None,
                waiters: count,
            });
        }
        locks.sort_by(|a, b| (&a.region, a.offset).cmp(&(&b.region, b.offset)));
        Ok(locks)
    }

    fn region_lock_at(&self, record: &RegionRecord) -> Option<Offset> {
        let geometry = self.attachment().platform_geometry();
        geometry.region(record.handle.region)?.plus(8 * region_word::LOCK as u64)
    }

    fn waiters(&self) -> Result<Waiters, RegionError> {
        let view = self.attachment().view()?;
        let mut waiters = Waiters::new();
        let current = view.peer_ids().filter(|peer| {
            matches!(view.peer_state(*peer).phase, PeerPhase::Live | PeerPhase::Attaching)
        });
        for (_, pending) in current.flat_map(|peer| view.pendings(peer)) {
            if matches!(pending.kind, PendingKind::Exclusive | PendingKind::Shared) {
                *waiters.entry(pending.lock).or_default() += 1;
            }
        }
        Ok(waiters)
    }

    fn region_locks(
        &self,
        record: &RegionRecord,
        waiters: &Waiters,
    ) -> Result<Vec<LockInfo>, RegionError> {
        let view = self.attachment().view()?;
        let waiting =
            self.region_lock_at(record).and_then(|at| waiters.get(&at).copied()).unwrap_or(0);
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
            locks.push(line(kind(word), Some(self.holder(owner)?)));
        } else if kind(word) != LockKind::Exclusive {
            locks.push(line(kind(word), None));
        }
        for reader in view.readers(record.handle) {
            locks.push(line(LockKind::Shared, Some(self.holding_peer(reader)?)));
        }
        if locks.is_empty() && waiting > 0 {
            locks.push(line(LockKind::Exclusive, None));
        }
        Ok(locks)
    }

    fn holder(&self, owner: Owner) -> Result<Holder, RegionError> {
        let view = self.attachment().view()?;
        let state = life(view.verdict(owner));
        // Of one whom nobody knows any more there is nothing to tell but that it is dead.
        let peer = view.peer_of(owner).unwrap_or(PeerRef::new(owner.peer(), 0));
        self.describe(peer, state)
    }

    fn holding_peer(&self, peer: PeerRef) -> Result<Holder, RegionError> {
        let state = life(self.attachment().view()?.verdict_of(peer));
        self.describe(peer, state)
    }

    fn describe(&self, peer: PeerRef, state: PeerLife) -> Result<Holder, RegionError> {
        let record = self
            .attachment()
            .view()?
            .peer_record(peer.peer)
            .map(|(record, _)| record)
            .filter(|record| record.generation == peer.generation);
        Ok(Holder {
            slot: peer.peer.get(),
            generation: peer.generation,
            pid: record.map_or(0, |record| record.identity.pid),
            domain: record.map_or(String::new(), |record| domain(record.identity.boot)),
            alive: state == PeerLife::Live,
            state,
        })
    }
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
