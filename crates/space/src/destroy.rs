//! Destroying a region.
//!
//! An entry names its *actor*: the thread that is creating, destroying, freeing or resizing the region. Other threads
//! leave the entry to a living actor, and take over from a dead one.
//!
//! `Active -> Destroying` refuses new mappings. When the last mapping has gone, one thread makes the state `Freeing`:
//! the actor, or, if the region is deferred, any thread under the directory mutex. That thread has the right and the
//! duty to release the memory, without the mutex. Then the entry is unlinked, and `Free`. A thread that takes such a
//! duty first writes itself as the actor, and then changes the state. So a thread that reads the new state finds the
//! actor, and can tell whether it still lives.
//!
//! A deferred region has no actor while it is mapped, so a region becomes deferred by one compare-and-swap, without
//! the mutex. What dead actors left is settled in `settle.rs`.

use core::sync::atomic::Ordering;

use commonhold_layout::{
    Damage, LockFlags, LockWord, Name, Owner, RegionFlags, RegionId, RegionPhase, RegionState,
    header_word, region_word,
};
use commonhold_sync::{Liveness, LockError, Park, Thread, Verdict};
use commonhold_window::Point;

use crate::{
    Attached, DirectoryError, Patience, Platform, RegionHandle, View, budget::Budget,
    directory::Directory,
};

/// How to destroy a region that other peers still map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destroy {
    /// Wait until no peer maps it.
    Wait,
    /// Wait until this moment, on the clock of [`Park::now`].
    Until(u64),
    /// Return at once; the peer that unmaps it last frees it.
    Deferred,
}

impl<P: Platform> Attached<P> {
    /// Destroys the region of a name, and says which one it was. `patience` bounds the wait for peers that are
    /// changing the directory; `how` says how long to wait for mappers.
    ///
    /// # Errors
    /// [`DirectoryError::NotFound`], [`DirectoryError::Mapped`] if the caller maps it,
    /// [`DirectoryError::TimedOut`]; then the region is active again.
    pub fn destroy(
        &self,
        me: &Thread<'_>,
        name: &Name,
        how: Destroy,
        patience: Patience,
    ) -> Result<RegionHandle, DirectoryError> {
        let budget = patience.begin(self.view());
        self.sweep(me);
        match self.settle_name(me, name, budget) {
            Err(error) if !error.is_busy() => return Err(error),
            _ => {}
        }
        if how == Destroy::Deferred {
            return self.defer(me, name, budget);
        }
        // Without the mutex: a region that cannot be destroyed is an error at once.
        self.find_unmapped(name)?;
        let (region, state) = match self.begin_destroy(me, name, how, budget) {
            Err(error) if error.is_busy() => {
                return self.destroy_unused(name)?.ok_or(error);
            }
            result => result?,
        };
        self.await_unmapped(me, region, state, how, budget)?;
        Ok(RegionHandle { region, generation: state.generation })
    }

    /// The active region of a name, which this peer does not map.
    fn find_unmapped(&self, name: &Name) -> Result<(RegionId, RegionState), DirectoryError> {
        let (region, state) = self.view().find(name)?.ok_or(DirectoryError::NotFound)?;
        if state.phase != RegionPhase::Active {
            return Err(DirectoryError::NotFound);
        }
        if self.view().mappers(region).any(|(mapper, _)| mapper.peer == self.peer()) {
            return Err(DirectoryError::Mapped);
        }
        Ok((region, state))
    }

    /// Makes a region deferred, without the directory mutex, since no actor has to be written together with the
    /// state. The first peer to find it unused frees it.
    fn defer(
        &self,
        me: &Thread<'_>,
        name: &Name,
        budget: Budget,
    ) -> Result<RegionHandle, DirectoryError> {
        /// Lost races that are allowed even when the budget is spent.
        const RACES: u32 = 64;
        for race in 0.. {
            let (region, state) = self.find_unmapped(name)?;
            if self.make_deferred(region, state)? {
                self.finish_deferred(me, region)?;
                return Ok(RegionHandle { region, generation: state.generation });
            }
            if race > RACES && budget.is_spent(self.view()) {
                break;
            }
        }
        Err(DirectoryError::Unsettled)
    }

