//! Settling what dead actors left in an entry, and freeing deferred regions that no peer uses any more.
//!
//! # What it owns
//! The decision whether an entry has to be settled, which thread takes that duty, and the hint that
//! some entry may have to be settled.
//!
//! # Invariants
//! 1. Evidence is looked for before the directory mutex is taken; that fences peers that are proved dead.
//!    Under the mutex only memory is looked at: an actor that is not current is dead.
//! 2. A thread takes the duty under the mutex, by writing the actor and then the state, and does it without the
//!    mutex. If that thread dies, or cannot get the mutex again, any other may take the duty.
//! 3. A thread that leaves something for other peers first leaves it, and then raises the hint. A thread that looks at
//!    all entries first clears the hint, and then looks. So what is left during the look is either seen, or raises
//!    the hint again. (A hint that names one region is cleared after that entry was settled, if it has not changed.)
//!    Recovery raises the hint after a holder of the mutex died: see `recover`.
//! 4. A damaged entry is skipped: it must not keep other entries from being settled.

use core::sync::atomic::Ordering;

use commonhold_layout::{
    Damage, LockFlags, LockWord, Owner, RegionFlags, RegionId, RegionPhase, RegionState,
    header_word, region_word,
};
use commonhold_sync::{Liveness, LockError, Park, Thread, Verdict};
use commonhold_window::Point;

use crate::{
    Attached, DirectoryError, Patience, Platform, View, budget::Budget, directory::Directory,
};

/// The hint if more than one region may have to be settled: all entries have to be looked at.
pub(crate) const SEVERAL: u64 = u64::MAX;

/// What the thread that has taken the duty for an entry has to do.
enum Duty {
    /// Nothing: there was nothing to settle.
    None,
    /// Nothing more: the entry has been settled.
    Done,
    /// Release the memory of the region, and free the entry.
    Free(RegionState),
    /// Clear the bytes beyond the size.
    Tail,
}

impl<P: Platform> View<P> {
    /// The actor: the thread that is creating, destroying, freeing or resizing a region. The flag
    /// [`INCONSISTENT`](LockFlags::INCONSISTENT) says that bytes beyond the size may have any value.
    pub(crate) fn actor(&self, region: RegionId) -> Result<LockWord, Damage> {
        // Relaxed: the actor was written before the state that gives it a meaning, whose load orders this one.
        Ok(LockWord::from_word(self.entry(region)?[region_word::ACTOR].load(Ordering::Relaxed)))
    }

    /// The living thread that is resizing an active region.
    pub(crate) fn resizer(&self, region: RegionId) -> Result<Option<Owner>, Damage> {
        let actor = self.actor(region)?;
        let marked = actor.flags().contains(LockFlags::INCONSISTENT);
        Ok(actor.owner().filter(|owner| marked && self.is_current(*owner)))
    }

    /// Whether a living peer maps a region, or a living thread is resizing it.
    pub(crate) fn in_use(&self, region: RegionId) -> Result<bool, Damage> {
        Ok(self.mappings(region) > 0 || self.resizer(region)?.is_some())
    }

    /// Whether only the name of a region is left: it was destroyed, and no peer uses it any more.
    pub(crate) fn is_ending(&self, region: RegionId, state: RegionState) -> Result<bool, Damage> {
        Ok(match state.phase {
            RegionPhase::Freeing => true,
            RegionPhase::Destroying => {
                state.flags.contains(RegionFlags::DEFERRED) && !self.in_use(region)?
            }
            _ => false,
        })
    }

    /// Whether an entry has to be settled, by what is in memory.
    fn is_left(&self, region: RegionId, state: RegionState) -> Result<bool, Damage> {
        let actor = self.actor(region)?;
        let acts = actor.owner().is_some_and(|owner| self.is_current(owner));
        Ok(match state.phase {
            RegionPhase::Free => false,
            RegionPhase::Active => actor.flags().contains(LockFlags::INCONSISTENT) && !acts,
            RegionPhase::Destroying if state.flags.contains(RegionFlags::DEFERRED) => {
                !self.in_use(region)?
            }
            _ => !acts,
        })
    }

    /// As [`is_left`](Self::is_left), after a look at the evidence of the actor and the mappers.
    fn judge(&self, region: RegionId, state: RegionState) -> Result<bool, Damage> {
        let actor = self.actor(region)?;
        let marked = actor.flags().contains(LockFlags::INCONSISTENT);
        let asks = match state.phase {
            RegionPhase::Free => return Ok(false),
            RegionPhase::Active => marked,
            _ => true,
        };
        if let Some(owner) = actor.owner().filter(|_| asks) {
            let _: Verdict = self.verdict(owner);
        }
        if state.phase == RegionPhase::Destroying && state.flags.contains(RegionFlags::DEFERRED) {
            self.judge_mappers(region);
        }
        self.is_left(region, state)
    }

