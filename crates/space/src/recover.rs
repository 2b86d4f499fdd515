//! Recovery of the directory, by the next holder of its mutex after the last one died with it.
//!
//! The intent record says what was under way. If that was a resize, recovery decides which size counts. Then, in any
//! case, it builds all links anew from the entries that are not free. The recovering thread may die too: the intent
//! stands until the end, so the next one does it all again.
//!
//! Nothing here makes a system call. Memory that a dead peer left is released later (`settle.rs`), and a hint
//! is raised for it.

use core::sync::atomic::Ordering;

use commonhold_layout::{
    Damage, Extent, Intent, IntentKind, IntentPhase, LockFlags, RegionId, RegionPhase, header_word,
    region_word,
};
use commonhold_window::Point;

use crate::{DirectoryError, Platform, directory::Directory};

impl<P: Platform> Directory<'_, P> {
    /// Repairs the directory.
    pub(crate) fn recover(&self) -> Result<(), DirectoryError> {
        Point::RecoverBegins.reached();
        let word = self.view.header_word(header_word::INTENT)?.load(Ordering::Acquire);
        let odd = !self
            .view
            .header_word(header_word::CHAIN_SEQUENCE)?
            .load(Ordering::Relaxed)
            .is_multiple_of(2);
        // The dead holder may have cleared the hint, and then looked at only some of the entries.
        self.view
            .header_word(header_word::DEFERRED_HINT)?
            .store(crate::settle::SEVERAL, Ordering::SeqCst);
        let intent = Intent::read(word);
        if intent.is_none() && !odd {
            return Ok(());
        }
        if let Some(intent) = intent.filter(|intent| intent.kind == IntentKind::Resize) {
            self.recover_resize(intent)?;
        }
        Point::RecoverResized.reached();
        self.rebuild_links(intent.map_or(RegionId::new(0), |intent| intent.region))?;
        Point::RecoverCleared.reached();
        Ok(())
    }

    fn recover_resize(&self, intent: Intent) -> Result<(), DirectoryError> {
        let view = self.view;
        let Ok(entry) = view.entry(intent.region) else { return Ok(()) };
        let state = view.region_state(intent.region)?;
        let reserve = entry[region_word::RESERVE].load(Ordering::Relaxed);
        let old = view.header_word(header_word::INTENT_OLD)?.load(Ordering::Relaxed);
        let new = view.header_word(header_word::INTENT_NEW)?.load(Ordering::Relaxed);
        // A region that was made deferred meanwhile still has mappers, which look at its size.
        let stands = matches!(state.phase, RegionPhase::Active | RegionPhase::Destroying);
        if !stands || old > reserve || new > reserve {
            return Ok(());
        }
        let size = match intent.phase {
            IntentPhase::Trial => old,
            IntentPhase::Granted => new,
        };
        // The thread that marked it is dead. The thread that takes over its duty clears the bytes beyond the size,
        // without the mutex.
        let actor = view.actor(intent.region)?;
        self.set_actor(
            intent.region,
            actor.with_flags(actor.flags().with(LockFlags::INCONSISTENT)),
        )?;
        entry[region_word::SIZE].store(size, Ordering::SeqCst);
        Point::RecoverSized.reached();
        Ok(view.raise_hint(intent.region)?)
    }

    /// Builds the chains and the order of extents from the entries.
    fn rebuild_links(&self, region: RegionId) -> Result<(), Damage> {
        let view = self.view;
        self.begin_links(region)?;
        view.window()
            .zero(view.geometry().bucket_table())
            .map_err(|error| Damage::new("an offset", error.offset))?;
        view.header_word(header_word::EXTENT_HEAD)?.store(0, Ordering::Relaxed);
        view.header_word(header_word::EXTENT_CURSOR)?.store(0, Ordering::Relaxed);
        Point::RecoverChainsCleared.reached();
        let mut sorter = Sorter { directory: self, bins: [0; 32] };
        for index in 0..view.regions_used()? {
            let region = RegionId::new(index);
            // A damaged entry is skipped: no peer can find or map it, and the others are whole.
            let Ok(state) = view.region_state(region) else { continue };
            if state.phase == RegionPhase::Free {
                continue;
            }
            self.chain(region)?;
            if view.extent(view.entry(region)?).is_ok_and(|extent| !extent.is_empty()) {
                sorter.add(region)?;
            }
        }
        let head = sorter.finish()?;
        view.header_word(header_word::EXTENT_HEAD)?.store(head, Ordering::Relaxed);
        let mut previous = 0;
        let mut link = head;
        for _ in 0..=view.geometry().regions() {
            let Some(region) = view.geometry().link(link, "the order of extents")? else { break };
            let entry = view.entry(region)?;
            entry[region_word::PREVIOUS_EXTENT].store(previous, Ordering::Relaxed);
            previous = link;
            link = entry[region_word::NEXT_EXTENT].load(Ordering::Relaxed);
        }
        Point::RecoverLinked.reached();
        self.end_links()
    }
}

/// A merge sort of entries by address, in place: lists are linked by the `NEXT_EXTENT` words, and bin `n`
/// has a sorted list of `2^n` entries (Knuth, The Art of Computer Programming 3, 5.2.4).
struct Sorter<'a, 'd, P: Platform> {
    directory: &'a Directory<'d, P>,
    bins: [u64; 32],
}

impl<P: Platform> Sorter<'_, '_, P> {
    fn add(&mut self, region: RegionId) -> Result<(), Damage> {
        self.directory.view.entry(region)?[region_word::NEXT_EXTENT].store(0, Ordering::Relaxed);
        let mut list = region.link();
        for index in 0..self.bins.len() {
            let held = self.bins.get_mut(index).map_or(0, core::mem::take);
            if held == 0 {
                if let Some(bin) = self.bins.get_mut(index) {
                    *bin = list;
                }
                return Ok(());
            }
            list = self.merge(held, list)?;
        }
        Err(Damage::new("the number of used regions", list))
    }

    fn finish(&mut self) -> Result<u64, Damage> {
        let mut all = 0;
        for list in core::mem::take(&mut self.bins) {
            all = self.merge(list, all)?;
        }
        Ok(all)
    }

    fn merge(&self, mut left: u64, mut right: u64) -> Result<u64, Damage> {
        let view = self.directory.view;
        let mut head = 0;
        let mut tail: Option<RegionId> = None;
        for _ in 0..=view.geometry().regions() {
            let Some((region, from_left)) = self.lower(left, right)? else { return Ok(head) };
            let next = view.entry(region)?[region_word::NEXT_EXTENT].load(Ordering::Relaxed);
            match tail {
                None => head = region.link(),
                Some(tail) => view.entry(tail)?[region_word::NEXT_EXTENT]
                    .store(region.link(), Ordering::Relaxed),
            }
            tail = Some(region);
            if from_left {
                left = next;
            } else {
                right = next;
            }
        }
        Err(Damage::new("the order of extents", head))
    }

    /// The head of two lists that comes first by address, and whether it is the left one.
    fn lower(&self, left: u64, right: u64) -> Result<Option<(RegionId, bool)>, Damage> {
        let view = self.directory.view;
        let field = "the order of extents";
        let start =
            |region: RegionId| -> Result<Extent, Damage> { view.extent(view.entry(region)?) };
        Ok(match (view.geometry().link(left, field)?, view.geometry().link(right, field)?) {
            (None, None) => None,
            (Some(region), None) => Some((region, true)),
            (None, Some(region)) => Some((region, false)),
            (Some(a), Some(b)) => {
                let first = start(a)?.start() <= start(b)?.start();
                Some(if first { (a, true) } else { (b, false) })
            }
        })
    }
}
