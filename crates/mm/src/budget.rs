//! Budgets: how many pages may be in memory, which of them goes next, and which budget gives up a page when the total
//! is used up.
//!
//! A search must not look at each budget. So budgets stand in rings by *class* (`rings.rs`): the power of two of their
//! pages. The next budget of the highest class gives up a page, in turns; it has at least half as many pages as the
//! largest. Its turn costs the same however many budgets there are.
//!
//! # Invariants
//! 1. Every budget has a slot from its making to its drop, and stands in the ring of one class.
//! 2. A thread that takes a place and so raises a budget's class moves the budget before it waits for anything else. A
//!    budget with a lower class stays in its ring until its turn comes. So the class of a ring may be too high for some
//!    of its budgets.
//! 3. No correctness rests on a class: a [`Walk`] visits every slot.
//! 4. An `Arc` of a budget is never dropped under the lock of the list, since a budget takes that lock in its drop.

use alloc::sync::{Arc, Weak};
use core::fmt;
use core::sync::atomic;

use crate::{
    Error, Mmu, ObjectPage, Pages, Residents, Slot,
    atomic::{AtomicU64, Ordering},
    order::{Before, Leaf, Ordered, Token},
    rings::{Rings, Walk, class_of},
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

    /// Pages that must stay in memory, once they are in: those of locked mappings and of super-locked spaces, in
    /// all spaces. A page that several mappings lock counts once. They are never more than the limit was when they
    /// were locked.
    #[must_use]
    pub fn locked(&self) -> Pages {
        Pages(self.core.pinned.pages())
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
    pub(crate) pinned: PinnedCount,
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
            pinned: PinnedCount::new(),
            residents: Ordered::new(Residents::new()),
        })?;
        list.enlist(&core);
        Ok(core)
    }

    /// A page has lost its memory: `take_out` takes it off the list, and its places are free. Both under the list's lock: a
    /// search that found neither the page nor its place would find no memory. The machine is called before, since it
    /// may take long, and all objects of the budget need this lock.
    pub(crate) fn vacate<H: Before<Leaf>, R>(
        &self,
        total: &ResidentCount,
        held: &mut Token<'_, H>,
        place: Option<Slot>,
        take_out: fn(&mut Residents<PageName>, Slot) -> R,
    ) -> Option<R> {
        let (mut residents, _) = self.residents.lock(held);
        let taken_out = place.map(|place| take_out(&mut residents, place));
        // In this order: a search for a place of the total looks only at budgets that have pages.
        total.empty();
        self.places.empty();
        taken_out
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

/// All budgets of a manager.
pub(crate) struct Budgets<M: Mmu> {
    rings: Ordered<M::Mutex, Leaf, Rings<Weak<BudgetCore<M>>>>,
}

impl<M: Mmu> Budgets<M> {
    pub(crate) const fn new() -> Self {
        Self { rings: Ordered::new(Rings::new()) }
    }

    /// A slot for a budget that is about to be made.
    pub(crate) fn claim(&self) -> Result<u32, Error> {
        let mut nothing = Token::nothing_held();
        self.rings.lock(&mut nothing).0.add(Weak::new())
    }

    /// Puts the budget into its slot.
    pub(crate) fn enlist(&self, budget: &Arc<BudgetCore<M>>) {
        let mut nothing = Token::nothing_held();
        self.rings.lock(&mut nothing).0.put(budget.slot, Arc::downgrade(budget));
    }

    /// Frees a slot.
    pub(crate) fn strike(&self, slot: u32) {
        let mut nothing = Token::nothing_held();
        self.rings.lock(&mut nothing).0.remove(slot);
    }

    /// Moves a budget to the ring of its present class.
    pub(crate) fn sort(&self, budget: &BudgetCore<M>) {
        let mut nothing = Token::nothing_held();
        let (mut rings, _) = self.rings.lock(&mut nothing);
        let class = class_of(budget.places.taken());
        budget.note_class(class);
        rings.sort(budget.slot, class);
    }

    /// A budget of the highest class, in turns; `None` if all are empty. Nothing is locked.
    pub(crate) fn largest(&self) -> Option<Arc<BudgetCore<M>>> {
        // Each turn of the loop but the last lowers a budget that has shrunk since it was put into its ring.
        for _ in 0..=self.walk().left {
            let mut nothing = Token::nothing_held();
            let turn = self.rings.lock(&mut nothing).0.turn();
            let (class, budget) = turn?;
            // A budget that is being dropped has no pages; its slot is freed in a moment.
            let budget = budget.upgrade()?;
            if class_of(budget.places.taken()) >= class {
                return Some(budget);
            }
            self.sort(&budget);
        }
        None
    }

    /// A walk over all budgets. It begins behind the one that gave up a page in the last walk.
    pub(crate) fn walk(&self) -> Walk {
        let mut nothing = Token::nothing_held();
        self.rings.lock(&mut nothing).0.walk()
    }

    /// The next budget that has pages in memory. Nothing is locked.
    pub(crate) fn next(&self, walk: &mut Walk) -> Option<Arc<BudgetCore<M>>> {
        let upgraded = |walk: &mut Walk| {
            let mut nothing = Token::nothing_held();
            let (rings, _) = self.rings.lock(&mut nothing);
            core::iter::from_fn(|| rings.step(walk)).find_map(|budget| budget?.upgrade())
        };
        core::iter::from_fn(|| upgraded(walk)).find(|budget| budget.places.taken() > 0)
    }

    /// The next walk begins behind this budget.
    pub(crate) fn begin_behind(&self, budget: &BudgetCore<M>) {
        let mut nothing = Token::nothing_held();
        self.rings.lock(&mut nothing).0.cursor = budget.slot.saturating_add(1);
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

/// How many pages of a budget must stay in memory. They are counted before they are brought in (`pins.rs`).
pub(crate) struct PinnedCount(AtomicU64);

impl PinnedCount {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Counts `pages` more, if these are at most `limit` in all. No pages are always counted.
    pub(crate) fn take(&self, pages: u64, limit: u64) -> bool {
        let next = |pinned: u64| pinned.checked_add(pages).filter(|sum| *sum <= limit);
        // Relaxed: the count publishes nothing else.
        pages == 0 || self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }

    pub(crate) fn give_back(&self, pages: u64) {
        if pages > 0 {
            self.0.fetch_sub(pages, Ordering::Relaxed);
        }
    }

    pub(crate) fn pages(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
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

#[cfg(all(test, not(shuttle)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

    use crate::{
        Access, Context, Fault, Kind, Manager, MapRequest, Pages, Settings, VirtualPage,
        VirtualSpan, ZeroPager, soft::SoftMmu,
    };
    use alloc::sync::Arc;

    type Machine = SoftMmu<parking_lot::RawMutex, parking_lot::RawRwLock>;

    /// The bug: pages that were filled without a search for room left their budget in the ring of the empty ones, so a
    /// search looked at all budgets.
    #[test]
    fn a_budget_that_grows_without_a_search_is_found_as_the_largest() {
        let machine = Machine::new(16, 100, |_| ());
        let manager = Manager::new(machine, Settings::default()).unwrap();
        let [_small, large] = [10, 20].map(|pages| manager.budget(Pages(pages)).unwrap());
        let zeros =
            manager.object_within(&large, Kind::Anonymous, Pages(4), Arc::new(ZeroPager)).unwrap();
        let space = manager.space(VirtualSpan::new(VirtualPage::new(0), Pages(4)).unwrap());
        let space = space.unwrap();
        let at = space.map(&zeros, MapRequest::new(Pages(4))).unwrap();
        assert!(manager.core.budgets.largest().is_none());
        for page in at.iter() {
            assert_eq!(space.fault(page, Access::Write, Context::Normal), Fault::Pulsed);
            assert!(manager.serve());
        }
        let found = manager.core.budgets.largest().unwrap();
        assert!(Arc::ptr_eq(&found, &large.core));
    }
}
