//! Creating a region.
//!
//! Under the directory mutex an entry and an extent are chosen, written and linked, in the state
//! `Creating` and with the creator as actor. The memory is taken without the mutex, so that a large
//! region does not hold others up. Then the creator alone makes it `Active`. If it dies before, the
//! entry is undone by whoever comes across it; nobody ever maps half a region.

use core::sync::atomic::Ordering;

use commonhold_layout::{
    Damage, Extent, Name, Owner, RegionFlags, RegionId, RegionPhase, RegionState, align_up,
    header_word, region_word,
};
use commonhold_sync::Thread;
use commonhold_window::Point;

use crate::{
    DirectoryError, Platform, Space,
    directory::{Directory, Place},
};

/// Extents of at least this many bytes are aligned to it where there is room, so that huge pages can
/// back them.
const HUGE: u64 = 2 << 20;

/// How large a region is to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CreateOptions {
    /// Bytes that a mapping sees. 0 makes a named lock.
    pub size: u64,
    /// Bytes that it can grow to; at least the size.
    pub reserve: u64,
    /// Take memory at first touch, not now. Touching it may then kill the toucher, if there is none.
    pub lazy: bool,
}

/// A region, named for ever: entry and generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RegionHandle {
    /// Its entry.
    pub region: RegionId,
    /// Which of the entry's regions it is.
    pub generation: u32,
}

impl<P: Platform> Space<P> {
    /// Creates a region.
    ///
    /// # Errors
    /// [`DirectoryError`]; nothing has been created then.
    pub fn create(
        &self,
        me: &Thread<'_>,
        name: &Name,
        options: &CreateOptions,
    ) -> Result<RegionHandle, DirectoryError> {
        match self.create_once(me, name, options) {
            // What the dead left behind may be what is missing.
            Err(DirectoryError::NoSpace { .. } | DirectoryError::NoEntry { .. })
                if self.reap(me)?.freed_anything() =>
            {
                self.create_once(me, name, options)
            }
            result => result,
        }
    }

    fn create_once(
        &self,
        me: &Thread<'_>,
        name: &Name,
        options: &CreateOptions,
    ) -> Result<RegionHandle, DirectoryError> {
        let asked = options.size.max(options.reserve);
        if options.reserve != 0 && options.reserve < options.size {
            let reserve = options.reserve;
            return Err(DirectoryError::BeyondReserve { asked: options.size, reserve });
        }
        let (region, state, extent) = {
            let directory = self.view().directory(me)?;
            directory.refuse_taken(self, name)?;
            let page = self.view().geometry().page();
            // What cannot even be rounded up fits nowhere.
            let reserve = align_up(asked, page).unwrap_or(u64::MAX);
            let region = directory.free_entry()?;
            let place = directory
                .choose_place(reserve)?
                .map_err(|largest| DirectoryError::NoSpace { asked, largest })?;
            Point::CreateChosen.reached();
            let state = directory.write_entry(region, name, &place, options)?;
            (region, state, place.extent)
        };
        Point::CreateLinked.reached();
        if !options.lazy {
            self.take_memory(me, region, state, extent, options.size)?;
        }
        Point::CreateCommitted.reached();
        self.activate(region, state)
    }

    fn take_memory(
        &self,
        me: &Thread<'_>,
        region: RegionId,
        state: RegionState,
        extent: Extent,
        size: u64,
    ) -> Result<(), DirectoryError> {
        let page = self.view().geometry().page();
        let Some(whole) = align_up(size, page).and_then(|size| extent.part(0, size)) else {
            return Err(Damage::new("the size of a region", size).into());
        };
        if whole.is_empty() {
            return Ok(());
        }
        let Err(error) = self.view().platform().commit(whole) else { return Ok(()) };
        let directory = self.view().directory(me)?;
        if directory.view.region_state(region)? == state {
            directory.free_now(region, state)?;
        }
        Err(error.into())
    }

