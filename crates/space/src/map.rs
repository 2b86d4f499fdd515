//! Mapping and unmapping a region: without the directory mutex.
//!
//! A mapper counts itself in its share word and then looks at the state again; a destroyer changes the
//! state and then looks at the share words. Both with `SeqCst` (Dekker's pattern), so either the
//! destroyer sees the mapping, or the mapper sees that the region is going, and takes its count back.

use core::sync::atomic::{AtomicU64, Ordering};

use commonhold_layout::{
    Damage, Extent, Name, Offset, PeerRef, RegionFlags, RegionId, RegionPhase, RegionState,
    ShareError, ShareWord, peer_word, region_word,
};
use commonhold_sync::{Event, Thread, raise_used};
use commonhold_window::Point;

use crate::{Attached, DirectoryError, Patience, Platform, RegionHandle};

/// A region that this peer has mapped, and must unmap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapped {
    /// Which region.
    pub handle: RegionHandle,
    /// Its whole extent; the mapping sees the first `size` bytes.
    pub extent: Extent,
    /// Bytes that the mapping sees.
    pub size: u64,
    /// Whether its memory is committed at first touch. The memory of any other region should be there, but the size
    /// is a claim of the window: [`BackingMemory::back`](crate::BackingMemory::back) verifies it.
    pub lazy: bool,
    /// Where the words of its lock are.
    pub lock_at: Offset,
}

impl<P: Platform> Attached<P> {
    /// Maps the region of a name.
    ///
    /// # Errors
    /// [`DirectoryError::NotFound`] if none is active.
    pub fn map(
        &self,
        me: &Thread<'_>,
        name: &Name,
        patience: Patience,
    ) -> Result<Mapped, DirectoryError> {
        self.touch_share(name);
        if let Some(mapped) = self.try_map(me, name, patience)? {
            return Ok(mapped);
        }
        let budget = patience.begin(self.view());
        while !budget.is_spent(self.view()) {
            if let Some(mapped) = self.try_map(me, name, patience)? {
                return Ok(mapped);
            }
        }
        Err(DirectoryError::Unsettled)
    }

    /// `None`: this lost a race against a destroy. That may have been undone, or a new region may have the name.
    #[inline]
    fn try_map(
        &self,
        me: &Thread<'_>,
        name: &Name,
        patience: Patience,
    ) -> Result<Option<Mapped>, DirectoryError> {
        let (region, state) = self.view().find(name)?.ok_or(DirectoryError::NotFound)?;
        if state.phase != RegionPhase::Active && !self.rescue(me, region, state, patience)? {
            return Err(DirectoryError::NotFound);
        }
        match self.map_entry(me, region, state) {
            // There may be room after the dead are reaped.
            Err(error) if error.is_full() && self.finds_room(me, patience.begin(self.view())) => {
                self.map_entry(me, region, state)
            }
            result => result,
        }
    }

    /// Makes the processor fetch the share word, which is needed last, while it still fetches the entry: with many
    /// regions, neither is in its caches.
    #[inline]
    fn touch_share(&self, name: &Name) {
        let Ok(bucket) = self.view().bucket(name.hash().0) else { return };
        let first = self.view().geometry().link(bucket.load(Ordering::Relaxed), "a name chain");
        if let Ok(Some(region)) = first
            && let Some(share) = self.view().share(self.peer(), region)
        {
            core::hint::black_box(share.load(Ordering::Relaxed));
        }
    }

    /// Maps one particular region, if it is still active.
    ///
    /// # Errors
    /// [`DirectoryError::NotFound`] if it is not, even if another region has its name now.
    pub fn map_handle(
        &self,
        me: &Thread<'_>,
        handle: RegionHandle,
    ) -> Result<Mapped, DirectoryError> {
        let state = self.view().region_state(handle.region)?;
        if state.generation != handle.generation || state.phase != RegionPhase::Active {
            return Err(DirectoryError::NotFound);
        }
        self.map_entry(me, handle.region, state)?.ok_or(DirectoryError::NotFound)
    }

    /// Makes a region active again if its destroyer died. True if its state has changed.
    #[cold]
    fn rescue(
        &self,
        me: &Thread<'_>,
        region: RegionId,
        state: RegionState,
        patience: Patience,
    ) -> Result<bool, DirectoryError> {
        if state.phase != RegionPhase::Destroying || state.flags.contains(RegionFlags::DEFERRED) {
            return Ok(false);
        }
        let settled = self.settle_region(me, region, patience.begin(self.view()))?;
        Ok(settled || self.view().region_state(region)? != state)
    }

    fn map_entry(
        &self,
        me: &Thread<'_>,
        region: RegionId,
        state: RegionState,
    ) -> Result<Option<Mapped>, DirectoryError> {
        let share = self.own_share(region)?;
        change(share, self.generation(), ShareWord::map)?;
        Point::MapCounted.reached();
        let state = state
            .in_phase(RegionPhase::Active)
            .with_flags(state.flags.without(RegionFlags::DEFERRED));
        let mapped = if self.view().region_state(region)? == state {
            self.describe(region, state)
        } else {
            self.uncount(me, region)?;
            return Ok(None);
        };
        if mapped.is_err() {
            self.uncount(me, region)?;
        }
        Point::MapDone.reached();
        mapped.map(Some)
    }

