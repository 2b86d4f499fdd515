//! Settling what the dead left in an entry, and freeing deferred regions that nobody uses any more.
//!
//! # What it owns
//! The question whether anything is left in an entry, who takes the duty of settling it, and the hint that
//! something may be left.
//!
//! # Invariants
//! 1. Evidence is looked for before the directory mutex is taken; whoever is proved dead is fenced by that.
//!    Under the mutex only memory is looked at: an actor that is not current is dead.
//! 2. The duty is taken under the mutex, by writing the actor and then the state, and done without it. If who
//!    has it dies, or cannot get the mutex again, it is anybody's.
//! 3. The hint is raised after anything was left for others, and taken down before all entries are looked at.
//!    A holder of the mutex that dies raises it: see `recover`.
//! 4. An entry whose words make no sense is passed over: it must not keep others from being settled.

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

/// More than one region may be left: all entries have to be looked at.
pub(crate) const SEVERAL: u64 = u64::MAX;

/// What has to be done for an entry, by who has just taken the duty.
enum Duty {
    /// Nothing is left.
    None,
    /// Nothing any more.
    Done,
    /// Its memory has to be given back.
    Free(RegionState),
    /// What lies beyond its size has to be cleared.
    Tail,
}

impl<P: Platform> View<P> {
    /// Whoever is creating, destroying, freeing or resizing a region, and whether the bytes beyond its size
    /// may be anything.
    pub(crate) fn actor(&self, region: RegionId) -> Result<LockWord, Damage> {
        // Relaxed: it was written before the state that gives it a meaning.
        Ok(LockWord::from_word(self.entry(region)?[region_word::ACTOR].load(Ordering::Relaxed)))
    }

    /// The living actor that is giving an active region another size.
    pub(crate) fn resizer(&self, region: RegionId) -> Result<Option<Owner>, Damage> {
        let actor = self.actor(region)?;
        let marked = actor.flags().contains(LockFlags::INCONSISTENT);
        Ok(actor.owner().filter(|owner| marked && self.is_current(*owner)))
    }

    /// Whether anybody who lives maps a region, or is resizing it.
    pub(crate) fn in_use(&self, region: RegionId) -> Result<bool, Damage> {
        Ok(self.mappings(region) > 0 || self.resizer(region)?.is_some())
    }

    /// Whether a region is there in name only: it was destroyed, and nobody uses it any more.
    pub(crate) fn is_ending(&self, region: RegionId, state: RegionState) -> Result<bool, Damage> {
        Ok(match state.phase {
            RegionPhase::Freeing => true,
            RegionPhase::Destroying => {
                state.flags.contains(RegionFlags::DEFERRED) && !self.in_use(region)?
            }
            _ => false,
        })
    }

    /// Whether something is left to be settled, as far as is known.
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

    /// The same, after a look at the evidence.
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

    /// Looks for evidence of all who map a region: a dead one is fenced by this, and counts no longer.
    pub(crate) fn judge_mappers(&self, region: RegionId) {
        for (mapper, _) in self.mappers(region) {
            let _: Verdict = self.verdict_of(mapper);
        }
    }

    /// Says that something may be left to be settled in an entry.
    pub(crate) fn raise_hint(&self, region: RegionId) -> Result<(), Damage> {
        let hint = self.header_word(header_word::DEFERRED_HINT)?;
        let raised = |word| match word {
            0 => Some(region.link()),
            word if word == region.link() => None,
            _ => Some(SEVERAL),
        };
        // SeqCst: whoever takes the hint down does so before it looks at the entries.
        let _ = hint.fetch_update(Ordering::SeqCst, Ordering::SeqCst, raised);
        Ok(())
    }
}

impl<P: Platform> Attached<P> {
    /// Whether something may be left to be settled although nobody has died.
    pub(crate) fn has_hint(&self) -> Result<bool, Damage> {
        Ok(self.view().header_word(header_word::DEFERRED_HINT)?.load(Ordering::SeqCst) != 0)
    }

    /// Frees deferred regions that nobody uses any more, if that can be done at once: else it is left to the
    /// next. It costs one load if there are none.
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
        // What fails is left to the next, who may be told why.
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

    /// Settles every entry whose actor is dead, and every deferred one that nobody uses any more.
    pub(crate) fn settle(&self, me: &Thread<'_>, budget: Budget) -> Result<u32, DirectoryError> {
        let view = self.view();
        let hint = view.header_word(header_word::DEFERRED_HINT)?;
        if hint.load(Ordering::SeqCst) != 0 {
            // SeqCst: what is left by others from now on raises it again.
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

    /// As [`settle`](Self::settle), but what cannot be done now is left to the next.
    pub(crate) fn settle_or_leave(&self, me: &Thread<'_>) {
        if self.settle(me, Patience::LEAST.begin(self.view())).is_err()
            && let Ok(hint) = self.view().header_word(header_word::DEFERRED_HINT)
        {
            hint.store(SEVERAL, Ordering::SeqCst);
        }
    }

    /// Settles what the dead left in one entry. True if it was anything.
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
            // If it cannot be done, it stays for whoever resizes the region.
            Duty::Tail => drop(self.clear_dirty_tail(me, region)),
        }
        Ok(true)
    }

    /// Does the duty of an actor of `Freeing`. If the directory cannot be had at the end of it, the duty is
    /// anybody's: until then the name and the extent stay taken.
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
        // For who waits in `await_freed`. If the entry is another region's by now, nobody minds.
        self.unmapped(region)?.broadcast(me, view);
        Ok(())
    }

    /// Waits while somebody who lives is freeing the region that was `seen` in an entry: whoever destroyed it may have
    /// been told long ago that it no longer exists. False if it is there, and stays.
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

    /// Waits for everybody who is freeing a region. False if nobody was, or one does not end in time.
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

    /// Gives up a duty: whoever comes across the entry takes it.
    fn leave(&self, me: &Thread<'_>, region: RegionId) -> Result<(), DirectoryError> {
        let actor = self.view().actor(region)?;
        if actor.is_owned_by(me.owner()) {
            let word = &self.view().entry(region)?[region_word::ACTOR];
            // Relaxed: it says only that nobody has the duty. It fails if this peer was declared dead; then the
            // entry is somebody else's.
            let _ = word.compare_exchange(actor.word(), 0, Ordering::Relaxed, Ordering::Relaxed);
        }
        Ok(self.view().raise_hint(region)?)
    }
}

impl<P: Platform> Directory<'_, P> {
    /// Takes the duty to settle an entry, if there is anything to settle.
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
        // Relaxed: the state that gives it a meaning is stored after it, and releases.
        self.view.entry(region)?[region_word::ACTOR].store(actor.word(), Ordering::Relaxed);
        Ok(())
    }
}
