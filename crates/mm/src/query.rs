//! Query: the state of pages, and the counts of spaces and objects.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::{
    AddressSpace, Fault, FaultError, Mmu, Object, ObjectPage, Pages, Protection, Span, State,
    VirtualPage, order::Token,
};

/// The state of one page of a space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageInfo {
    /// The [number](Object::number) of its object.
    pub object: u64,
    /// Which page of its object it shows.
    pub page: ObjectPage,
    /// Its state; `None` if the object has been cut and the page lies past its end.
    pub state: Option<State>,
    /// It has been faulted on since the page-out last looked at it.
    pub referenced: bool,
    /// Its mapping is locked, or the space super-locked.
    pub locked: bool,
    /// Its mapping is lazy.
    pub lazy: bool,
    /// What its mapping permits.
    pub protection: Protection,
}

/// Totals of a space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpaceTotals {
    /// Mappings; a part with attributes of its own counts as one.
    pub mappings: usize,
    /// Mapped pages.
    pub mapped: Pages,
    /// Mapped pages that are in memory.
    pub resident: Pages,
    /// Mapped pages that have changed since the pager last read or wrote them.
    pub dirty: Pages,
    /// Pages in locked mappings; all mapped pages in a super-locked space.
    pub locked: Pages,
    /// Faults.
    pub faults: FaultCounts,
}

/// Faults of a space, by result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultCounts {
    /// Resolved at once.
    pub fast: u64,
    /// Queued as a pulse, or merged with one.
    pub pulsed: u64,
    /// Not queued, because the queue was full.
    pub full: u64,
    /// Failed at once.
    pub refused: u64,
    /// Pulses that were served.
    pub served: u64,
    /// Pulses that ended with an error.
    pub failed: u64,
    /// Pulses whose mapping was taken away.
    pub cancelled: u64,
}

/// Totals of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ObjectTotals {
    /// Its size in pages.
    pub pages: Pages,
    /// Pages in memory.
    pub resident: Pages,
    /// Pages that have changed since the pager last read or wrote them.
    pub dirty: Pages,
    /// Pages that its pager keeps compressed.
    pub compressed: Pages,
    /// Pages that the pager failed to read.
    pub bad: Pages,
    /// Spaces that map it.
    pub spaces: usize,
    /// How often a page was brought in, since the object was made.
    pub filled: u64,
    /// How often a page was evicted.
    pub evicted: u64,
    /// How often a page was written to the pager.
    pub written: u64,
    /// How often bringing a page in, or writing it, failed.
    pub failed: u64,
}

/// Counters of a space.
#[derive(Debug, Default)]
pub(crate) struct SpaceCounts {
    fast: AtomicU64,
    pulsed: AtomicU64,
    full: AtomicU64,
    refused: AtomicU64,
    served: AtomicU64,
    failed: AtomicU64,
    cancelled: AtomicU64,
}

impl SpaceCounts {
    #[inline]
    pub(crate) fn count(&self, fault: Fault) {
        let counter = match fault {
            Fault::Resolved => &self.fast,
            Fault::Pulsed => &self.pulsed,
            Fault::Full => &self.full,
            Fault::Failed(_) => &self.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn serve(&self, result: Result<(), FaultError>) {
        let counter = if result.is_ok() { &self.served } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn cancel(&self) {
        self.cancelled.fetch_add(1, Ordering::Relaxed);
    }

    fn totals(&self) -> FaultCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FaultCounts {
            fast: read(&self.fast),
            pulsed: read(&self.pulsed),
            full: read(&self.full),
            refused: read(&self.refused),
            served: read(&self.served),
            failed: read(&self.failed),
            cancelled: read(&self.cancelled),
        }
    }
}

impl<M: Mmu> AddressSpace<M> {
    /// The state of the page `at`; `None` if nothing is mapped there.
    #[must_use]
    pub fn query(&self, at: VirtualPage) -> Option<PageInfo> {
        let mut nothing = Token::nothing_held();
        let (state, mut in_space) = self.core.state.read(&mut nothing);
        let mapping = state.mapping(at)?;
        let page = mapping.extent.page(at);
        let (of_object, _) = mapping.reference.object.state.lock(&mut in_space);
        let entry = of_object.page(page);
        Some(PageInfo {
            object: mapping.reference.object.number,
            page,
            state: entry.map(|entry| entry.state),
            referenced: entry.is_some_and(|entry| entry.referenced),
            locked: mapping.residency.is_locked() || state.super_locked,
            lazy: mapping.lazy,
            protection: mapping.protection,
        })
    }

    /// Whether the space is super-locked.
    #[must_use]
    pub fn is_super_locked(&self) -> bool {
        let mut nothing = Token::nothing_held();
        self.core.state.read(&mut nothing).0.super_locked
    }

    /// Totals of the space. Takes time in proportion to the mappings and to their pages that were ever touched. No
    /// object is locked for long, so pages may change while others are counted.
    #[must_use]
    pub fn totals(&self) -> SpaceTotals {
        let mut nothing = Token::nothing_held();
        let (state, mut in_space) = self.core.state.read(&mut nothing);
        let faults = self.core.counts.totals();
        let mut totals =
            SpaceTotals { mappings: state.mappings.len(), faults, ..Default::default() };
        for mapping in state.mappings.from(0) {
            let pages = mapping.extent.at.pages().0;
            totals.mapped.0 += pages;
            if mapping.residency.is_locked() || state.super_locked {
                totals.locked.0 += pages;
            }
            mapping.reference.object.each_touched(
                &mut in_space,
                mapping.extent.of_object(),
                |page| {
                    totals.resident.0 += u64::from(page.state.is_resident());
                    totals.dirty.0 +=
                        u64::from(matches!(page.state, State::Dirty | State::Evicting));
                },
            );
        }
        totals
    }
}

impl<M: Mmu> Object<M> {
    /// The state of the page; `None` if it lies past the object's end.
    #[must_use]
    pub fn state(&self, page: ObjectPage) -> Option<State> {
        let mut nothing = Token::nothing_held();
        let (state, _) = self.core.state.lock(&mut nothing);
        state.page(page).map(|entry| entry.state)
    }

    /// Totals of the object. Takes time in proportion to the pages that were ever touched. The object is not locked
    /// for long, so pages may change while others are counted.
    #[must_use]
    pub fn totals(&self) -> ObjectTotals {
        let mut nothing = Token::nothing_held();
        let (size, spaces) = {
            let (state, _) = self.core.state.lock(&mut nothing);
            (state.size, state.references.len())
        };
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.core.counts;
        let mut totals = ObjectTotals {
            pages: Pages(size),
            spaces,
            filled: read(&counts.filled),
            evicted: read(&counts.evicted),
            written: read(&counts.written),
            failed: read(&counts.failed),
            ..Default::default()
        };
        let all = Span::between(ObjectPage::new(0), ObjectPage::new(size));
        self.core.each_touched(&mut nothing, all, |page| {
            totals.resident.0 += u64::from(page.state.is_resident());
            match page.state {
                State::Dirty | State::Evicting => totals.dirty.0 += 1,
                State::Compressed => totals.compressed.0 += 1,
                State::Bad => totals.bad.0 += 1,
                State::Absent | State::Filling | State::Clean => {}
            }
        });
        totals
    }
}