    fn make_deferred(&self, region: RegionId, state: RegionState) -> Result<bool, DirectoryError> {
        let view = self.view();
        view.raise_hint(region)?;
        Point::DestroyHinted.reached();
        if !view.change_state(region, state, deferred(state))? {
            return Ok(false);
        }
        Point::DestroyState.reached();
        // Again: a peer that cleared the hint in between may have looked at the entry before it was deferred.
        view.raise_hint(region)?;
        Ok(true)
    }

    /// Destroys an unused region while a holder of the directory mutex is stuck, by making it deferred: the next
    /// holder frees it. `None` if a peer uses it.
    fn destroy_unused(&self, name: &Name) -> Result<Option<RegionHandle>, DirectoryError> {
        let view = self.view();
        let (region, state) = self.find_unmapped(name)?;
        let handle = RegionHandle { region, generation: state.generation };
        if view.in_use(region)? || !self.make_deferred(region, state)? {
            return Ok(None);
        }
        // SeqCst, in `change_state`: pairs with a mapper, which counts itself before it looks at the state again.
        if view.in_use(region)? && view.change_state(region, deferred(state), state)? {
            Point::DestroyUndone.reached();
            return Ok(None);
        }
        Ok(Some(handle))
    }

    /// Becomes the actor of an active region, and refuses new mappings. Waits for a thread that is resizing it, as for
    /// mappers.
    fn begin_destroy(
        &self,
        me: &Thread<'_>,
        name: &Name,
        how: Destroy,
        budget: Budget,
    ) -> Result<(RegionId, RegionState), DirectoryError> {
        let view = self.view();
        loop {
            let directory = view.directory(me, budget.renewed(view))?;
            let (region, state) = self.find_unmapped(name)?;
            let Some(resizer) = view.resizer(region)? else {
                return Ok((region, directory.begin_destroy(region, state)?));
            };
            drop(directory);
            if how.ends().is_some_and(|end| view.now() >= end) {
                return Err(DirectoryError::TimedOut);
            }
            self.await_resizer(me, region, resizer, how.ends().unwrap_or(u64::MAX))?;
        }
    }

