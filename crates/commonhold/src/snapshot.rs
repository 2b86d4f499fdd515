//! What a space tells about itself.

mod glance;
mod locks;
mod search;

use std::time::{Duration, SystemTime};

use commonhold_host::{LinuxPlatform, Supply};
use commonhold_layout::{Extent, PeerId, PeerPhase, RegionId, RegionPhase};
use commonhold_space::{RegionRecord, View};

use crate::{
    PeerInfo, PeerLife, RegionError, RegionInfo, RegionKey, Space, SpaceInfo, State,
    error::causes::{checked, region_error},
    info::domain,
};
use glance::Glance;
use locks::region_locks;

fn time(unix_ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_millis(unix_ms))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

impl Space {
    /// Describes the space, and how much of it is used. Regions come and go meanwhile, so the numbers are not from
    /// one moment.
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
        // Damaged entries may overlap, and add up to more than there is.
        let used = found.records.iter().fold(0_u64, |used, r| used.saturating_add(r.extent.len()));
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
            memory: crate::MemoryInfo::new(platform.mapped()),
            resident: Extent::new(0, geometry.capacity())
                .and_then(|all| platform.mapped().resident(all)),
            supply: platform.mapped().supply(),
            waiting: platform.waiting_name(core.view().spans_kernels()),
            orphaned: platform.mapped().has_lost_its_name(),
        })
    }

    /// Describes the region of this name, in any state.
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

    /// What limits the memory of the space, and how much of it is left. `None` for a device, whose memory is all
    /// there.
    ///
    /// # Errors
    /// [`RegionError::Forked`].
    pub fn supply(&self) -> Result<Option<Supply>, RegionError> {
        Ok(self.attachment().view()?.platform().mapped().supply())
    }

    /// All regions, in the order of their entries. A damaged entry is listed as [`State::Damaged`].
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

    /// The records of all entries that are not damaged.
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

    /// All peers whose slots have not been freed, including dead ones.
    ///
    /// # Errors
    /// [`RegionError::Forked`].
    pub fn peers(&self) -> Result<Vec<PeerInfo>, RegionError> {
        let view = self.attachment().view()?;
        Ok(view.peer_ids().filter_map(|peer| peer_info(view, peer)).collect())
    }

    /// The peers that map a region now: a `destroy` waits for these.
    ///
    /// # Errors
    /// [`RegionError::NotFound`], [`RegionError::Forked`].
    pub fn mappers(&self, name: &str) -> Result<Vec<PeerInfo>, RegionError> {
        let checked = checked(name)?;
        let view = self.attachment().view()?;
        let record = view.stat(&checked).map_err(|error| region_error(error, name))?;
        let mappers = view.mappers(record.handle.region);
        Ok(mappers.filter_map(|(of, _)| peer_info(view, of.peer)).collect())
    }
}

fn peer_info(view: &View<LinuxPlatform>, peer: PeerId) -> Option<PeerInfo> {
    let (record, phase) = view.peer_record(peer)?;
    let state = match phase {
        PeerPhase::Live | PeerPhase::Attaching => PeerLife::new(view.verdict_on(&record)),
        _ => PeerLife::Dead,
    };
    Some(PeerInfo {
        slot: peer.get(),
        generation: record.generation,
        pid: record.identity.pid,
        domain: domain(record.identity.boot),
        state,
        attached: time(record.attached_ms),
        name: record.identity.name.to_string(),
    })
}

/// The contents of the table of regions.
#[derive(Debug, Default)]
struct Found {
    records: Vec<RegionRecord>,
    /// Entries that are damaged.
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
        id: RegionKey::new(record.handle),
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
