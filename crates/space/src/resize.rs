//! Resizing a region within its reserve.
//!
//! # Invariants
//! 1. Before a thread changes anything, it takes the directory mutex and writes itself into the entry as the *actor*,
//!    together with a *mark* (the flag `INCONSISTENT`). It does so only if no living thread is the marked actor: so
//!    one thread at a time resizes a region. Only that actor stores the size, and commits or releases memory beyond
//!    it (if it dies, recovery and the next actor do). It removes its name and the mark at the end. Until then no
//!    thread frees the region: a destroyer waits, and a deferred region is freed afterwards.
//! 2. The mark says that bytes beyond the size may have any value, or have memory. An actor that dies leaves the mark,
//!    and so does one that could not clear the bytes. Then the next actor has that duty: it clears the bytes before
//!    the region grows.
//! 3. Memory is committed and released without the mutex. Under the mutex, a shrink only decides which size counts,
//!    by way of the intent record.

use core::sync::atomic::Ordering;

use commonhold_layout::{
    Damage, Intent, IntentKind, IntentPhase, LockFlags, LockWord, Name, RegionFlags, RegionId,
    RegionPhase, RegionState, align_up, header_word, region_word,
};
use commonhold_sync::Thread;
use commonhold_window::Point;

use crate::{
    Attached, Demand, DirectoryError, Patience, Platform, Touch, budget::Budget,
    directory::Directory,
};

/// A resize by the region's actor: no other thread resizes the region.
#[derive(Debug, Clone, Copy)]
struct Resize {
    region: RegionId,
    flags: RegionFlags,
    old: u64,
    new: u64,
    /// Bytes beyond the old size may have any value.
    dirty: bool,
}

/// The bytes beyond the size when a resize ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// They are clear.
    Clear,
    /// They may have any value.
    Dirty,
}

impl<P: Platform> Attached<P> {
    /// Changes the size of the region of a name. Mappings see the new size when they
    /// [look again](Self::look_again). `demand` applies to the bytes by which it grows.
    ///
    /// # Errors
    /// [`DirectoryError::BeyondReserve`]; [`DirectoryError::Mapped`] if it is to shrink while a peer
    /// maps it; [`DirectoryError::BackingMemory`] if there is no memory. The size is as before then.
    pub fn resize(
        &self,
        me: &Thread<'_>,
        name: &Name,
        size: u64,
        demand: Demand,
        patience: Patience,
    ) -> Result<(), DirectoryError> {
        let budget = patience.begin(self.view());
        self.sweep(me);
        self.settle_name(me, name, budget)?;
        match self.resize_once(me, name, size, demand, budget) {
            // As in `create`.
            Err(error) if error.is_full() && self.finds_room(me, budget) => {
                self.resize_once(me, name, size, demand, budget.renewed(self.view()))
            }
            result => result,
        }
    }

    fn resize_once(
        &self,
        me: &Thread<'_>,
        name: &Name,
        size: u64,
        demand: Demand,
        budget: Budget,
    ) -> Result<(), DirectoryError> {
        let view = self.view();
        // Without the mutex: a region that does not exist is an error at once.
        let (region, _) = view.find(name)?.ok_or(DirectoryError::NotFound)?;
        if size < view.entry(region)?[region_word::SIZE].load(Ordering::Relaxed) {
            view.judge_mappers(region);
        }
        loop {
            let directory = view.directory(me, budget)?;
            let (region, state) = directory.find_active(name)?;
            let Some(resizer) = view.resizer(region)? else {
                let Some(resize) = directory.begin_resize(region, state, size)? else {
                    return Ok(());
                };
                if size < resize.old {
                    let granted = directory.grant_shrink(&resize);
                    drop(directory);
                    return self.end(me, region, granted.and_then(|()| self.shrink(&resize)));
                }
                drop(directory);
                return self.end(me, region, self.grow(me, &resize, demand));
            };
            drop(directory);
            if budget.is_spent(view) {
                let (slot, thread) = (resizer.peer().get(), resizer.thread().index());
                return Err(DirectoryError::Busy { slot, thread });
            }
            self.await_resizer(me, region, resizer, budget.end())?;
        }
    }