    /// Waits for one slice at most until another thread has finished resizing a region.
    pub(crate) fn await_resizer(
        &self,
        me: &Thread<'_>,
        region: RegionId,
        resizer: Owner,
        end: u64,
    ) -> Result<(), DirectoryError> {
        let view = self.view();
        let event = self.unmapped(region)?;
        let number = event.sequence();
        if view.verdict(resizer) == Verdict::Dead || view.resizer(region)? != Some(resizer) {
            return Ok(());
        }
        let slice = view.now().saturating_add(commonhold_sync::SLICE_NS);
        match event.wait(me, view, number, Some(slice.min(end))) {
            Ok(_) | Err(LockError::TimedOut) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until no peer maps a region any more, and frees it. The actor needs the mutex for neither:
    /// while it lives, no other thread changes the state.
    fn await_unmapped(
        &self,
        me: &Thread<'_>,
        region: RegionId,
        state: RegionState,
        how: Destroy,
        budget: Budget,
    ) -> Result<(), DirectoryError> {
        let event = self.unmapped(region)?;
        let view = self.view();
        let deadline = how.ends().unwrap_or(u64::MAX);
        loop {
            let number = event.sequence();
            view.judge_mappers(region);
            if view.mappings(region) == 0 {
                let freeing = self.free_as_actor(region, state)?.ok_or(DirectoryError::Fenced)?;
                return self.free(me, region, freeing, budget);
            }
            if view.now() >= deadline {
                return self.undo(me, region, state);
            }
            let slice = view.now().saturating_add(commonhold_sync::SLICE_NS);
            match event.wait(me, view, number, Some(deadline.min(slice))) {
                Ok(_) | Err(LockError::TimedOut) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Makes a region active again because its mappers have not gone in time.
    fn undo(
        &self,
        me: &Thread<'_>,
        region: RegionId,
        state: RegionState,
    ) -> Result<(), DirectoryError> {
        let view = self.view();
        Point::DestroyTimedOut.reached();
        let actor = view.actor(region)?;
        // The actor is erased: on an active region it would mean that this thread resizes it. If another thread is
        // the actor by now, this peer was declared dead.
        if actor.is_owned_by(me.owner()) {
            let left = LockWord::unowned(actor.flags().only(LockFlags::INCONSISTENT)).word();
            if !view.change_state(region, state, state.in_phase(RegionPhase::Active))? {
                return Err(DirectoryError::Fenced);
            }
            // Relaxed: publishes nothing. It fails if the next actor is there already, which has kept the flag.
            let _ = view.entry(region)?[region_word::ACTOR].compare_exchange(
                actor.word(),
                left,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            Point::DestroyUndone.reached();
            return Err(DirectoryError::TimedOut);
        }
        Err(DirectoryError::Fenced)
    }

    /// Frees a deferred region if no peer uses it any more. If the directory mutex is busy, a hint tells the next
    /// peer to do it.
    pub(crate) fn finish_deferred(
        &self,
        me: &Thread<'_>,
        region: RegionId,
    ) -> Result<(), DirectoryError> {
        let view = self.view();
        if view.in_use(region)? {
            return Ok(());
        }
        let budget = Patience::LEAST.begin(view);
        let directory = match view.directory(me, budget) {
            Err(error) if error.is_busy() => return Ok(view.raise_hint(region)?),
            result => result?,
        };
        let state = view.region_state(region)?;
        let ours = state.phase == RegionPhase::Destroying
            && state.flags.contains(RegionFlags::DEFERRED)
            && !view.in_use(region)?;
        if !ours {
            return Ok(());
        }
        let freeing = directory.begin_free(region, state)?;
        drop(directory);
        freeing.map_or(Ok(()), |freeing| self.free(me, region, freeing, budget))
    }

    /// Takes the duty to free a region of which this thread is the actor. `None` if another thread is by now.
    pub(crate) fn free_as_actor(
        &self,
        region: RegionId,
        state: RegionState,
    ) -> Result<Option<RegionState>, Damage> {
        Point::DestroyDrained.reached();
        self.view().begin_freeing(region, state)
    }
}

/// The state of an active region once it is deferred.
const fn deferred(state: RegionState) -> RegionState {
    state.in_phase(RegionPhase::Destroying).with_flags(state.flags.with(RegionFlags::DEFERRED))
}

impl Destroy {
    /// The moment at which the wait for mappers ends; `None` if it has no end.
    const fn ends(self) -> Option<u64> {
        match self {
            Self::Until(end) => Some(end),
            Self::Wait | Self::Deferred => None,
        }
    }
}

impl<P: Platform> View<P> {
    fn begin_freeing(
        &self,
        region: RegionId,
        state: RegionState,
    ) -> Result<Option<RegionState>, Damage> {
        let freeing = state.in_phase(RegionPhase::Freeing);
        if !self.change_state(region, state, freeing)? {
            return Ok(None);
        }
        Point::DestroyFreeing.reached();
        Ok(Some(freeing))
    }
}

impl<P: Platform> Directory<'_, P> {
    fn begin_destroy(
        &self,
        region: RegionId,
        state: RegionState,
    ) -> Result<RegionState, DirectoryError> {
        // The flag says that bytes beyond the size may have any value. It is kept, since the region may become active
        // again.
        let flags = self.view.actor(region)?.flags().only(LockFlags::INCONSISTENT);
        self.set_actor(region, self.me.owner().word().with_flags(flags))?;
        Point::DestroyActor.reached();
        let destroying = state.in_phase(RegionPhase::Destroying);
        if !self.view.change_state(region, state, destroying)? {
            // Another peer has made it deferred.
            self.set_actor(region, LockWord::unowned(flags))?;
            return Err(DirectoryError::NotFound);
        }
        Point::DestroyState.reached();
        Ok(destroying)
    }

    /// Takes the duty to free a region that no peer uses. `None` if its state has changed meanwhile.
    pub(crate) fn begin_free(
        &self,
        region: RegionId,
        state: RegionState,
    ) -> Result<Option<RegionState>, DirectoryError> {
        Point::DestroyDrained.reached();
        self.set_actor(region, self.me.owner().word())?;
        Ok(self.view.begin_freeing(region, state)?)
    }

    /// Unlinks an entry whose memory has been given back, and frees it.
    pub(crate) fn forget(
        &self,
        region: RegionId,
        state: RegionState,
    ) -> Result<(), DirectoryError> {
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
