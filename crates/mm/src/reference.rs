//! References, and the walk over all mappings of a page that takes no lock of any space.
//!
//! # What it owns
//! A [`Reference`] stands for one space that maps an object: it heads the list of the space's mappings of
//! that object, and lies in the object's list of references.
//!
//! # The walk
//! Eviction, write-back and resize begin with an object locked, and the lock order forbids to lock a space
//! after an object. So a walk reads these lists while spaces change them:
//! 1. The walk marks a slot `in_use`, then reads the reference's generation. If it has moved, the slot may have
//!    been unlinked before the mark and reused since: the walk restarts. If not, the slot was linked, and from
//!    the mark on it is not reused.
//! 2. Before the walk follows `next`, it reads the generation again, since the `next` of a slot that was unlinked
//!    meanwhile leads to free slots. If the generation has moved, the walk restarts.
//! 3. So a walk may visit a mapping several times, and after it has gone: what it does there must be harmless
//!    when repeated. It hands out only [`Reach`], which can take rights away and cannot give any.
//!
//! # Why no mapping is missed
//! - Translations are made with the object locked, so none is made while a walk runs: a mapping that is linked
//!   during the walk has none.
//! - A space takes all translations of a mapping away before it unlinks it.
//! - When a mapping is cut in two, the second part is linked before the first is made shorter. When a mapping
//!   absorbs its neighbour, it is made longer before the neighbour is unlinked. A walk that reads the shorter
//!   length sees the link to the rest, or, once the rest is unlinked, a generation that has moved.
//!
//! The published notes of QNX do not restart; such a walk strays onto the free list.

use alloc::sync::{Arc, Weak};

use crate::{
    Mmu, ObjectPage, ObjectSpan, Span, VirtualPage,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    object::ObjectCore,
    slots::{Extent, SlotId, Slots},
    space::SpaceCore,
};

#[cfg(all(test, loom))]
mod loom;

/// The list of a space's mappings of one object.
#[derive(Debug)]
pub(crate) struct List {
    slots: Arc<Slots>,
    head: AtomicU32,
    /// Moves before and after every unlinking.
    generation: AtomicU64,
    /// No access in this space may fault: write access must not be taken away.
    super_locked: AtomicBool,
}

/// One space that maps one object.
pub(crate) struct Reference<M: Mmu> {
    pub(crate) object: Arc<ObjectCore<M>>,
    pub(crate) space: Weak<SpaceCore<M>>,
    /// The number of that space.
    pub(crate) number: u64,
    pub(crate) machine: Arc<M::Space>,
    pub(crate) list: List,
}

impl List {
    pub(crate) fn new(slots: Arc<Slots>, super_locked: bool) -> Self {
        Self {
            slots,
            head: AtomicU32::new(0),
            generation: AtomicU64::new(0),
            super_locked: AtomicBool::new(super_locked),
        }
    }

    /// Whether the space has no mapping of the object left. Space locked.
    pub(crate) fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed) == 0
    }

    pub(crate) fn is_super_locked(&self) -> bool {
        // Acquire: pairs with the Release in `set_super_locked`, as in `Slot::is_locked`.
        self.super_locked.load(Ordering::Acquire)
    }

    pub(crate) fn set_super_locked(&self, super_locked: bool) {
        self.super_locked.store(super_locked, Ordering::Release);
    }

    /// Puts a slot at the head. Space locked to write.
    pub(crate) fn link(&self, id: SlotId) {
        let head = self.head.load(Ordering::Relaxed);
        let link = SlotId::to_link(Some(id));
        if let Some(slot) = self.slots.get(id) {
            slot.next.store(head, Ordering::Relaxed);
            slot.previous.store(0, Ordering::Relaxed);
        }
        if let Some(next) = self.slot(head) {
            next.previous.store(link, Ordering::Relaxed);
        }
        // Release: pairs with the Acquire in `walk_once`; a walk that finds the slot sees its contents.
        self.head.store(link, Ordering::Release);
    }

    /// Puts a slot behind another. Space locked to write.
    pub(crate) fn link_after(&self, before: SlotId, id: SlotId) {
        let (Some(first), Some(second)) = (self.slots.get(before), self.slots.get(id)) else {
            return;
        };
        let link = SlotId::to_link(Some(id));
        let next = first.next.load(Ordering::Relaxed);
        second.next.store(next, Ordering::Relaxed);
        second.previous.store(SlotId::to_link(Some(before)), Ordering::Relaxed);
        if let Some(next) = self.slot(next) {
            next.previous.store(link, Ordering::Relaxed);
        }
        // Release: as in `link`.
        first.next.store(link, Ordering::Release);
    }

    /// Takes a slot out of the list, and moves the generation. Space locked to write, and no translation of the
    /// mapping left.
    pub(crate) fn unlink(&self, id: SlotId) {
        let Some(slot) = self.slots.get(id) else { return };
        let next = slot.next.load(Ordering::Relaxed);
        let previous = slot.previous.load(Ordering::Relaxed);
        // Release, and before the link changes: a walk that reads the new link finds the generation moved, and
        // restarts. It may have read the mapping before this one at the length from before it absorbed this one.
        self.generation.fetch_add(1, Ordering::Release);
        match self.slot(previous) {
            Some(before) => before.next.store(next, Ordering::Release),
            None => self.head.store(next, Ordering::Release),
        }
        if let Some(after) = self.slot(next) {
            after.previous.store(previous, Ordering::Relaxed);
        }
        // SeqCst: pairs with the loads in `walk_once`; see `Slot::enter`.
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Calls `visit` at least once for each mapping in the list, with its pages and whether it is locked.
    pub(crate) fn walk(&self, mut visit: impl FnMut(Extent, bool)) {
        let mut attempt = 0_u32;
        while !self.walk_once(&mut visit) {
            // Another thread unmaps in this space: every restart means that one unmapping has made progress.
            attempt = attempt.saturating_add(1);
            pause(attempt);
        }
    }

    /// `false` if the walk must restart.
    fn walk_once(&self, visit: &mut impl FnMut(Extent, bool)) -> bool {
        // SeqCst: pairs with `unlink`.
        let generation = self.generation.load(Ordering::SeqCst);
        let mut link = self.head.load(Ordering::Acquire);
        while let Some(id) = SlotId::from_link(link) {
            let Some(slot) = self.slots.get(id) else { return false };
            slot.enter();
            let linked = self.generation.load(Ordering::SeqCst) == generation;
            if linked {
                visit(slot.extent(), slot.is_locked());
                // Acquire: pairs with the Release in `link_after`.
                link = slot.next.load(Ordering::Acquire);
            }
            let still = linked && self.generation.load(Ordering::SeqCst) == generation;
            slot.leave();
            if !still {
                return false;
            }
        }
        true
    }

    fn slot(&self, link: u32) -> Option<&crate::slots::Slot> {
        self.slots.get(SlotId::from_link(link)?)
    }
}

