//! Map: makes pages of an object visible in a space.
//!
//! A mapping comes in three steps, under the space's lock: its node in the reverse map of the object and its pin; its entry
//! in the index; the machine's part. Each can fail, and then those before it are undone. `replace.rs` has the way of
//! [`Placement::Replace`], which shares these steps.
//!
//! A mapping may reach past the object's end, as POSIX has it: an access there fails until the object grows.

use alloc::sync::Arc;

use crate::{
    AddressSpace, Error, Mmu, Object, ObjectPage, ObjectSpan, Pages, Protection, Residency, Span,
    VirtualPage, VirtualSpan,
    extent::Extent,
    object::ObjectCore,
    order::{self, Token},
    reference::Reference,
    reverse::NodeId,
    share::share,
    space::{Mapping, ObjectView, SpaceCore, SpaceState},
};

/// Where a mapping goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Into any gap.
    Anywhere,
    /// To this page, where nothing may be mapped yet.
    Fixed(VirtualPage),
    /// To this page, in place of all that is mapped there: an access finds either the old mappings or the new one.
    Replace(VirtualPage),
}

/// What is to be mapped, and how.
#[derive(Debug, Clone, Copy)]
pub struct MapRequest {
    /// Where in the space.
    pub placement: Placement,
    /// The first page of the object.
    pub offset: ObjectPage,
    /// How many pages. They may reach past the end of the object.
    pub pages: Pages,
    /// What the mapping permits.
    pub protection: Protection,
    /// A page gets memory at its first access only, even if the mapping is locked.
    pub lazy: bool,
    /// The residency of the mapping; if `None`, the object's [default](Object::set_default_residency).
    pub residency: Option<Residency>,
}

impl MapRequest {
    /// `pages` pages from the object's start, anywhere, to read and write, not lazy, with the default residency.
    #[must_use]
    pub const fn new(pages: Pages) -> Self {
        Self {
            placement: Placement::Anywhere,
            offset: ObjectPage::new(0),
            pages,
            protection: Protection::ReadWrite,
            lazy: false,
            residency: None,
        }
    }
}

impl<M: Mmu> AddressSpace<M> {
    /// Maps pages of `object`, and returns where. Every space that maps an object sees the same memory. If the
    /// mapping is locked, or the space super-locked, and the mapping is not lazy, its pages are in memory
    /// when this returns. A mapping that continues its neighbour becomes one with it.
    ///
    /// With [`Placement::Replace`], pages that have to be in memory are brought in before anything is replaced, so both
    /// the old and the new ones need room.
    ///
    /// # Errors
    /// [`Error::BadSpan`], [`Error::Destroyed`], [`Error::Occupied`], [`Error::NoGap`], [`Error::LockedLimit`],
    /// [`Error::NoMemory`], the machine's error; [`Error::Fault`] if a page could not be brought in. Nothing has
    /// changed then, and what was to be replaced is whole; but for one case: an [`Error::Fault`] with the machine's error
    /// can come after a replacement, if the machine cannot translate to a page that is in memory. The page's first access
    /// tries again.
    pub fn map(&self, object: &Object<M>, request: MapRequest) -> Result<VirtualSpan, Error> {
        // The pages must have numbers.
        ObjectSpan::new(request.offset, request.pages).ok_or(Error::BadSpan)?;
        if let Placement::Replace(at) = request.placement {
            let at = VirtualSpan::new(at, request.pages).ok_or(Error::BadSpan)?;
            self.core.check(at)?;
            return self.core.replace(&object.core, at, request);
        }
        let (span, populated) = self.core.map(&object.core, request)?;
        if populated {
            if let Err(error) = self.core.populate(span) {
                let extent = Extent { at: span, first: request.offset };
                self.core.take_back(ObjectView { object: object.core.number, extent });
                return Err(error);
            }
            // Not before: to take back a part of a joined mapping needs memory.
            let mut nothing = Token::nothing_held();
            let (mut state, mut in_space) = self.core.state.write(&mut nothing);
            state.join(&mut in_space, span);
        }
        Ok(span)
    }
}