    /// Commits memory for the bytes by which a region grows, and only then stores the size.
    fn grow(
        &self,
        me: &Thread<'_>,
        resize: &Resize,
        demand: Demand,
    ) -> Result<(), (Tail, DirectoryError)> {
        let Resize { region, flags, old, new, dirty } = *resize;
        let view = self.view();
        let extent = view.entry(region).and_then(|entry| view.extent(entry));
        let extent = extent.map_err(|damage| (Tail::Dirty, damage.into()))?;
        if dirty {
            self.clear_tail(region, old, extent.len()).map_err(|error| (Tail::Dirty, error))?;
        }
        let page = view.geometry().page();
        let tail = align_up(old, page)
            .zip(align_up(new, page))
            .and_then(|(from, to)| extent.part(from, to.saturating_sub(from)));
        let tail = tail.ok_or((Tail::Clear, Damage::new("the size of a region", new).into()))?;
        let takes = !flags.contains(RegionFlags::LAZY) && !tail.is_empty();
        if takes {
            view.room_for(tail.len(), demand).map_err(|error| (Tail::Clear, error.into()))?;
        }
        if takes && let Err(error) = view.platform().commit(tail) {
            let left = if view.release(tail).is_ok() { Tail::Clear } else { Tail::Dirty };
            return Err((left, error.into()));
        }
        Point::ResizeCommitted.reached();
        self.set_size(me, region, new).map_err(|error| (Tail::Dirty, error))?;
        Point::ResizeGranted.reached();
        Ok(())
    }

    /// Stores a size as the actor that resizes a region.
    fn set_size(&self, me: &Thread<'_>, region: RegionId, size: u64) -> Result<(), DirectoryError> {
        let actor = self.view().actor(region)?;
        if !actor.is_owned_by(me.owner()) || self.view().is_fenced() {
            return Err(DirectoryError::Fenced);
        }
        self.view().entry(region)?[region_word::SIZE].store(size, Ordering::SeqCst);
        Ok(())
    }

    /// Clears the bytes that a region has lost. If that fails, restores the old size: bytes that could not be cleared
    /// must not reappear when the region grows.
    fn shrink(&self, resize: &Resize) -> Result<(), (Tail, DirectoryError)> {
        let Resize { region, old, new, dirty, .. } = *resize;
        let view = self.view();
        let dirt = |damage: Damage| (Tail::Dirty, damage.into());
        let entry = view.entry(region).map_err(dirt)?;
        let end = if dirty { view.extent(entry).map_err(dirt)?.len() } else { old };
        if let Err(error) = self.clear_tail(region, new, end) {
            if !view.is_fenced() {
                entry[region_word::SIZE].store(old, Ordering::SeqCst);
            }
            return Err((if dirty { Tail::Dirty } else { Tail::Clear }, error));
        }
        Point::ResizeReleased.reached();
        Ok(())
    }

    /// Ends a resize: gives up the mark, and wakes the threads that wait for it.
    fn end(
        &self,
        me: &Thread<'_>,
        region: RegionId,
        result: Result<(), (Tail, DirectoryError)>,
    ) -> Result<(), DirectoryError> {
        let (left, result) = match result {
            Ok(()) => (Tail::Clear, Ok(())),
            Err((left, error)) => (left, Err(error)),
        };
        self.unmark(me, region, left)?;
        result
    }

    fn unmark(&self, me: &Thread<'_>, region: RegionId, left: Tail) -> Result<(), DirectoryError> {
        let view = self.view();
        let marked = me.owner().word().with_flags(LockFlags::INCONSISTENT);
        let unmarked = match left {
            Tail::Clear => LockWord::FREE,
            Tail::Dirty => LockWord::unowned(LockFlags::INCONSISTENT),
        };
        // SeqCst: as Release it publishes the size and the cleared bytes to the next actor. It fails if this peer was
        // declared dead and another thread is the actor.
        let _ = view.entry(region)?[region_word::ACTOR].compare_exchange(
            marked.word(),
            unmarked.word(),
            Ordering::SeqCst,
            Ordering::Relaxed,
        );
        Point::ResizeUnmarked.reached();
        self.unmapped(region)?.broadcast(me, view);
        let state = view.region_state(region)?;
        if state.phase == RegionPhase::Destroying && state.flags.contains(RegionFlags::DEFERRED) {
            self.finish_deferred(me, region)?;
        }
        Ok(())
    }

    /// Clears the bytes beyond the size of a region that this thread has marked.
    pub(crate) fn clear_dirty_tail(
        &self,
        me: &Thread<'_>,
        region: RegionId,
    ) -> Result<(), DirectoryError> {
        let view = self.view();
        let entry = view.entry(region)?;
        let size = entry[region_word::SIZE].load(Ordering::SeqCst);
        let cleared = view
            .extent(entry)
            .map_err(DirectoryError::from)
            .and_then(|extent| self.clear_tail(region, size, extent.len()));
        self.end(me, region, cleared.map_err(|error| (Tail::Dirty, error)))
    }