    fn describe(&self, region: RegionId, state: RegionState) -> Result<Mapped, DirectoryError> {
        let entry = self.view().entry(region)?;
        let extent = self.view().extent(entry)?;
        // SeqCst: pairs with the store in `try_shrink`, after which the shrinker counts mappings (Dekker).
        let size = entry[region_word::SIZE].load(Ordering::SeqCst);
        if size > extent.len() {
            return Err(Damage::new("the size of a region", size).into());
        }
        let handle = RegionHandle { region, generation: state.generation };
        let lock_at = self.view().entry_word(region, region_word::LOCK)?;
        let lazy = state.flags.contains(RegionFlags::LAZY);
        Ok(Mapped { handle, extent, size, lazy, lock_at })
    }

    /// A mapped region as it is now: its size may have changed.
    ///
    /// # Errors
    /// [`DirectoryError::NotMapped`] if the region of the handle no longer exists.
    pub fn look_again(&self, handle: RegionHandle) -> Result<Mapped, DirectoryError> {
        let state = self.view().region_state(handle.region)?;
        if state.generation != handle.generation {
            return Err(DirectoryError::NotMapped);
        }
        self.describe(handle.region, state)
    }

    /// Releases a read lock of a region that is counted in this peer's share, and whose thread has ended.
    ///
    /// # Errors
    /// [`DirectoryError::Fenced`] if this peer was declared dead.
    pub fn uncount_reader(&self, handle: RegionHandle, of: PeerRef) -> Result<(), DirectoryError> {
        let mapped = self.look_again(handle)?;
        let words = self.view.lock_words(&mapped)?;
        Ok(self.view.lock_of(&mapped, words).uncount_ended(of, &self.view)?)
    }

    /// Unmaps a region once. If this was the last mapping, wakes a waiting destroyer, or frees a deferred region
    /// itself.
    ///
    /// # Errors
    /// [`DirectoryError::NotMapped`] if this peer does not map it.
    pub fn unmap(&self, me: &Thread<'_>, handle: RegionHandle) -> Result<(), DirectoryError> {
        self.uncount(me, handle.region)
    }

    /// As [`unmap`](Self::unmap), for a thread without a slot. Such a thread cannot announce which sleepers it wakes,
    /// so it wakes none. The effect is as if this peer had died right after it gave up the mapping: a waiting
    /// destroyer notices at the end of its slice, and a deferred region is freed when a peer needs its name or its
    /// bytes.
    ///
    /// # Errors
    /// As for [`unmap`](Self::unmap).
    pub fn unmap_in_silence(&self, handle: RegionHandle) -> Result<(), DirectoryError> {
        change(self.own_share(handle.region)?, self.generation(), ShareWord::unmap)?;
        Point::UnmapCounted.reached();
        Ok(())
    }

    fn uncount(&self, me: &Thread<'_>, region: RegionId) -> Result<(), DirectoryError> {
        change(self.own_share(region)?, self.generation(), ShareWord::unmap)?;
        Point::UnmapCounted.reached();
        // Even if another region has the entry by now: our count, which `map_entry` may have made by mistake, may have
        // delayed its destruction.
        let state = self.view().region_state(region)?;
        if state.phase == RegionPhase::Destroying {
            if state.flags.contains(RegionFlags::DEFERRED) {
                self.finish_deferred(me, region)?;
            } else {
                self.unmapped(region)?.broadcast(me, self.view());
            }
        }
        Point::UnmapWoken.reached();
        Ok(())
    }

    pub(crate) fn unmapped(&self, region: RegionId) -> Result<Event<'_>, Damage> {
        let entry = self.view().entry(region)?;
        let at = self.view().entry_word(region, region_word::UNMAPPED)?;
        Ok(Event::new(&entry[region_word::UNMAPPED], at))
    }

    /// This peer's share word in a region. The first use commits its memory.
    pub(crate) fn own_share(&self, region: RegionId) -> Result<&AtomicU64, DirectoryError> {
        match self.view().share(self.peer(), region) {
            Some(share) => Ok(share),
            None => self.extend_row(region),
        }
    }

    #[cold]
    fn extend_row(&self, region: RegionId) -> Result<&AtomicU64, DirectoryError> {
        const AT_ONCE: u64 = 512;
        let damage = Damage::new("a region", region.get().into());
        let geometry = self.view().geometry();
        let wanted = (u64::from(region.get()) / AT_ONCE + 1) * AT_ONCE;
        let wanted = wanted.min(geometry.regions().into());
        let row = geometry.share_row(self.peer(), wanted).ok_or(damage)?;
        self.view().platform().commit(row)?;
        Point::MapRowCommitted.reached();
        // After the commit: there is memory behind all words below the number.
        raise_used(&self.view().peer(self.peer())?[peer_word::SHARES_USED], wanted);
        self.view().share(self.peer(), region).ok_or(DirectoryError::Damaged(damage))
    }

    /// Records when the holder of a region's lock took it; 0 erases that.
    pub fn stamp(&self, region: RegionId, unix_ms: u64) {
        if let Ok(entry) = self.view().entry(region) {
            entry[region_word::HELD_SINCE_MS].store(unix_ms, Ordering::Relaxed);
        }
    }
}

fn change(
    word: &AtomicU64,
    generation: u32,
    change: impl Fn(ShareWord) -> Result<ShareWord, ShareError>,
) -> Result<(), ShareError> {
    let mut seen = word.load(Ordering::Relaxed);
    loop {
        let changed = change(ShareWord::from_word(seen).of(generation)?)?.word();
        // SeqCst: see the head of this file. As Release it pairs with the destroyer's loads of the
        // counts: all accesses through the mapping come before its memory is released.
        match word.compare_exchange_weak(seen, changed, Ordering::SeqCst, Ordering::Relaxed) {
            Ok(_) => return Ok(()),
            Err(now) => seen = now,
        }
    }
}
