//! Destroying a region, and settling what the dead were doing with one.
//!
//! `Active -> Destroying` refuses new mappings. When the last one has gone, `Destroying -> Freeing`
//! (under the directory mutex, so that only one party does it) gives the right and the duty to give
//! the memory back, which happens without the mutex; then the entry is unlinked and `Free`.
//! Whoever holds a duty is written as the entry's actor before the state says so.

use core::sync::atomic::Ordering;

use commonhold_layout::{
    Name, RegionFlags, RegionId, RegionPhase, RegionState, header_word, region_word,
};
use commonhold_sync::{Liveness, LockError, Park, Thread, Verdict};
use commonhold_window::Point;

use crate::{DirectoryError, Platform, RegionHandle, Space, directory::Directory};

/// How to destroy a region that others still map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destroy {
    /// Wait until nobody does.
    Wait,
    /// Wait until then, on the clock of [`Park::now`].
    Until(u64),
    /// Return at once; whoever unmaps it last frees it.
    Deferred,
}

impl<P: Platform> Space<P> {
    /// Destroys the region of a name, and says which one it was.
    ///
    /// # Errors
    /// [`DirectoryError::NotFound`], [`DirectoryError::Mapped`] if the caller maps it,
    /// [`DirectoryError::TimedOut`] after which it is active again.
    pub fn destroy(
        &self,
        me: &Thread<'_>,
        name: &Name,
        how: Destroy,
    ) -> Result<RegionHandle, DirectoryError> {
        let directory = self.view().directory(me)?;
        let (region, state) = self.find_active(&directory, name)?;
        let handle = RegionHandle { region, generation: state.generation };
        if self.view().mappers(region).any(|(mapper, _)| mapper.peer == self.peer()) {
            return Err(DirectoryError::Mapped);
        }
        let state = directory.begin_destroy(region, state, how)?;
        if self.view().mappings(region) == 0 {
            let state = directory.begin_free(region, state)?;
            drop(directory);
            self.free(me, region, state)?;
        } else {
            drop(directory);
            if how != Destroy::Deferred {
                self.await_unmapped(me, region, state, how)?;
            }
        }
        Ok(handle)
    }

    /// The active region of a name; what the dead were doing with it is settled first.
    pub(crate) fn find_active(
        &self,
        directory: &Directory<'_, P>,
        name: &Name,
    ) -> Result<(RegionId, RegionState), DirectoryError> {
        let (region, _) = directory.find(name)?.ok_or(DirectoryError::NotFound)?;
        self.settle_entry(directory, region)?;
        let state = self.view().region_state(region)?;
        if state.phase != RegionPhase::Active {
            return Err(DirectoryError::NotFound);
        }
        Ok((region, state))
    }