    /// Asks for a verdict on every peer that maps a region. This fences the dead ones, so their mappings cease to
    /// count.
    pub(crate) fn judge_mappers(&self, region: RegionId) {
        for (mapper, _) in self.mappers(region) {
            let _: Verdict = self.verdict_of(mapper);
        }
    }

    /// Raises the hint that an entry may have to be settled.
    pub(crate) fn raise_hint(&self, region: RegionId) -> Result<(), Damage> {
        let hint = self.header_word(header_word::DEFERRED_HINT)?;
        let raised = |word| match word {
            0 => Some(region.link()),
            word if word == region.link() => None,
            _ => Some(SEVERAL),
        };
        // SeqCst: pairs with the thread that clears the hint, which does so before it looks at the entries.
        let _ = hint.fetch_update(Ordering::SeqCst, Ordering::SeqCst, raised);
        Ok(())
    }
}

impl<P: Platform> Attached<P> {
    /// Whether the hint is raised: some entry may have to be settled.
    pub(crate) fn has_hint(&self) -> Result<bool, Damage> {
        Ok(self.view().header_word(header_word::DEFERRED_HINT)?.load(Ordering::SeqCst) != 0)
    }

    /// Frees deferred regions that no peer uses any more, if that can be done at once; otherwise leaves it to the
    /// next peer. It costs one load if there are none.
    pub(crate) fn sweep(&self, me: &Thread<'_>) {
        let view = self.view();
        let Ok(hint) = view.header_word(header_word::DEFERRED_HINT) else { return };
        let word = hint.load(Ordering::SeqCst);
        let link = if word == SEVERAL { 0 } else { word };
        let Ok(only) = view.geometry().link(link, "the hint") else { return };
        let still = only.is_some_and(|region| {
            view.region_state(region).is_ok_and(|state| {
                state.phase == RegionPhase::Destroying
                    && state.flags.contains(RegionFlags::DEFERRED)
            })
        });
        // An error is ignored: the next peer tries again, and may be told why.
        match only {
            None if word == 0 => {}
            Some(region) if still => {
                if let Ok(true) = self.settle_region(me, region, Budget::NONE) {
                    let _ = hint.compare_exchange(word, 0, Ordering::SeqCst, Ordering::Relaxed);
                }
            }
            _ => drop(self.settle(me, Budget::NONE)),
        }
    }

    /// Settles every entry whose actor is dead, and every deferred one that no peer uses any more. Returns how many.
    pub(crate) fn settle(&self, me: &Thread<'_>, budget: Budget) -> Result<u32, DirectoryError> {
        let view = self.view();
        let hint = view.header_word(header_word::DEFERRED_HINT)?;
        if hint.load(Ordering::SeqCst) != 0 {
            // SeqCst: pairs with `raise_hint`; a peer that leaves something from now on raises the hint again.
            hint.store(0, Ordering::SeqCst);
        }
        let mut settled = 0;
        for region in (0..view.regions_used()?).map(RegionId::new) {
            match self.settle_region(me, region, budget) {
                Ok(did) => settled += u32::from(did),
                Err(DirectoryError::Damaged(_)) => continue,
                Err(error) => {
                    hint.store(SEVERAL, Ordering::SeqCst);
                    return Err(error);
                }
            }
            let deferred = view.region_state(region).is_ok_and(|state| {
                state.phase == RegionPhase::Destroying
                    && state.flags.contains(RegionFlags::DEFERRED)
            });
            if deferred {
                view.raise_hint(region)?;
            }
        }
        Ok(settled)
    }

    /// As [`settle`](Self::settle), but what cannot be done now is left to the next peer, by the hint.
    pub(crate) fn settle_or_leave(&self, me: &Thread<'_>) {
        if self.settle(me, Patience::LEAST.begin(self.view())).is_err()
            && let Ok(hint) = self.view().header_word(header_word::DEFERRED_HINT)
        {
            hint.store(SEVERAL, Ordering::SeqCst);
        }
    }

    /// Settles what a dead actor left in one entry. False if there was nothing to settle.
    pub(crate) fn settle_region(
        &self,
        me: &Thread<'_>,
        region: RegionId,
        budget: Budget,
    ) -> Result<bool, DirectoryError> {
        let view = self.view();
        let state = view.region_state(region)?;
        if !view.judge(region, state)? {
            return Ok(false);
        }
        let directory = view.directory(me, budget)?;
        let duty = directory.take_duty(region)?;
        drop(directory);
        match duty {
            Duty::None => return Ok(false),
            Duty::Done => {}
            Duty::Free(state) => self.free(me, region, state, budget)?,
            // If it fails, the mark stays, and the next thread that resizes the region has the duty.
            Duty::Tail => drop(self.clear_dirty_tail(me, region)),
        }
        Ok(true)
    }

