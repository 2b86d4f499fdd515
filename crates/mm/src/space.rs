//! Address spaces: their mappings, which show pages of objects.
//!
//! # What it owns
//! The mappings of a space by address, its references to objects, its slots, and whether the whole space is
//! super-locked; all under one reader/writer lock. Faults take it to read; an operation that changes a mapping
//! takes it to write.
//!
//! # Invariants
//! 1. Mappings do not overlap, and each has a slot with the same contents.
//! 2. The space has one reference for each object that it maps, and no other. It is also in the object's list.
//! 3. To give a part of a mapping other attributes, an operation splits the mapping first. A split has no visible
//!    effect, so an operation that fails after it has changed nothing.

use alloc::{
    sync::{Arc, Weak},
    vec::Vec,
};
use core::fmt;

use crate::{
    Error, Mmu, ObjectPage, ObjectSpan, Protection, Span, VirtualPage, VirtualSpan,
    index::Index,
    manager::Core,
    object::ObjectCore,
    order::{self, OrderedRw, Token},
    query::SpaceCounts,
    reference::Reference,
    share::share,
    slots::{Extent, FreeList, SlotId, Slots},
};

/// An address space. Clones are the same one; dropping the last one unmaps everything.
pub struct AddressSpace<M: Mmu> {
    pub(crate) core: Arc<SpaceCore<M>>,
}

pub(crate) struct SpaceCore<M: Mmu> {
    pub(crate) number: u64,
    pub(crate) manager: Arc<Core<M>>,
    pub(crate) machine: Arc<M::Space>,
    /// All mappings lie in here.
    pub(crate) span: VirtualSpan,
    pub(crate) slots: Arc<Slots>,
    pub(crate) state: OrderedRw<M::RwLock, order::Space, SpaceState<M>>,
    pub(crate) counts: SpaceCounts,
}

/// What the lock of a space guards.
pub(crate) struct SpaceState<M: Mmu> {
    pub(crate) mappings: Index<Mapping<M>>,
    /// By rising numbers of their objects.
    pub(crate) references: Vec<Arc<Reference<M>>>,
    pub(crate) free: FreeList,
    pub(crate) super_locked: bool,
    /// How many privileges to do I/O there are. The space is super-locked while there is one.
    pub(crate) privileges: u64,
    /// Pages of all mappings.
    pub(crate) mapped: u64,
    /// Pages of locked mappings.
    pub(crate) locked: u64,
    /// The most pages that may be locked.
    pub(crate) locked_limit: u64,
    /// New mappings are locked.
    pub(crate) lock_future: bool,
    /// Where to look for a gap first.
    pub(crate) hint: u64,
}

/// What a mapping shows: enough to recognise it, or parts of it, after the lock was given up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ObjectView {
    /// The object's number.
    pub(crate) object: u64,
    pub(crate) extent: Extent,
}

/// Pages of an object.
pub(crate) type Shown<M> = (Arc<ObjectCore<M>>, ObjectSpan);

/// A mapping.
pub(crate) struct Mapping<M: Mmu> {
    pub(crate) extent: Extent,
    pub(crate) protection: Protection,
    pub(crate) lazy: bool,
    pub(crate) locked: bool,
    pub(crate) slot: SlotId,
    pub(crate) reference: Arc<Reference<M>>,
}

impl<M: Mmu> AddressSpace<M> {
    pub(crate) fn new(manager: &Arc<Core<M>>, span: VirtualSpan) -> Result<Self, Error> {
        if span.is_empty() {
            return Err(Error::BadSpan);
        }
        let state = SpaceState {
            mappings: Index::new(),
            references: Vec::new(),
            free: FreeList::default(),
            super_locked: false,
            privileges: 0,
            mapped: 0,
            locked: 0,
            locked_limit: u64::MAX,
            lock_future: false,
            hint: span.first().number(),
        };
        let core = SpaceCore {
            number: manager.number(),
            manager: Arc::clone(manager),
            machine: share(manager.mmu.new_space(span)?)?,
            span,
            slots: share(Slots::new())?,
            state: OrderedRw::new(state),
            counts: SpaceCounts::default(),
        };
        Ok(Self { core: share(core)? })
    }

    /// The pages that can be mapped.
    #[must_use]
    pub fn span(&self) -> VirtualSpan {
        self.core.span
    }

    /// The machine's part of it.
    #[must_use]
    pub fn machine(&self) -> &M::Space {
        &self.core.machine
    }
}

impl<M: Mmu> SpaceState<M> {
    /// The mapping that shows something at `at`.
    #[inline]
    pub(crate) fn mapping(&self, at: VirtualPage) -> Option<&Mapping<M>> {
        let mapping = self.mappings.at_or_before(at.number())?;
        mapping.extent.at.contains(at).then_some(mapping)
    }

    /// The mappings that show something in `span`, in order.
    pub(crate) fn mappings_in(&self, span: VirtualSpan) -> impl Iterator<Item = &Mapping<M>> {
        let first = self.mapping(span.first()).map_or(span.first(), |m| m.extent.at.first());
        self.mappings.from(first.number()).take_while(move |m| m.extent.at.first() < span.end())
    }

    /// Checks that `span` has no gap.
    pub(crate) fn all_mapped(&self, span: VirtualSpan) -> Result<(), Error> {
        let mut at = span.first();
        for mapping in self.mappings_in(span) {
            if !mapping.extent.at.contains(at) {
                break;
            }
            at = mapping.extent.at.end();
        }
        if at < span.end() { Err(Error::NotMapped { at }) } else { Ok(()) }
    }

    pub(crate) fn reference(&self, object: u64) -> Result<usize, usize> {
        self.references.binary_search_by_key(&object, |reference| reference.object.number)
    }
}

