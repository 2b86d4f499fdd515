//! Budgets: how many pages may be in memory, and which of them goes next.

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic;

use crate::{
    Error, Mmu, ObjectPage, Pages, Residents,
    atomic::{AtomicU64, Ordering},
    budgets::{Budgets, class_of},
    order::{Leaf, Ordered},
    share::share,
};

/// A limit to the pages in memory, for the objects that are made with it. Clones are the same one.
pub struct Budget<M: Mmu> {
    pub(crate) core: Arc<BudgetCore<M>>,
}

impl<M: Mmu> Budget<M> {
    /// The most pages that may be in memory.
    #[must_use]
    pub fn limit(&self) -> Pages {
        Pages(self.core.limit())
    }

    /// Changes the limit. A limit below [`resident`](Self::resident) evicts nothing: the pages above it stay until the
    /// next page is needed, or until [`page_out`](crate::Manager::page_out). Locked pages stay in any case.
    pub fn set_limit(&self, pages: Pages) {
        self.core.limit.store(pages.0, atomic::Ordering::Relaxed);
    }

    /// Pages in memory.
    #[must_use]
    pub fn resident(&self) -> Pages {
        Pages(self.core.places.taken())
    }
}

/// A page, by the number of its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageName {
    pub(crate) object: u64,
    pub(crate) page: ObjectPage,
}

pub(crate) struct BudgetCore<M: Mmu> {
    /// The list that it stands in, and its place there.
    list: Arc<Budgets<M>>,
    pub(crate) slot: u32,
    /// The class by which it stands there. Changes under the list's lock.
    class: atomic::AtomicU32,
    limit: atomic::AtomicU64,
    pub(crate) places: ResidentCount,
    pub(crate) residents: Ordered<M::Mutex, Leaf, Residents<PageName>>,
}

impl<M: Mmu> BudgetCore<M> {
    /// A budget without pages, in the list.
    pub(crate) fn new(list: &Arc<Budgets<M>>, limit: Pages) -> Result<Arc<Self>, Error> {
        let core = share(Self {
            slot: list.claim()?,
            list: Arc::clone(list),
            class: atomic::AtomicU32::new(0),
            limit: atomic::AtomicU64::new(limit.0),
            places: ResidentCount::new(),
            residents: Ordered::new(Residents::new()),
        })?;
        list.enlist(&core);
        Ok(core)
    }

    /// Notes the class by which it stands in the list. The list is locked.
    pub(crate) fn note_class(&self, class: u32) {
        self.class.store(class, atomic::Ordering::Relaxed);
    }

    /// Moves it in the list, if places that were taken since have raised its class. Nothing is locked.
    pub(crate) fn sort_if_grown(&self) {
        if class_of(self.places.taken()) > self.class.load(atomic::Ordering::Relaxed) {
            self.list.sort(self);
        }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(atomic::Ordering::Relaxed)
    }
}

impl<M: Mmu> Drop for BudgetCore<M> {
    fn drop(&mut self) {
        self.list.strike(self.slot);
    }
}

/// The places of a budget. A place is taken before its page gets memory, and given back after the page has lost it.
pub(crate) struct ResidentCount {
    taken: AtomicU64,
    /// How many pages have ever got memory.
    filled: AtomicU64,
    /// How many pages have ever lost it.
    emptied: AtomicU64,
}

/// A snapshot of the counts. If a later one is equal, no page has got or lost memory in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    taken: u64,
    filled: u64,
    emptied: u64,
}

impl Tally {
    /// Whether at least `limit` places are taken, and each by a page that has memory: none is about to get memory,
    /// or has just lost it.
    pub(crate) const fn is_full(&self, limit: u64) -> bool {
        self.taken >= limit && self.taken == self.filled.wrapping_sub(self.emptied)
    }
}

impl ResidentCount {
    pub(crate) fn new() -> Self {
        Self { taken: AtomicU64::new(0), filled: AtomicU64::new(0), emptied: AtomicU64::new(0) }
    }

    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Takes a place, if fewer than `limit` are taken.
    pub(crate) fn take(&self, limit: u64) -> bool {
        let next = |taken| (taken < limit).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }

    /// Counts a page that has got memory, for a place that was taken before.
    pub(crate) fn fill(&self) {
        self.filled.fetch_add(1, Ordering::Release);
    }

    /// Counts a page that has lost its memory, and frees its place.
    pub(crate) fn empty(&self) {
        self.emptied.fetch_add(1, Ordering::Release);
        self.give_back();
    }

    /// Frees a place.
    pub(crate) fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::Release);
    }

    pub(crate) fn tally(&self) -> Tally {
        // Acquire: pairs with the Release in `fill`, `empty` and `give_back`, so each count that is read is at least
        // as new as the one before.
        let taken = self.taken.load(Ordering::Acquire);
        let filled = self.filled.load(Ordering::Acquire);
        Tally { taken, filled, emptied: self.emptied.load(Ordering::Acquire) }
    }
}

impl<M: Mmu> Clone for Budget<M> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core) }
    }
}

impl<M: Mmu> fmt::Debug for Budget<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("limit", &self.limit()).finish_non_exhaustive()
    }
}
