//! Creating a region.
//!
//! Under the directory mutex an entry and an extent are chosen, written and linked, in the state `Creating` and with
//! the creator as actor. All memory, also that of new entries, is committed without the mutex, so that a large region
//! does not delay other peers. Then the creator makes it `Active`. If the creator dies before that, the next peer
//! that comes across the entry undoes it; no peer ever maps half a region.

use core::sync::atomic::Ordering;

use commonhold_layout::{
    Damage, Extent, Name, RegionFlags, RegionId, RegionPhase, RegionState, align_up, header_word,
    region_word,
};
use commonhold_sync::Thread;
use commonhold_window::Point;

use crate::{
    Attached, Demand, DirectoryError, Patience, Platform, Reaped,
    budget::Budget,
    directory::{Directory, FreeExtent},
};

/// Extents of at least this many bytes are aligned to it if there is room, so that huge pages can
/// back them.
const HUGE: u64 = 2 << 20;

/// How large a region is to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CreateOptions {
    /// Bytes that a mapping sees. 0 makes a named lock.
    pub size: u64,
    /// Bytes that it can grow to; at least the size.
    pub reserve: u64,
    /// Commit memory at first touch, not now. If there is none then, the touch may kill the process.
    pub lazy: bool,
    /// Whether to ask for more memory than there seems to be.
    pub demand: Demand,
}

/// Names one region for ever, by its entry and generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RegionHandle {
    /// Its entry.
    pub region: RegionId,
    /// Which of the entry's regions it is.
    pub generation: u32,
}

impl<P: Platform> Attached<P> {
    /// Creates a region.
    ///
    /// # Errors
    /// [`DirectoryError`]; nothing has been created then.
    pub fn create(
        &self,
        me: &Thread<'_>,
        name: &Name,
        options: &CreateOptions,
        patience: Patience,
    ) -> Result<RegionHandle, DirectoryError> {
        let budget = patience.begin(self.view());
        self.sweep(me);
        match self.create_once(me, name, options, budget) {
            // There may be room after the dead are reaped, or after other peers have freed what they are about to
            // free.
            Err(error) if error.is_full() && self.finds_room(me, budget) => {
                self.create_once(me, name, options, budget.renewed(self.view()))
            }
            result => result,
        }
    }

    /// Tries to make room: reaps the dead, waits for regions that are being freed, and reclaims memory of free
    /// extents. Whether any of that helped.
    pub(crate) fn finds_room(&self, me: &Thread<'_>, budget: Budget) -> bool {
        let budget = budget.renewed(self.view());
        self.reap_within(me, budget, |_| {}).is_ok_and(Reaped::freed_anything)
            || self.await_all_freed(me, budget)
            || self.reclaim(me, budget).is_ok_and(|bytes| bytes > 0)
    }

    fn create_once(
        &self,
        me: &Thread<'_>,
        name: &Name,
        options: &CreateOptions,
        budget: Budget,
    ) -> Result<RegionHandle, DirectoryError> {
        let asked = options.size.max(options.reserve);
        if options.reserve != 0 && options.reserve < options.size {
            let reserve = options.reserve;
            return Err(DirectoryError::BeyondReserve { asked: options.size, reserve });
        }
        // A size that the window could never hold is not looked for: it fails for want of space, not of memory.
        let mut looked = options.lazy || options.size > self.view().geometry().data().len();
        let (region, state, extent) = loop {
            if let Some((region, seen)) = self.view().find(name)?
                && !self.settle_region(me, region, budget)?
                && !self.await_freed(me, region, seen, budget)?
            {
                return Err(DirectoryError::Exists);
            }
            if !looked {
                // Before anything is committed or written: a part of the memory would be of no use.
                self.view().room_for(options.size, options.demand)?;
                looked = true;
            }
            let used = {
                let directory = self.view().directory(me, budget)?;
                if let Some((region, state)) = directory.find(name)? {
                    if self.view().is_ending(region, state)? && !budget.is_spent(self.view()) {
                        continue;
                    }
                    return Err(DirectoryError::Exists);
                }
                match directory.free_entry()? {
                    Ok(region) => break directory.take_entry(region, name, asked, options)?,
                    Err(used) => used,
                }
            };
            // Other peers may take all the new entries first; then this goes round again. Each round, some peer gets
            // one.
            self.add_entries(used)?;
        };
        Point::CreateLinked.reached();
        if !options.lazy {
            self.take_memory(me, region, state, extent, options.size, budget)?;
        }
        Point::CreateCommitted.reached();
        self.activate(region, state)
    }

    /// Settles what the dead were doing with the region of a name, if there is one.
    pub(crate) fn settle_name(
        &self,
        me: &Thread<'_>,
        name: &Name,
        budget: Budget,
    ) -> Result<(), DirectoryError> {
        if let Some((region, _)) = self.view().find(name)? {
            self.settle_region(me, region, budget)?;
        }
        Ok(())
    }

    /// Commits memory for the next entries after the first `used`, which have memory.
    fn add_entries(&self, used: u32) -> Result<(), DirectoryError> {
        const AT_ONCE: u32 = 64;
        let view = self.view();
        let end = used.saturating_add(AT_ONCE).min(view.geometry().regions());
        let entries = view.geometry().region_entries(used.into(), end.into());
        view.platform()
            .commit(entries.ok_or(Damage::new("the number of used regions", used.into()))?)?;
        Point::CreateEntries.reached();
        // Release: pairs with the load in `regions_used`; there is memory behind the entries by then. This fails if
        // another peer has raised the number meanwhile.
        let _ = view.header_word(header_word::REGIONS_USED)?.compare_exchange(
            used.into(),
            end.into(),
            Ordering::Release,
            Ordering::Relaxed,
        );
        Ok(())
    }