impl<M: Mmu> SpaceCore<M> {
    /// Maps, and returns whether the pages have to be brought in.
    fn map(
        self: &Arc<Self>,
        object: &Arc<ObjectCore<M>>,
        request: MapRequest,
    ) -> Result<(VirtualSpan, bool), Error> {
        let mut nothing = Token::nothing_held();
        let (mut state, mut in_space) = self.state.write(&mut nothing);
        let state = &mut *state;
        let at = self.place(state, request)?;
        let (request, residency) = state.settled(object, request);
        state.may_pin(request.pages, residency, &SpaceUse::default())?;
        self.enter(state, &mut in_space, object, at, request)?;
        let populated = state.super_locked || residency == Residency::Locked;
        if !populated {
            state.join(&mut in_space, at);
        }
        Ok((at, populated))
    }

    /// The pages that the mapping will take.
    fn place(&self, state: &SpaceState<M>, request: MapRequest) -> Result<VirtualSpan, Error> {
        match request.placement {
            Placement::Anywhere => {
                if request.pages.0 == 0 {
                    return Err(Error::BadSpan);
                }
                self.gap(state, request.pages).ok_or(Error::NoGap { asked: request.pages })
            }
            Placement::Fixed(at) | Placement::Replace(at) => {
                let span = VirtualSpan::new(at, request.pages).ok_or(Error::BadSpan)?;
                self.check(span)?;
                match state.mappings_in(span).next() {
                    None => Ok(span),
                    Some(mapping) => Err(Error::Occupied { at: mapping.extent.at.first().max(at) }),
                }
            }
        }
    }

    /// A gap of `pages` pages: the first behind the latest mapping, or else the first of all.
    fn gap(&self, state: &SpaceState<M>, pages: Pages) -> Option<VirtualSpan> {
        let behind = VirtualPage::new(state.hint.max(self.span.first().number()));
        self.gap_from(state, behind, pages)
            .or_else(|| self.gap_from(state, self.span.first(), pages))
    }

    fn gap_from(
        &self,
        state: &SpaceState<M>,
        from: VirtualPage,
        pages: Pages,
    ) -> Option<VirtualSpan> {
        let mut at = state.mapping(from).map_or(from, |mapping| mapping.extent.at.end());
        let rest = Span::between(at, self.span.end());
        for mapping in state.mappings_in(rest) {
            let gap = Span::between(at, mapping.extent.at.first());
            if gap.pages() >= pages {
                break;
            }
            at = mapping.extent.at.end();
        }
        VirtualSpan::new(at, pages).filter(|span| span.end() <= self.span.end())
    }

    /// The reference to `object`; a new one has no mapping yet.
    fn refer(
        self: &Arc<Self>,
        state: &mut SpaceState<M>,
        in_space: &mut Token<'_, order::Space>,
        object: &Arc<ObjectCore<M>>,
    ) -> Result<Arc<Reference<M>>, Error> {
        let place = state.reference(object.number);
        let (mut of_object, _) = object.state.lock(in_space);
        if of_object.destroyed {
            return Err(Error::Destroyed);
        }
        let place = match place {
            Ok(place) => return state.references.get(place).cloned().ok_or(Error::NoMemory),
            Err(place) => place,
        };
        state.references.try_reserve(1)?;
        of_object.references.try_reserve(1)?;
        let reference = share(Reference::new(object, self, state.super_locked))?;
        of_object.references.push(Arc::clone(&reference));
        state.references.insert(place, Arc::clone(&reference));
        Ok(reference)
    }