    /// Does the duty of the actor of a `Freeing` region. If the directory mutex cannot be had at the end, gives up
    /// the duty for any thread to take: until then the name and the extent stay taken.
    pub(crate) fn free(
        &self,
        me: &Thread<'_>,
        region: RegionId,
        state: RegionState,
        budget: Budget,
    ) -> Result<(), DirectoryError> {
        let view = self.view();
        let extent = view.extent(view.entry(region)?)?;
        let released = view.release(extent);
        Point::DestroyReleased.reached();
        let directory = released.and_then(|()| view.directory(me, budget.renewed(view)));
        let directory = match directory {
            Ok(directory) => directory,
            Err(error) => {
                self.leave(me, region)?;
                return if error.is_busy() { Ok(()) } else { Err(error) };
            }
        };
        if view.region_state(region)? != state {
            return Err(DirectoryError::Fenced);
        }
        directory.forget(region, state)?;
        drop(directory);
        // For threads in `await_freed`. If the entry is another region's by now, the wake does no harm.
        self.unmapped(region)?.broadcast(me, view);
        Ok(())
    }

    /// Waits while a living thread is freeing the region that was `seen` in an entry: its destroyer may already have
    /// returned, so that the region seems gone. False if the region is there and stays.
    pub(crate) fn await_freed(
        &self,
        me: &Thread<'_>,
        region: RegionId,
        seen: RegionState,
        budget: Budget,
    ) -> Result<bool, DirectoryError> {
        let view = self.view();
        let event = self.unmapped(region)?;
        loop {
            let number = event.sequence();
            let state = view.region_state(region)?;
            if state.phase == RegionPhase::Free || state.generation != seen.generation {
                return Ok(true);
            }
            if state.phase != RegionPhase::Freeing {
                return Ok(view.is_ending(region, state)?);
            }
            let Some(owner) = view.actor(region)?.owner() else { return Ok(true) };
            let slot = owner.peer().get();
            match view.verdict(owner) {
                Verdict::Dead => return Ok(true),
                _ if !budget.is_spent(view) => {}
                Verdict::Suspect => return Err(DirectoryError::HeldBySuspect { slot }),
                Verdict::Alive => {
                    return Err(DirectoryError::Busy { slot, thread: owner.thread().index() });
                }
            }
            let slice = view.now().saturating_add(commonhold_sync::SLICE_NS);
            match event.wait(me, view, number, Some(slice.min(budget.end()))) {
                Ok(_) | Err(LockError::TimedOut) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for all threads that are freeing a region. False if there was none, or one did not end in time.
    pub(crate) fn await_all_freed(&self, me: &Thread<'_>, budget: Budget) -> bool {
        let view = self.view();
        let mut any = false;
        for region in (0..view.regions_used().unwrap_or(0)).map(RegionId::new) {
            match view.region_state(region) {
                Ok(state) if state.phase == RegionPhase::Freeing => {
                    if self.await_freed(me, region, state, budget).is_err() {
                        return false;
                    }
                    any = true;
                }
                _ => {}
            }
        }
        any
    }

    /// Gives up a duty: the next thread that comes across the entry takes it.
    fn leave(&self, me: &Thread<'_>, region: RegionId) -> Result<(), DirectoryError> {
        let actor = self.view().actor(region)?;
        if actor.is_owned_by(me.owner()) {
            let word = &self.view().entry(region)?[region_word::ACTOR];
            // Relaxed: it publishes nothing but that no thread has the duty. It fails if this peer was declared dead
            // and the entry has another actor.
            let _ = word.compare_exchange(actor.word(), 0, Ordering::Relaxed, Ordering::Relaxed);
        }
        Ok(self.view().raise_hint(region)?)
    }
}

impl<P: Platform> Directory<'_, P> {
    /// Takes the duty to settle an entry, if it still has to be settled.
    fn take_duty(&self, region: RegionId) -> Result<Duty, DirectoryError> {
        let view = self.view;
        let state = view.region_state(region)?;
        if !view.is_left(region, state)? {
            return Ok(Duty::None);
        }
        match state.phase {
            RegionPhase::Active => {
                let marked = self.me.owner().word().with_flags(LockFlags::INCONSISTENT);
                self.set_actor(region, marked)?;
                Ok(Duty::Tail)
            }
            RegionPhase::Destroying if !state.flags.contains(RegionFlags::DEFERRED) => {
                let flags = view.actor(region)?.flags().only(LockFlags::INCONSISTENT);
                let active = state.in_phase(RegionPhase::Active);
                if view.change_state(region, state, active)? {
                    self.set_actor(region, LockWord::unowned(flags))?;
                    Point::DestroyUndone.reached();
                }
                Ok(Duty::Done)
            }
            _ => Ok(self.begin_free(region, state)?.map_or(Duty::None, Duty::Free)),
        }
    }

    pub(crate) fn set_actor(&self, region: RegionId, actor: LockWord) -> Result<(), Damage> {
        // Relaxed: the state that gives it a meaning is stored afterwards, with Release.
        self.view.entry(region)?[region_word::ACTOR].store(actor.word(), Ordering::Relaxed);
        Ok(())
    }
}