    fn await_unmapped(
        &self,
        me: &Thread<'_>,
        region: RegionId,
        state: RegionState,
        how: Destroy,
    ) -> Result<(), DirectoryError> {
        let event = self.unmapped(region)?;
        let deadline = if let Destroy::Until(deadline) = how { deadline } else { u64::MAX };
        loop {
            let number = event.sequence();
            for (mapper, _) in self.view().mappers(region) {
                // A dead one is fenced by this, and counts no longer.
                let _: Verdict = self.view().verdict_of(mapper);
            }
            let gone = self.view().mappings(region) == 0;
            if gone || self.view().now() >= deadline {
                let directory = self.view().directory(me)?;
                if self.view().region_state(region)? != state {
                    return Err(DirectoryError::Fenced);
                }
                if self.view().mappings(region) == 0 {
                    let state = directory.begin_free(region, state)?;
                    drop(directory);
                    return self.free(me, region, state);
                }
                if !gone {
                    Point::DestroyTimedOut.reached();
                    directory.set_state(region, state.in_phase(RegionPhase::Active))?;
                    Point::DestroyUndone.reached();
                    return Err(DirectoryError::TimedOut);
                }
            }
            let slice = self.view().now().saturating_add(commonhold_sync::SLICE_NS);
            match event.wait(me, self.view(), number, Some(deadline.min(slice))) {
                Ok(_) | Err(LockError::TimedOut) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Frees a deferred region if its last mapping has gone.
    pub(crate) fn finish_deferred(
        &self,
        me: &Thread<'_>,
        region: RegionId,
    ) -> Result<(), DirectoryError> {
        if self.view().mappings(region) > 0 {
            return Ok(());
        }
        let directory = self.view().directory(me)?;
        let state = self.view().region_state(region)?;
        let ours = state.phase == RegionPhase::Destroying
            && state.flags.contains(RegionFlags::DEFERRED)
            && self.view().mappings(region) == 0;
        if !ours {
            return Ok(());
        }
        let state = directory.begin_free(region, state)?;
        drop(directory);
        self.free(me, region, state)
    }

    /// Does the duty of an actor of `Freeing`.
    fn free(
        &self,
        me: &Thread<'_>,
        region: RegionId,
        state: RegionState,
    ) -> Result<(), DirectoryError> {
        let extent = self.view().extent(self.view().entry(region)?)?;
        let released = self.view().release(extent);
        Point::DestroyReleased.reached();
        let directory = self.view().directory(me)?;
        if let Err(error) = released {
            // Nobody's duty from now on: whoever comes across the entry tries again.
            self.view().entry(region)?[region_word::ACTOR].store(0, Ordering::Relaxed);
            return Err(error);
        }
        if self.view().region_state(region)? != state {
            return Err(DirectoryError::Fenced);
        }
        directory.forget(region, state)?;
        Ok(())
    }

    /// Settles what a dead actor was doing with one entry. True if it was anything.
    pub(crate) fn settle_entry(
        &self,
        directory: &Directory<'_, P>,
        region: RegionId,
    ) -> Result<bool, DirectoryError> {
        let view = self.view();
        let state = view.region_state(region)?;
        if matches!(state.phase, RegionPhase::Free | RegionPhase::Active) {
            return Ok(false);
        }
        if state.phase == RegionPhase::Destroying && state.flags.contains(RegionFlags::DEFERRED) {
            for (mapper, _) in view.mappers(region) {
                let _: Verdict = view.verdict_of(mapper);
            }
            if view.mappings(region) > 0 {
                return Ok(false);
            }
            directory.free_now(region, state)?;
            return Ok(true);
        }
        let dead =
            directory.actor(region)?.is_none_or(|actor| view.verdict(actor) == Verdict::Dead);
        if !dead {
            return Ok(false);
        }
        if state.phase == RegionPhase::Destroying {
            directory.set_state(region, state.in_phase(RegionPhase::Active))?;
            Point::DestroyUndone.reached();
        } else {
            directory.free_now(region, state)?;
        }
        Ok(true)
    }
}

impl<P: Platform> Directory<'_, P> {
    fn set_actor(&self, region: RegionId) -> Result<(), DirectoryError> {
        self.view.entry(region)?[region_word::ACTOR]
            .store(self.me.owner().word().word(), Ordering::Relaxed);
        Ok(())
    }

    fn begin_destroy(
        &self,
        region: RegionId,
        state: RegionState,
        how: Destroy,
    ) -> Result<RegionState, DirectoryError> {
        let mut flags = state.flags;
        if how == Destroy::Deferred {
            self.view.header_word(header_word::DEFERRED_HINT)?.store(1, Ordering::SeqCst);
            Point::DestroyHinted.reached();
            flags = flags.with(RegionFlags::DEFERRED);
        }
        self.set_actor(region)?;
        Point::DestroyActor.reached();
        let state = state.in_phase(RegionPhase::Destroying).with_flags(flags);
        self.set_state(region, state)?;
        Point::DestroyState.reached();
        Ok(state)
    }

    /// Takes the duty to free a region that nobody maps.
    fn begin_free(
        &self,
        region: RegionId,
        state: RegionState,
    ) -> Result<RegionState, DirectoryError> {
        Point::DestroyDrained.reached();
        self.set_actor(region)?;
        let state = state.in_phase(RegionPhase::Freeing);
        self.set_state(region, state)?;
        Point::DestroyFreeing.reached();
        Ok(state)
    }

    /// Frees a region without leaving the directory: for what the dead left, and for a creation that
    /// failed.
    pub(crate) fn free_now(
        &self,
        region: RegionId,
        state: RegionState,
    ) -> Result<(), DirectoryError> {
        let state = self.begin_free(region, state)?;
        let extent = self.view.extent(self.view.entry(region)?)?;
        self.view.release(extent)?;
        Point::DestroyReleased.reached();
        self.forget(region, state)
    }

    /// Unlinks an entry whose memory has been given back, and frees it.
    fn forget(&self, region: RegionId, state: RegionState) -> Result<(), DirectoryError> {
        self.begin_links(region)?;
        self.unchain(region)?;
        Point::LinkHalf.reached();
        if !self.view.extent(self.view.entry(region)?)?.is_empty() {
            self.unlink_extent(region)?;
        }
        Point::DestroyUnlinked.reached();
        let free = state.in_phase(RegionPhase::Free).with_flags(RegionFlags::NONE);
        self.set_state(region, free)?;
        Point::DestroyFree.reached();
        self.end_links()?;
        self.view
            .header_word(header_word::FREE_HINT)?
            .store(region.get().into(), Ordering::Relaxed);
        Ok(())
    }
}
