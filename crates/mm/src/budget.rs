//! Budgets: how many pages may be in memory, and whose turn it is to go.

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic;

use crate::{
    Mmu, ObjectPage, Pages, Residents,
    atomic::{AtomicU64, Ordering},
    order::{Leaf, Ordered},
};

/// A limit to the pages in memory of the objects that were made with it. Clones are the same one.
pub struct Budget<M: Mmu> {
    pub(crate) core: Arc<BudgetCore<M>>,
}

impl<M: Mmu> Budget<M> {
    /// At most so many pages.
    #[must_use]
    pub fn limit(&self) -> Pages {
        Pages(self.core.limit())
    }

    /// Changes the limit. Pages above it go when the next is wanted, or by
    /// [`page_out`](crate::Manager::page_out).
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
    /// No other budget of the manager has this one.
    pub(crate) number: u64,
    limit: atomic::AtomicU64,
    pub(crate) places: ResidentCount,
    pub(crate) residents: Ordered<M::Mutex, Leaf, Residents<PageName>>,
}

impl<M: Mmu> BudgetCore<M> {
    pub(crate) fn new(number: u64, limit: Pages) -> Self {
        Self {
            number,
            limit: atomic::AtomicU64::new(limit.0),
            places: ResidentCount::new(),
            residents: Ordered::new(Residents::new()),
        }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(atomic::Ordering::Relaxed)
    }
}

/// The places of a budget. One is taken before its page has memory, and given back after the memory has gone.
pub(crate) struct ResidentCount {
    taken: AtomicU64,
    /// Pages that have got memory, and that have lost it, ever.
    filled: AtomicU64,
    emptied: AtomicU64,
}

/// How the places were at some time. If it is the same later, no page has got or lost memory in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    taken: u64,
    filled: u64,
    emptied: u64,
}

impl Tally {
    /// Whether `limit` pages have memory, and none is about to get it or has just lost it.
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

    /// Takes one, if fewer than `limit` are taken.
    pub(crate) fn take(&self, limit: u64) -> bool {
        let next = |taken| (taken < limit).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }

    /// The page of a place that was taken has got its memory.
    pub(crate) fn fill(&self) {
        self.filled.fetch_add(1, Ordering::Release);
    }

    /// A page has lost its memory: its place is free.
    pub(crate) fn empty(&self) {
        self.emptied.fetch_add(1, Ordering::Release);
        self.give_back();
    }

    /// A place that was taken is free; its page got no memory.
    pub(crate) fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::Release);
    }

    pub(crate) fn tally(&self) -> Tally {
        // Acquire: pairs with the Release of all three, so what is read first is not newer than what follows.
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