/// Yields under a model checker; otherwise only a spin hint.
fn pause(_attempt: u32) {
    #[cfg(loom)]
    ::loom::thread::yield_now();
    #[cfg(shuttle)]
    shuttle::thread::yield_now();
    core::hint::spin_loop();
}

/// A page of an object where a space shows it, as a walk visits it. Its methods can take rights away; none can
/// install a page:
///
/// ```
/// use commonhold_mm::{Mmu, Reach};
///
/// fn write_protect<M: Mmu>(reach: &Reach<'_, M>) {
///     reach.write_protect();
/// }
/// ```
///
/// ```compile_fail,E0599
/// use commonhold_mm::{Mmu, Reach, Writable};
///
/// fn give_back<M: Mmu>(reach: &Reach<'_, M>) {
///     reach.install(Writable::Yes);
/// }
/// ```
#[derive(Debug)]
pub struct Reach<'a, M: Mmu> {
    pub(crate) mmu: &'a M,
    pub(crate) space: &'a M::Space,
    pub(crate) object: &'a M::Object,
    pub(crate) at: VirtualPage,
    pub(crate) page: ObjectPage,
    pub(crate) locked: bool,
    pub(crate) super_locked: bool,
}

impl<M: Mmu> Reach<'_, M> {
    /// The page of the space.
    #[must_use]
    pub const fn at(&self) -> VirtualPage {
        self.at
    }

    /// The page of the object.
    #[must_use]
    pub const fn page(&self) -> ObjectPage {
        self.page
    }

    /// Whether the page must stay in memory for this mapping.
    #[must_use]
    pub const fn is_pinned(&self) -> bool {
        self.locked || self.super_locked
    }

    /// Whether no access here may fault: then no right may be taken away.
    #[must_use]
    pub const fn is_super_locked(&self) -> bool {
        self.super_locked
    }

    /// Makes writes here fault, once the walk is over. Does nothing in a super-locked space.
    pub fn write_protect(&self) {
        if !self.super_locked {
            self.mmu.write_protect(self.space, self.at, self.object, self.page);
        }
    }

    /// Makes all accesses here fault, once the walk is over. Does nothing in a super-locked space.
    pub fn remove(&self) {
        if !self.super_locked {
            self.mmu.remove(self.space, Span::one(self.at), self.object, self.page);
        }
    }
}

impl<M: Mmu> Reference<M> {
    /// Calls `visit` for each page of `span` that this space shows, and then flushes these translations from all
    /// processors. The object is locked.
    pub(crate) fn visit(&self, mmu: &M, span: ObjectSpan, mut visit: impl FnMut(&Reach<'_, M>)) {
        let super_locked = self.list.is_super_locked();
        self.list.walk(|extent, locked| {
            let pages = extent.of_object().intersection(&span);
            for page in pages.iter() {
                let (at, space) = (extent.place(page), &*self.machine);
                let object = &self.object.machine;
                visit(&Reach { mmu, space, object, at, page, locked, super_locked });
            }
            if !pages.is_empty() {
                mmu.flush(&self.machine, extent.places(&pages));
            }
        });
    }

    /// Takes away all translations of this space to pages of `span`, even if the space is super-locked: the pages
    /// are about to lose their memory. The object is locked.
    pub(crate) fn take_away(&self, mmu: &M, span: ObjectSpan) {
        self.list.walk(|extent, _| {
            let pages = extent.of_object().intersection(&span);
            if !pages.is_empty() {
                let at = extent.places(&pages);
                mmu.remove(&self.machine, at, &self.object.machine, pages.first());
                mmu.flush(&self.machine, at);
            }
        });
    }

    /// Whether this space wants some page of `span` in memory. The object is locked.
    pub(crate) fn pins(&self, span: ObjectSpan) -> bool {
        let super_locked = self.list.is_super_locked();
        let mut pinned = false;
        self.list.walk(|extent, locked| {
            pinned |=
                (locked || super_locked) && !extent.of_object().intersection(&span).is_empty();
        });
        pinned
    }
}

impl<M: Mmu> core::fmt::Debug for Reference<M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Reference").field("list", &self.list).finish_non_exhaustive()
    }
}
