//! Address spaces: their mappings, which show pages of objects.
//!
//! # What it owns
//! The mappings of a space by address, its references to objects, and whether the whole space is super-locked; all
//! under one reader/writer lock. Faults take it to read; an operation that changes a mapping takes it to write.
//!
//! # Invariants
//! 1. Mappings do not overlap, and each has a node with the same contents in the reverse map of its object. Both
//!    change under the object's lock.
//! 2. The space has one reference for each object that it maps, and no other. It is also in the object's list.
//! 3. To give a part of a mapping other attributes, an operation splits the mapping first. A split has no visible
//!    effect, so an operation that fails after it has changed nothing.

use alloc::{sync::Arc, vec::Vec};
use core::fmt;

use crate::{
    Error, Mmu, ObjectPage, ObjectSpan, Protection, Residency, Span, VirtualPage, VirtualSpan,
    extent::Extent,
    index::Index,
    manager::Core,
    object::{ObjectCore, ObjectState},
    order::{self, OrderedRw, Token},
    pulse::ClientId,
    query::SpaceCounts,
    reference::Reference,
    reverse::NodeId,
    share::share,
};

/// An address space. Clones are the same one; dropping the last one unmaps everything.
pub struct AddressSpace<M: Mmu> {
    pub(crate) core: Arc<SpaceCore<M>>,
}

pub(crate) struct SpaceCore<M: Mmu> {
    pub(crate) number: u64,
    pub(crate) manager: Arc<Core<M>>,
    pub(crate) machine: Arc<M::Space>,
    /// Its queue of pulses.
    pub(crate) client: ClientId,
    /// All mappings lie in here.
    pub(crate) span: VirtualSpan,
    pub(crate) state: OrderedRw<M::RwLock, order::Space, SpaceState<M>>,
    pub(crate) counts: SpaceCounts,
}

/// What the lock of a space guards.
pub(crate) struct SpaceState<M: Mmu> {
    pub(crate) mappings: Index<Mapping<M>>,
    /// By rising numbers of their objects.
    pub(crate) references: Vec<Arc<Reference<M>>>,
    pub(crate) super_locked: bool,
    /// How many privileges to do I/O there are. The space is super-locked while there is one.
    pub(crate) privileges: u64,
    /// Pages of all mappings.
    pub(crate) mapped: u64,
    /// Pages of locked mappings.
    pub(crate) locked: u64,
    /// The most pages that may be locked.
    pub(crate) locked_limit: u64,
    /// The residency of new mappings that would be unlocked.
    pub(crate) future: Residency,
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
    pub(crate) residency: Residency,
    pub(crate) node: NodeId,
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
            super_locked: false,
            privileges: 0,
            mapped: 0,
            locked: 0,
            locked_limit: u64::MAX,
            future: Residency::Unlocked,
            hint: span.first().number(),
        };
        let machine = share(manager.mmu.new_space(span)?)?;
        let core = SpaceCore {
            number: manager.number(),
            manager: Arc::clone(manager),
            machine,
            // Last of what can fail: from here on the drop of the space ends it.
            client: manager.pulses.enroll()?,
            span,
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

    /// Splits the mapping that shows pages both before and at `at`, if there is one.
    fn split(
        &mut self,
        in_space: &mut Token<'_, order::Space>,
        at: VirtualPage,
    ) -> Result<(), Error> {
        let Some(whole) = self.mapping(at) else { return Ok(()) };
        if whole.extent.at.first() == at {
            return Ok(());
        }
        let (first, protection, lazy, residency) =
            (whole.extent.at.first(), whole.protection, whole.lazy, whole.residency);
        let pinned = self.pins(whole).is_some();
        let extent =
            Extent { at: Span::between(at, whole.extent.at.end()), first: whole.extent.page(at) };
        let reference = Arc::clone(&whole.reference);
        let object = Arc::clone(&reference.object);
        // Held until both parts are right, so a walk finds each page once.
        let (mut of_object, _) = object.state.lock(in_space);
        let node = reference.link(&mut of_object, extent, residency.is_locked())?;
        let list = Arc::clone(&reference);
        let part = Mapping { extent, protection, lazy, residency, node, reference };
        let cut = if pinned { of_object.pins.split(extent.first) } else { Ok(()) };
        let inserted = cut.and_then(|()| {
            self.mappings.insert(at.number(), part).inspect_err(|_| {
                if pinned {
                    of_object.pins.join(extent.first);
                }
            })
        });
        if let Err(error) = inserted {
            list.unlink(&mut of_object, node);
            return Err(error);
        }
        self.set_end(&mut of_object, first, at);
        Ok(())
    }

    /// Lets the mapping that begins at `first` end at `end`. Its object is locked.
    fn set_end(&mut self, of_object: &mut ObjectState<M>, first: VirtualPage, end: VirtualPage) {
        if let Some(mapping) = self.mappings.at_or_before_mut(first.number()) {
            mapping.extent.at = Span::between(first, end);
            of_object.mappings.set_end(mapping.node, mapping.extent.of_object().end());
        }
    }

    /// Joins neighbours in and beside `span` that have the same attributes and show consecutive pages.
    pub(crate) fn join(&mut self, in_space: &mut Token<'_, order::Space>, span: VirtualSpan) {
        let before = VirtualPage::new(span.first().number().saturating_sub(1));
        let mut at = self.mapping(before).map_or(span.first(), |m| m.extent.at.first());
        while at < span.end() {
            let Some(mapping) = self.mappings.from(at.number()).next() else { return };
            let (first, end) = (mapping.extent.at.first(), mapping.extent.at.end());
            let next = self.mapping(end).filter(|next| mapping.continues_in(next));
            let part = next.map(|next| {
                let pins = self.pins(next);
                (next.node, next.extent.at.end(), Arc::clone(&next.reference), pins)
            });
            match part {
                Some((node, last, reference, pins)) => {
                    // Held over both changes, as in `split`.
                    let (mut of_object, _) = reference.object.state.lock(in_space);
                    if let Some(pins) = pins {
                        of_object.pins.join(pins.first());
                    }
                    reference.unlink(&mut of_object, node);
                    self.set_end(&mut of_object, first, last);
                    self.mappings.remove(end.number());
                    at = first;
                }
                None => at = end,
            }
        }
    }

    /// The pages that the mapping pins, if it is locked or the space super-locked.
    pub(crate) fn pins(&self, mapping: &Mapping<M>) -> Option<ObjectSpan> {
        let pinned = self.super_locked || mapping.residency.is_locked();
        pinned.then(|| mapping.extent.of_object())
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
        in_space: &mut Token<'_, order::Space>,
        span: VirtualSpan,
    ) -> Result<(), Error> {
        state.split(in_space, span.first())?;
        state.split(in_space, span.end())
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
            && (self.protection, self.lazy, self.residency)
                == (next.protection, next.lazy, next.residency)
    }
}

impl<M: Mmu> Drop for SpaceCore<M> {
    fn drop(&mut self) {
        self.clear();
        self.manager.pulses.strike(self.client);
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
