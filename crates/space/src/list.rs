//! The contents of a space: for listings, and for tests that nothing was lost.

use core::sync::atomic::Ordering;

use commonhold_layout::{
    Damage, Extent, LockWord, Name, Owner, RegionFlags, RegionId, RegionPhase, RegionState,
    header_word, region_word,
};

use crate::{Attached, DirectoryError, Patience, Platform, RegionHandle, View};
use commonhold_sync::{Liveness as _, Thread};

/// A region, as it was at one moment.
#[derive(Debug, Clone, Copy)]
pub struct RegionRecord {
    /// Which region.
    pub handle: RegionHandle,
    /// The phase of its life.
    pub phase: RegionPhase,
    /// Whether its memory is committed at first touch.
    pub lazy: bool,
    /// Its name.
    pub name: Name,
    /// Its extent.
    pub extent: Extent,
    /// Bytes that a mapping sees.
    pub size: u64,
    /// Mappings of all peers that are not fenced.
    pub mappings: u64,
    /// The word of its lock.
    pub lock: LockWord,
    /// When the lock was taken, in milliseconds of Unix time, if its holder said so.
    pub held_since_ms: Option<u64>,
    /// When it was created, in milliseconds of Unix time.
    pub created_ms: u64,
}

/// What [`Attached::check`] counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// Regions that can be mapped.
    pub active: u32,
    /// Regions that are being created.
    pub creating: u32,
    /// Regions that are being destroyed or freed.
    pub destroying: u32,
    /// Bytes in extents.
    pub used: u64,
    /// Bytes of the largest free extent.
    pub largest_free: u64,
}

impl<P: Platform> View<P> {
    /// The region in an entry, if there is one.
    ///
    /// # Errors
    /// [`Damage`] if the entry makes no sense.
    pub fn region_record(&self, region: RegionId) -> Result<Option<RegionRecord>, Damage> {
        /// More changes in a row than honest peers make during one look.
        const ATTEMPTS: u32 = 64;
        for _ in 0..ATTEMPTS {
            let before = self.region_state(region)?;
            if before.phase == RegionPhase::Free {
                return Ok(None);
            }
            let record = self.read_record(region, before);
            core::sync::atomic::fence(Ordering::Acquire);
            if self.region_state(region)? == before {
                // Counted afterwards: with many peers, counting takes longer than some regions exist.
                let mappings = self.mappings(region);
                return record.map(|record| Some(RegionRecord { mappings, ..record }));
            }
        }
        Err(Damage::new("the state of a region", region.get().into()))
    }

    fn read_record(&self, region: RegionId, state: RegionState) -> Result<RegionRecord, Damage> {
        let entry = self.entry(region)?;
        let mut name = [0; Name::WORDS];
        for (to, from) in name.iter_mut().zip(entry.iter().skip(region_word::NAME)) {
            *to = from.load(Ordering::Relaxed);
        }
        let name_len = entry[region_word::NAME_LEN].load(Ordering::Relaxed);
        let since = entry[region_word::HELD_SINCE_MS].load(Ordering::Relaxed);
        Ok(RegionRecord {
            handle: RegionHandle { region, generation: state.generation },
            phase: state.phase,
            lazy: state.flags.contains(RegionFlags::LAZY),
            name: Name::from_words(&name, name_len)
                .map_err(|_| Damage::new("the name of a region", name_len))?,
            extent: self.extent(entry)?,
            size: entry[region_word::SIZE].load(Ordering::Relaxed),
            mappings: 0,
            // SeqCst: if the bias is revoked, whether its thread is inside is read after this.
            lock: LockWord::from_word(entry[region_word::LOCK].load(Ordering::SeqCst)),
            held_since_ms: (since != 0).then_some(since),
            created_ms: entry[region_word::CREATED_MS].load(Ordering::Relaxed),
        })
    }

    /// The living thread that is creating, destroying or freeing the region of a name, if there is one.
    #[must_use]
    pub fn at_work(&self, name: &Name) -> Option<Owner> {
        let (region, state) = self.find(name).ok()??;
        let owner = self.actor(region).ok()?.owner()?;
        (state.phase != RegionPhase::Active && self.is_current(owner)).then_some(owner)
    }

    /// The record of the region of a name, in any phase.
    ///
    /// # Errors
    /// [`DirectoryError::NotFound`].
    pub fn stat(&self, name: &Name) -> Result<RegionRecord, DirectoryError> {
        let (region, _) = self.find(name)?.ok_or(DirectoryError::NotFound)?;
        self.region_record(region)?
            .filter(|record| record.name == *name)
            .ok_or(DirectoryError::NotFound)
    }
}

impl<P: Platform> Attached<P> {
    /// Checks, holding the directory mutex, all invariants of the tables: every entry that is not
    /// free is in its chain and in the order of extents exactly once, nothing else is there, no two extents
    /// share a byte, and nothing is half changed.
    ///
    /// # Errors
    /// [`DirectoryError::Damaged`] names what does not hold.
    pub fn check(&self, me: &Thread<'_>, patience: Patience) -> Result<Census, DirectoryError> {
        let view = self.view();
        let directory = view.directory(me, patience.begin(view))?;
        let intent = view.header_word(header_word::INTENT)?.load(Ordering::Relaxed);
        if intent != 0 {
            return Err(Damage::new("the intent record", intent).into());
        }
        let mut census = Census::default();
        let mut extents = 0_u32;
        for region in (0..view.regions_used()?).map(RegionId::new) {
            let Some(record) = view.region_record(region)? else { continue };
            match record.phase {
                RegionPhase::Active => census.active += 1,
                RegionPhase::Creating => census.creating += 1,
                _ => census.destroying += 1,
            }
            extents += u32::from(!record.extent.is_empty());
            if directory.find(&record.name)?.map(|(found, _)| found) != Some(region) {
                return Err(Damage::new("a name chain", region.link()).into());
            }
        }
        let mut after = 0;
        for _ in 0..=view.geometry().regions() {
            let (gap, next) = view.gap_after(after)?;
            census.largest_free = census.largest_free.max(gap.len());
            let Some(region) = view.geometry().link(next, "the order of extents")? else { break };
            let entry = view.entry(region)?;
            let previous = entry[region_word::PREVIOUS_EXTENT].load(Ordering::Relaxed);
            if view.region_state(region)?.phase == RegionPhase::Free || previous != after {
                return Err(Damage::new("the order of extents", next).into());
            }
            census.used += view.extent(entry)?.len();
            extents = extents.wrapping_sub(1);
            after = next;
        }
        if extents != 0 {
            return Err(Damage::new("the number of extents", extents.into()).into());
        }
        Ok(census)
    }
}