    fn activate(
        &self,
        region: RegionId,
        state: RegionState,
    ) -> Result<RegionHandle, DirectoryError> {
        let active = state.in_phase(RegionPhase::Active);
        // Fails only if this peer was declared dead and the entry undone. Release: whoever maps it
        // finds memory and an extent.
        self.view().entry(region)?[region_word::STATE]
            .compare_exchange(state.word(), active.word(), Ordering::SeqCst, Ordering::Relaxed)
            .map_err(|_| DirectoryError::Fenced)?;
        Point::CreateActive.reached();
        Ok(RegionHandle { region, generation: state.generation })
    }
}

impl<P: Platform> Directory<'_, P> {
    /// `Exists` if the name is taken; what the dead were doing with it is settled first.
    fn refuse_taken(&self, space: &Space<P>, name: &Name) -> Result<(), DirectoryError> {
        let Some((region, _)) = self.find(name)? else { return Ok(()) };
        space.settle_entry(self, region)?;
        if self.find(name)?.is_some() { Err(DirectoryError::Exists) } else { Ok(()) }
    }

    /// A free entry: near the last one freed, else a new one, else any.
    fn free_entry(&self) -> Result<RegionId, DirectoryError> {
        let view = self.view;
        let used = view.regions_used()?;
        let hint_word = view.header_word(header_word::FREE_HINT)?;
        let hint = hint_word.load(Ordering::Relaxed);
        let hint = u32::try_from(hint).unwrap_or(0).min(used);
        let is_free = |region: &RegionId| {
            view.region_state(*region)
                .is_ok_and(|state| state.phase == RegionPhase::Free && state.generation < u32::MAX)
        };
        let found = (hint..used).map(RegionId::new).find(is_free);
        let found = match found {
            Some(region) => Some(region),
            None => match self.new_entry(used)? {
                Some(region) => Some(region),
                None => (0..hint).map(RegionId::new).find(is_free),
            },
        };
        let regions = view.geometry().regions();
        let region = found.ok_or(DirectoryError::NoEntry { regions })?;
        hint_word.store(u64::from(region.get()) + 1, Ordering::Relaxed);
        Ok(region)
    }

    /// The first entry that was never used; its memory, and that of its neighbours, is taken now.
    fn new_entry(&self, used: u32) -> Result<Option<RegionId>, DirectoryError> {
        const AT_ONCE: u32 = 64;
        let view = self.view;
        if used >= view.geometry().regions() {
            return Ok(None);
        }
        let end = used.saturating_add(AT_ONCE).min(view.geometry().regions());
        let entries = view.geometry().region_entries(used.into(), end.into());
        view.platform()
            .commit(entries.ok_or(Damage::new("the number of used regions", used.into()))?)?;
        Point::CreateEntries.reached();
        // Release: whoever sees the number sees memory behind the entries.
        view.header_word(header_word::REGIONS_USED)?.store(end.into(), Ordering::Release);
        Ok(Some(RegionId::new(used)))
    }

    /// Room for `reserve` bytes; `Err` is the largest free extent.
    fn choose_place(&self, reserve: u64) -> Result<Result<Place, u64>, Damage> {
        let page = self.view.geometry().page();
        if reserve == 0 {
            return Ok(Ok(Place { extent: Extent::EMPTY, after: 0 }));
        }
        if reserve >= HUGE
            && page < HUGE
            && let Ok(place) = self.find_place(reserve, HUGE)?
        {
            return Ok(Ok(place));
        }
        self.find_place(reserve, page)
    }

    fn write_entry(
        &self,
        region: RegionId,
        name: &Name,
        place: &Place,
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

    /// Whoever is creating, destroying or freeing an entry.
    pub(crate) fn actor(&self, region: RegionId) -> Result<Option<Owner>, Damage> {
        let word = self.view.entry(region)?[region_word::ACTOR].load(Ordering::Relaxed);
        Ok(commonhold_layout::LockWord::from_word(word).owner())
    }
}
