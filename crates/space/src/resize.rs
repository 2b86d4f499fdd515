//! Resizing a region within its reserve: under the directory mutex, by way of the intent record.

use core::sync::atomic::Ordering;

use commonhold_layout::{
    Damage, Intent, IntentKind, IntentPhase, Name, RegionFlags, RegionId, RegionState, align_up,
    header_word, region_word,
};
use commonhold_sync::{Thread, Verdict};
use commonhold_window::Point;

use crate::{DirectoryError, Platform, Space, directory::Directory};

impl<P: Platform> Space<P> {
    /// Gives the region of a name another size. Mappings see it when they look again.
    ///
    /// # Errors
    /// [`DirectoryError::BeyondReserve`]; [`DirectoryError::Mapped`] if it is to shrink while anybody
    /// maps it; [`DirectoryError::Medium`] if there is no memory. The size is as before then.
    pub fn resize(&self, me: &Thread<'_>, name: &Name, size: u64) -> Result<(), DirectoryError> {
        let directory = self.view().directory(me)?;
        let (region, state) = self.find_active(&directory, name)?;
        let entry = self.view().entry(region)?;
        let reserve = self.view().extent(entry)?.len();
        let old = entry[region_word::SIZE].load(Ordering::Relaxed);
        if size > reserve {
            return Err(DirectoryError::BeyondReserve { asked: size, reserve });
        }
        if old > reserve {
            return Err(Damage::new("the size of a region", old).into());
        }
        if size == old {
            return Ok(());
        }
        directory.begin_resize(region, old, size)?;
        if size > old {
            directory.grow(region, state, old, size)
        } else {
            self.shrink(&directory, region, state, old, size)
        }
    }

    fn shrink(
        &self,
        directory: &Directory<'_, P>,
        region: RegionId,
        state: RegionState,
        old: u64,
        new: u64,
    ) -> Result<(), DirectoryError> {
        let view = self.view();
        let size = &view.entry(region)?[region_word::SIZE];
        // SeqCst: a mapper counts itself and then reads the size; we write it and then count (Dekker).
        size.store(new, Ordering::SeqCst);
        Point::ResizeTrial.reached();
        for (mapper, _) in view.mappers(region) {
            let _: Verdict = view.verdict_of(mapper);
        }
        if view.mappings(region) > 0 {
            size.store(old, Ordering::SeqCst);
            Point::ResizeUndone.reached();
            directory.set_intent(None)?;
            return Err(DirectoryError::Mapped);
        }
        directory.set_resize(region, IntentPhase::Granted)?;
        Point::ResizeGranted.reached();
        if let Err(error) = directory.clear_tail(region, new, old, state.flags) {
            // What could not be cleared must not come back when the region grows again.
            size.store(old, Ordering::SeqCst);
            Point::ResizeUndone.reached();
            directory.set_intent(None)?;
            return Err(error);
        }
        Point::ResizeReleased.reached();
        Ok(directory.set_intent(None)?)
    }
}

impl<P: Platform> Directory<'_, P> {
    fn begin_resize(&self, region: RegionId, old: u64, new: u64) -> Result<(), DirectoryError> {
        self.view.header_word(header_word::INTENT_OLD)?.store(old, Ordering::Release);
        self.view.header_word(header_word::INTENT_NEW)?.store(new, Ordering::Release);
        Point::ResizeSizes.reached();
        self.set_resize(region, IntentPhase::Trial)?;
        Point::ResizeIntent.reached();
        Ok(())
    }

    fn set_resize(&self, region: RegionId, phase: IntentPhase) -> Result<(), DirectoryError> {
        Ok(self.set_intent(Some(Intent { kind: IntentKind::Resize, phase, region }))?)
    }

    fn grow(
        &self,
        region: RegionId,
        state: RegionState,
        old: u64,
        new: u64,
    ) -> Result<(), DirectoryError> {
        let entry = self.view.entry(region)?;
        let extent = self.view.extent(entry)?;
        let page = self.view.geometry().page();
        let tail = align_up(old, page)
            .zip(align_up(new, page))
            .and_then(|(from, to)| extent.part(from, to.saturating_sub(from)));
        let tail = tail.ok_or(Damage::new("the size of a region", new))?;
        if !state.flags.contains(RegionFlags::LAZY)
            && !tail.is_empty()
            && let Err(error) = self.view.platform().commit(tail)
        {
            self.view.release(tail)?;
            self.set_intent(None)?;
            return Err(error.into());
        }
        Point::ResizeCommitted.reached();
        self.set_resize(region, IntentPhase::Granted)?;
        Point::ResizeGranted.reached();
        entry[region_word::SIZE].store(new, Ordering::SeqCst);
        Point::ResizeReleased.reached();
        Ok(self.set_intent(None)?)
    }
}
