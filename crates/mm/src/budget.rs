//! Budgets: how many pages may be in memory, and whose turn it is to go.

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::{
    Mmu, ObjectPage, Pages, Residents,
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
        self.core.limit.store(pages.0, Ordering::Relaxed);
    }

    /// Pages in memory.
    #[must_use]
    pub fn resident(&self) -> Pages {
        Pages(self.core.used.load(Ordering::Relaxed))
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
    limit: AtomicU64,
    used: AtomicU64,
    pub(crate) residents: Ordered<M::Mutex, Leaf, Residents<PageName>>,
}

impl<M: Mmu> BudgetCore<M> {
    pub(crate) const fn new(number: u64, limit: Pages) -> Self {
        Self {
            number,
            limit: AtomicU64::new(limit.0),
            used: AtomicU64::new(0),
            residents: Ordered::new(Residents::new()),
        }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Counts one page more, if there may be one.
    pub(crate) fn take(&self) -> bool {
        take(&self.used, self.limit())
    }

    /// Counts one page less.
    pub(crate) fn give_back(&self) {
        self.used.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts one more in `used`, up to `limit`.
pub(crate) fn take(used: &AtomicU64, limit: u64) -> bool {
    let next = |used| (used < limit).then_some(used + 1);
    used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
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