    fn take_memory(
        &self,
        me: &Thread<'_>,
        region: RegionId,
        state: RegionState,
        extent: Extent,
        size: u64,
        budget: Budget,
    ) -> Result<(), DirectoryError> {
        let page = self.view().geometry().page();
        let Some(whole) = align_up(size, page).and_then(|size| extent.part(0, size)) else {
            return Err(Damage::new("the size of a region", size).into());
        };
        if whole.is_empty() {
            return Ok(());
        }
        let Err(error) = self.view().platform().commit(whole) else { return Ok(()) };
        // The caller is told the first error, not that of undoing.
        if let Some(freeing) = self.free_as_actor(region, state)? {
            let _ = self.free(me, region, freeing, budget);
        }
        Err(error.into())
    }

    fn activate(
        &self,
        region: RegionId,
        state: RegionState,
    ) -> Result<RegionHandle, DirectoryError> {
        let active = state.in_phase(RegionPhase::Active);
        // Fails only if this peer was declared dead and the entry undone. SeqCst: as Release it pairs with the load
        // of the state in `map`; the mapper finds memory and an extent.
        self.view().entry(region)?[region_word::STATE]
            .compare_exchange(state.word(), active.word(), Ordering::SeqCst, Ordering::Relaxed)
            .map_err(|_| DirectoryError::Fenced)?;
        Point::CreateActive.reached();
        Ok(RegionHandle { region, generation: state.generation })
    }
}

impl<P: Platform> Directory<'_, P> {
    /// Chooses an extent, and writes and links the entry.
    fn take_entry(
        &self,
        region: RegionId,
        name: &Name,
        asked: u64,
        options: &CreateOptions,
    ) -> Result<(RegionId, RegionState, Extent), DirectoryError> {
        // A size that cannot be rounded up fits nowhere.
        let reserve = align_up(asked, self.view.geometry().page()).unwrap_or(u64::MAX);
        let place = self
            .choose_place(reserve)?
            .map_err(|largest| DirectoryError::NoSpace { asked, largest })?;
        Point::CreateChosen.reached();
        let state = self.write_entry(region, name, &place, options)?;
        Ok((region, state, place.extent))
    }

    /// A free entry: the first from the last freed one on; else `Err(used)`, if entries after the first `used` could
    /// get memory; else any.
    pub(crate) fn free_entry(&self) -> Result<Result<RegionId, u32>, DirectoryError> {
        let view = self.view;
        let used = view.regions_used()?;
        let hint_word = view.header_word(header_word::FREE_HINT)?;
        let hint = hint_word.load(Ordering::Relaxed);
        let hint = u32::try_from(hint).unwrap_or(0).min(used);
        let is_free = |region: &RegionId| {
            view.region_state(*region)
                .is_ok_and(|state| state.phase == RegionPhase::Free && state.generation < u32::MAX)
        };
        let regions = view.geometry().regions();
        let found = match (hint..used).map(RegionId::new).find(is_free) {
            None if used < regions => return Ok(Err(used)),
            None => (0..hint).map(RegionId::new).find(is_free),
            found => found,
        };
        let region = found.ok_or(DirectoryError::NoEntry { regions })?;
        hint_word.store(u64::from(region.get()) + 1, Ordering::Relaxed);
        Ok(Ok(region))
    }

    /// A free extent of `reserve` bytes; `Err` is the length of the largest free extent.
    fn choose_place(&self, reserve: u64) -> Result<Result<FreeExtent, u64>, Damage> {
        let page = self.view.geometry().page();
        if reserve == 0 {
            return Ok(Ok(FreeExtent { extent: Extent::EMPTY, after: 0 }));
        }
        if reserve >= HUGE
            && page < HUGE
            && let Ok(place) = self.find_place(reserve, HUGE)?
        {
            return Ok(Ok(place));
        }
        self.find_place(reserve, page)
    }

    pub(crate) fn write_entry(
        &self,
        region: RegionId,
        name: &Name,
        place: &FreeExtent,
        options: &CreateOptions,
    ) -> Result<RegionState, DirectoryError> {
        let entry = self.view.entry(region)?;
        let free = self.view.region_state(region)?;
        let store = |index: usize, value: u64| {
            if let Some(word) = entry.get(index) {
                word.store(value, Ordering::Relaxed);
            }
        };
        store(region_word::OFFSET, place.extent.start().get());
        store(region_word::SIZE, options.size);
        store(region_word::RESERVE, place.extent.len());
        store(region_word::HASH, name.hash().0);
        store(region_word::NAME_LEN, name.len());
        for (index, word) in name.words().iter().enumerate() {
            store(region_word::NAME + index, *word);
        }
        store(region_word::ACTOR, self.me.owner().word().word());
        for index in [
            region_word::LOCK,
            region_word::READERS,
            region_word::DRAINED,
            region_word::UNMAPPED,
            region_word::HELD_SINCE_MS,
        ] {
            store(index, 0);
        }
        store(region_word::CREATED_MS, self.view.platform().unix_ms());
        Point::CreateWritten.reached();
        self.begin_links(region)?;
        let flags = if options.lazy { RegionFlags::LAZY } else { RegionFlags::NONE };
        let generation = free.generation.saturating_add(1);
        let state = RegionState { generation, phase: RegionPhase::Creating, flags };
        self.set_state(region, state)?;
        Point::CreateState.reached();
        self.chain(region)?;
        Point::LinkHalf.reached();
        if !place.extent.is_empty() {
            self.link_extent(region, place.after)?;
        }
        self.end_links()?;
        Ok(state)
    }
}
