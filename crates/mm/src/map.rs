//! Map: makes pages of an object visible in a space.

use alloc::sync::Arc;

use crate::{
    AddressSpace, Error, Mmu, Object, ObjectPage, ObjectSpan, Pages, Protection, Residency, Span,
    VirtualPage, VirtualSpan,
    extent::Extent,
    object::ObjectCore,
    order::{self, Token},
    reference::Reference,
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
    /// To this page, in place of all that is mapped there.
    Replace(VirtualPage),
}

/// What is to be mapped, and how.
#[derive(Debug, Clone, Copy)]
pub struct MapRequest {
    /// Where in the space.
    pub placement: Placement,
    /// The first page of the object.
    pub offset: ObjectPage,
    /// How many pages.
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
    /// # Errors
    /// [`Error::BadSpan`], [`Error::PastEnd`], [`Error::Destroyed`], [`Error::Occupied`], [`Error::NoGap`],
    /// [`Error::LockedLimit`], [`Error::NoMemory`], the machine's error: nothing has changed, except that [`Placement::Replace`] may have
    /// unmapped what it was to replace. [`Error::Fault`] if a page could not be brought in: the new mapping is taken
    /// away again, and otherwise the same holds.
    pub fn map(&self, object: &Object<M>, request: MapRequest) -> Result<VirtualSpan, Error> {
        let pages = ObjectSpan::new(request.offset, request.pages).ok_or(Error::BadSpan)?;
        if let Placement::Replace(at) = request.placement {
            let span = VirtualSpan::new(at, request.pages).ok_or(Error::BadSpan)?;
            self.core.check(span)?;
            match self.unmap(span) {
                Ok(()) | Err(Error::NotMapped { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let (span, pinned) = self.core.map(&object.core, request, pages)?;
        if pinned {
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
        pages: ObjectSpan,
    ) -> Result<(VirtualSpan, bool), Error> {
        let mut nothing = Token::nothing_held();
        let (mut state, mut in_space) = self.state.write(&mut nothing);
        let state = &mut *state;
        let at = self.place(state, request)?;
        let residency = request.residency.unwrap_or_else(|| object.default_residency());
        let locked = state.lock_future || residency == Residency::Locked;

        let (reference, new) = self.refer(state, &mut in_space, object, pages)?;
        let extent = Extent { at, first: request.offset };
        if let Err(error) = self.enter(state, &mut in_space, &reference, extent, request, locked) {
            if new {
                state.forget(&mut in_space, object);
            }
            return Err(error);
        }
        state.hint = at.end().number();
        state.mapped = state.mapped.saturating_add(request.pages.0);
        if locked {
            state.locked = state.locked.saturating_add(request.pages.0);
        }
        let pinned = locked || state.super_locked;
        if !pinned {
            state.join(&mut in_space, at);
        }
        Ok((at, pinned))
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

    /// The reference to `object`, and whether it is new.
    fn refer(
        self: &Arc<Self>,
        state: &mut SpaceState<M>,
        in_space: &mut Token<'_, order::Space>,
        object: &Arc<ObjectCore<M>>,
        pages: ObjectSpan,
    ) -> Result<(Arc<Reference<M>>, bool), Error> {
        let place = state.reference(object.number);
        let (mut of_object, _) = object.state.lock(in_space);
        if of_object.destroyed {
            return Err(Error::Destroyed);
        }
        if pages.end().number() > of_object.size {
            return Err(Error::PastEnd { page: ObjectPage::new(of_object.size) });
        }
        let place = match place {
            Ok(place) => {
                let found = state.references.get(place).ok_or(Error::NoMemory)?;
                return Ok((Arc::clone(found), false));
            }
            Err(place) => place,
        };
        state.references.try_reserve(1)?;
        of_object.references.try_reserve(1)?;
        let reference = share(Reference::new(object, self, state.super_locked))?;
        of_object.references.push(Arc::clone(&reference));
        state.references.insert(place, Arc::clone(&reference));
        Ok((reference, true))
    }

    /// Makes the machine's part of a mapping, its node and its entry. If one cannot be made, none is left.
    fn enter(
        &self,
        state: &mut SpaceState<M>,
        in_space: &mut Token<'_, order::Space>,
        reference: &Arc<Reference<M>>,
        extent: Extent,
        request: MapRequest,
        locked: bool,
    ) -> Result<(), Error> {
        if locked || state.super_locked {
            self.may_pin(state, &reference.object, request.pages)?;
        }
        let object = &reference.object;
        let (mmu, machine) = (&self.manager.mmu, &self.machine);
        let (protection, lazy) = (request.protection, request.lazy);
        mmu.attach(machine, extent.at, &object.machine, extent.first, protection)?;
        let (mut of_object, _) = object.state.lock(in_space);
        let entered = reference.link(&mut of_object, extent, locked).and_then(|node| {
            let reference = Arc::clone(reference);
            let list = Arc::clone(&reference);
            let mapping = Mapping { extent, protection, lazy, locked, node, reference };
            state.mappings.insert(extent.at.first().number(), mapping).inspect_err(|_| {
                list.unlink(&mut of_object, node);
            })
        });
        drop(of_object);
        entered.inspect_err(|_| mmu.detach(machine, extent.at))
    }
}