    /// Makes a mapping at `at`, and counts it: its node and pin, its entry, and the machine's part, which shows it in
    /// place of all that `at` showed. Returns the mapping whose entry it took, if one began there. If a part cannot be
    /// made, none is left. The request is [`settled`](SpaceState::settled).
    pub(crate) fn enter(
        self: &Arc<Self>,
        state: &mut SpaceState<M>,
        in_space: &mut Token<'_, order::Space>,
        object: &Arc<ObjectCore<M>>,
        at: VirtualSpan,
        request: MapRequest,
    ) -> Result<Option<Mapping<M>>, Error> {
        let residency = request.residency.unwrap_or(Residency::Unlocked);
        let extent = Extent { at, first: request.offset };
        let pins = (state.super_locked || residency.is_locked()).then(|| extent.of_object());
        let reference = self.refer(state, in_space, object)?;
        let node = match Self::link(in_space, &reference, extent, residency, pins) {
            Ok(node) => node,
            Err(error) => {
                state.forget_if_empty(in_space, &reference);
                return Err(error);
            }
        };
        let mapping = Mapping {
            extent,
            protection: request.protection,
            lazy: request.lazy,
            residency,
            node,
            reference: Arc::clone(&reference),
        };
        let entered = state.put(mapping).and_then(|before| {
            let (mmu, machine) = (&self.manager.mmu, &self.machine);
            let attached =
                mmu.attach(machine, at, &object.machine, extent.first, request.protection);
            match attached {
                Ok(()) => Ok(before),
                Err(error) => {
                    state.put_back(at.first(), before);
                    Err(error.into())
                }
            }
        });
        if entered.is_err() {
            state.unlink(in_space, &reference, node, pins);
            return entered;
        }
        state.hint = at.end().number();
        state.mapped = state.mapped.saturating_add(request.pages.0);
        if residency.is_locked() {
            state.locked = state.locked.saturating_add(request.pages.0);
        }
        entered
    }

    /// Makes the node of a mapping and its pin.
    fn link(
        in_space: &mut Token<'_, order::Space>,
        reference: &Arc<Reference<M>>,
        extent: Extent,
        residency: Residency,
        pins: Option<ObjectSpan>,
    ) -> Result<NodeId, Error> {
        let object = &reference.object;
        let (mut of_object, _) = object.state.lock(in_space);
        let node = reference.link(&mut of_object, extent, residency.is_locked())?;
        let pinned = pins.map_or(Ok(()), |pins| object.pin(&mut of_object, pins));
        pinned.inspect_err(|_| reference.unlink(&mut of_object, node))?;
        Ok(node)
    }
}

/// How much of a space mappings take.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SpaceUse {
    pub(crate) mapped: u64,
    pub(crate) locked: u64,
}

impl<M: Mmu> SpaceState<M> {
    /// The request with the residency that the new mapping gets, and that residency. The object's default may change
    /// at any time, so it is read once.
    pub(crate) fn settled(
        &self,
        object: &ObjectCore<M>,
        request: MapRequest,
    ) -> (MapRequest, Residency) {
        let asked = request.residency.unwrap_or_else(|| object.default_residency());
        let residency = if asked.is_locked() { asked } else { self.future };
        (MapRequest { residency: Some(residency), ..request }, residency)
    }

    /// Checks that the space may lock a new mapping of `pages` pages, which takes the place of `replaced`.
    pub(crate) fn may_pin(
        &self,
        pages: Pages,
        residency: Residency,
        replaced: &SpaceUse,
    ) -> Result<(), Error> {
        let before = match (self.super_locked, residency.is_locked()) {
            (true, _) => self.mapped.saturating_sub(replaced.mapped),
            (false, true) => self.locked.saturating_sub(replaced.locked),
            (false, false) => return Ok(()),
        };
        self.within_limit(before.saturating_add(pages.0))
    }

    /// Puts a mapping into the index. Returns the one whose entry it took.
    fn put(&mut self, mapping: Mapping<M>) -> Result<Option<Mapping<M>>, Error> {
        let first = mapping.extent.at.first();
        let there = self.mappings.at_or_before_mut(first.number());
        match there.filter(|there| there.extent.at.first() == first) {
            Some(there) => Ok(Some(core::mem::replace(there, mapping))),
            None => self.mappings.insert(first.number(), mapping).map(|()| None),
        }
    }

    /// Undoes [`put`](Self::put).
    fn put_back(&mut self, first: VirtualPage, before: Option<Mapping<M>>) {
        match (before, self.mappings.at_or_before_mut(first.number())) {
            (Some(before), Some(there)) => *there = before,
            (_, _) => _ = self.mappings.remove(first.number()),
        }
    }
}