    /// Clears the bytes of a region between two sizes, and releases their memory: they read as zeros if it grows
    /// again.
    fn clear_tail(&self, region: RegionId, from: u64, to: u64) -> Result<(), DirectoryError> {
        let view = self.view();
        let extent = view.extent(view.entry(region)?)?;
        let page = view.geometry().page();
        let damage = || Damage::new("the size of a region", to);
        let whole = align_up(from, page).ok_or_else(damage)?;
        let end = align_up(to, page).ok_or_else(damage)?;
        let edge = whole.min(to).saturating_sub(from);
        if edge > 0 {
            // The page may be a hole: the region may be lazy, or its size a wrong claim.
            let page_of = extent.part(whole.saturating_sub(page), page).ok_or_else(damage)?;
            view.platform().back(page_of, Touch::Use)?;
            view.window().zero(extent.part(from, edge).ok_or_else(damage)?)?;
        }
        if let Some(tail) = extent.part(whole, end.saturating_sub(whole)) {
            view.release(tail)?;
        }
        Ok(())
    }
}

impl<P: Platform> Directory<'_, P> {
    /// The active region of a name.
    fn find_active(&self, name: &Name) -> Result<(RegionId, RegionState), DirectoryError> {
        let (region, state) = self.find(name)?.ok_or(DirectoryError::NotFound)?;
        if state.phase == RegionPhase::Active {
            Ok((region, state))
        } else {
            Err(DirectoryError::NotFound)
        }
    }

    /// Marks a region as being resized by this thread. `None` if it has that size already.
    fn begin_resize(
        &self,
        region: RegionId,
        state: RegionState,
        new: u64,
    ) -> Result<Option<Resize>, DirectoryError> {
        let entry = self.view.entry(region)?;
        let reserve = self.view.extent(entry)?.len();
        let old = entry[region_word::SIZE].load(Ordering::Relaxed);
        if new > reserve {
            return Err(DirectoryError::BeyondReserve { asked: new, reserve });
        }
        if old > reserve {
            return Err(Damage::new("the size of a region", old).into());
        }
        if new == old {
            return Ok(None);
        }
        let dirty = self.view.actor(region)?.flags().contains(LockFlags::INCONSISTENT);
        self.set_actor(region, self.me.owner().word().with_flags(LockFlags::INCONSISTENT))?;
        Point::ResizeMarked.reached();
        Ok(Some(Resize { region, flags: state.flags, old, new, dirty }))
    }

    /// Stores the smaller size of a region, if no peer maps it.
    fn grant_shrink(&self, resize: &Resize) -> Result<(), (Tail, DirectoryError)> {
        let untouched = if resize.dirty { Tail::Dirty } else { Tail::Clear };
        match self.try_shrink(resize) {
            Ok(true) => Ok(()),
            Ok(false) => Err((untouched, DirectoryError::Mapped)),
            Err(damage) => Err((Tail::Dirty, damage.into())),
        }
    }

    fn try_shrink(&self, resize: &Resize) -> Result<bool, Damage> {
        let Resize { region, old, new, .. } = *resize;
        let view = self.view;
        view.header_word(header_word::INTENT_OLD)?.store(old, Ordering::Release);
        view.header_word(header_word::INTENT_NEW)?.store(new, Ordering::Release);
        Point::ResizeSizes.reached();
        self.set_resize(region, IntentPhase::Trial)?;
        Point::ResizeIntent.reached();
        let size = &view.entry(region)?[region_word::SIZE];
        // SeqCst: pairs with a mapper, which counts itself and then reads the size; we store it and then count
        // (Dekker).
        size.store(new, Ordering::SeqCst);
        Point::ResizeTrial.reached();
        let granted = view.mappings(region) == 0;
        if granted {
            self.set_resize(region, IntentPhase::Granted)?;
            Point::ResizeGranted.reached();
        } else {
            size.store(old, Ordering::SeqCst);
            Point::ResizeUndone.reached();
        }
        self.set_intent(None)?;
        Ok(granted)
    }

    fn set_resize(&self, region: RegionId, phase: IntentPhase) -> Result<(), Damage> {
        self.set_intent(Some(Intent { kind: IntentKind::Resize, phase, region }))
    }
}