impl<M: Mmu> SpaceCore<M> {
    /// Checks that `span` has pages, and that all of them are in this space.
    pub(crate) fn check(&self, span: VirtualSpan) -> Result<(), Error> {
        let inside = self.span.intersection(&span) == span;
        if span.is_empty() || !inside { Err(Error::BadSpan) } else { Ok(()) }
    }

    /// Splits mappings so that none reaches across an end of `span`.
    pub(crate) fn split_ends(
        &self,
        state: &mut SpaceState<M>,
        span: VirtualSpan,
    ) -> Result<(), Error> {
        self.split(state, span.first())?;
        self.split(state, span.end())
    }

    /// Splits the mapping that shows pages both before and at `at`, if there is one.
    fn split(&self, state: &mut SpaceState<M>, at: VirtualPage) -> Result<(), Error> {
        let Some(whole) = state.mapping(at) else { return Ok(()) };
        if whole.extent.at.first() == at {
            return Ok(());
        }
        let (first, slot, list) =
            (whole.extent.at.first(), whole.slot, Arc::clone(&whole.reference));
        let tail =
            Extent { at: Span::between(at, whole.extent.at.end()), first: whole.extent.page(at) };
        let mut part = Mapping {
            extent: tail,
            slot,
            reference: Arc::clone(&list),
            protection: whole.protection,
            lazy: whole.lazy,
            locked: whole.locked,
        };
        part.slot = self.slots.allocate(&mut state.free, tail)?;
        let (new, locked) = (part.slot, part.locked);
        if let Err(error) = state.mappings.insert(at.number(), part) {
            self.slots.free(&mut state.free, new);
            return Err(error);
        }
        if let Some(slot) = self.slots.get(new) {
            slot.set_locked(locked);
        }
        // The tail is linked before the head is made shorter, so a walk finds each page in one or both.
        list.list.link_after(slot, new);
        self.set_end(state, first, at);
        Ok(())
    }

    /// Lets the mapping that begins at `first` end at `end`.
    fn set_end(&self, state: &mut SpaceState<M>, first: VirtualPage, end: VirtualPage) {
        if let Some(mapping) = state.mappings.at_or_before_mut(first.number()) {
            mapping.extent.at = Span::between(first, end);
            if let Some(slot) = self.slots.get(mapping.slot) {
                slot.set_pages(mapping.extent.at.pages().0);
            }
        }
    }

    /// Joins neighbours in and beside `span` that have the same attributes and show consecutive pages.
    pub(crate) fn join(&self, state: &mut SpaceState<M>, span: VirtualSpan) {
        let before = VirtualPage::new(span.first().number().saturating_sub(1));
        let mut at = state.mapping(before).map_or(span.first(), |m| m.extent.at.first());
        while at < span.end() {
            let Some(mapping) = state.mappings.from(at.number()).next() else { return };
            let (first, end) = (mapping.extent.at.first(), mapping.extent.at.end());
            let next = state.mapping(end).filter(|next| mapping.continues_in(next));
            match next.map(|next| (next.slot, next.extent.at.end(), Arc::clone(&next.reference))) {
                Some((slot, last, reference)) => {
                    // Made longer first, then the neighbour is unlinked, so a walk finds each page, as in `split`.
                    self.set_end(state, first, last);
                    state.mappings.remove(end.number());
                    reference.list.unlink(slot);
                    self.slots.free(&mut state.free, slot);
                    at = first;
                }
                None => at = end,
            }
        }
    }

    /// For each part of a mapping in `span`, its object and the object's pages.
    pub(crate) fn objects_in(&self, span: VirtualSpan) -> Result<Vec<Shown<M>>, Error> {
        self.check(span)?;
        let mut nothing = Token::nothing_held();
        let (state, _) = self.state.read(&mut nothing);
        state.all_mapped(span)?;
        let mut parts = Vec::new();
        parts.try_reserve_exact(state.mappings_in(span).count())?;
        parts.extend(state.mappings_in(span).map(|mapping| {
            let shown = mapping.extent.at.intersection(&span);
            let first = mapping.extent.page(shown.first());
            let pages = Span::between(first, ObjectPage::new(first.number() + shown.pages().0));
            (Arc::clone(&mapping.reference.object), pages)
        }));
        Ok(parts)
    }

    /// A handle for references.
    pub(crate) fn weak(self: &Arc<Self>) -> Weak<Self> {
        Arc::downgrade(self)
    }
}

impl<M: Mmu> Mapping<M> {
    pub(crate) fn view(&self) -> ObjectView {
        ObjectView { object: self.reference.object.number, extent: self.extent }
    }

    /// Whether it overlaps `view`, and shows the same pages of the same object there.
    pub(crate) fn is_of(&self, view: ObjectView) -> bool {
        let at = self.extent.at.first().max(view.extent.at.first());
        let seen = view.extent.at.contains(at) && self.extent.at.contains(at);
        let same = self.extent.page(at) == view.extent.page(at);
        self.reference.object.number == view.object && seen && same
    }

    /// Whether `next` shows the following pages of the same object in the same way.
    fn continues_in(&self, next: &Self) -> bool {
        Arc::ptr_eq(&self.reference, &next.reference)
            && self.extent.at.end() == next.extent.at.first()
            && self.extent.of_object().end() == next.extent.first
            && (self.protection, self.lazy, self.locked)
                == (next.protection, next.lazy, next.locked)
    }
}

impl<M: Mmu> Drop for SpaceCore<M> {
    fn drop(&mut self) {
        self.clear();
    }
}

impl<M: Mmu> Clone for AddressSpace<M> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core) }
    }
}

impl<M: Mmu> fmt::Debug for AddressSpace<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddressSpace").field("number", &self.core.number).finish_non_exhaustive()
    }
}
