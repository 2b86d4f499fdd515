//! Replace: a mapping takes the place of all that is mapped there, at one instant.
//!
//! The space is locked once, and all that can fail comes first: the cuts at the ends, the limits, the list of what
//! goes, the parts of the new mapping. The last of them is the machine's [`attach`](Mmu::attach), which shows the new mapping
//! in place of the old ones. From there on nothing fails: pulses of the span are cancelled, so their threads try again,
//! and the old mappings leave the index and the reverse maps of their objects. No translation of theirs is left.
//!
//! Pages that have to be in memory are brought in before, through the object, with nothing locked; a [`PinGuard`] keeps
//! them there until the new mapping pins them itself. So a page that cannot be brought in costs the old mappings
//! nothing. What is left to do afterwards are translations to pages that are in memory; if the machine cannot make one,
//! the replacement is made nevertheless, and the error says so.

use alloc::{sync::Arc, vec::Vec};

use crate::{
    Access, Error, MapRequest, Mmu, Residency, VirtualSpan,
    extent::Extent,
    map::SpaceUse,
    object::ObjectCore,
    order::{self, Token},
    pins::PinGuard,
    space::{Mapping, SpaceCore, SpaceState},
};

impl<M: Mmu> SpaceCore<M> {
    /// Maps pages of `object` at `at`, in place of what is mapped there.
    pub(crate) fn replace(
        self: &Arc<Self>,
        object: &Arc<ObjectCore<M>>,
        at: VirtualSpan,
        request: MapRequest,
    ) -> Result<VirtualSpan, Error> {
        // Dropped with nothing locked: each may be the last to keep an object.
        let (mut guard, mut gone) = (None, Vec::new());
        let populated = loop {
            let mut nothing = Token::nothing_held();
            let (mut state, mut in_space) = self.state.write(&mut nothing);
            // Before anything is brought in in vain.
            if object.state.lock(&mut in_space).0.destroyed {
                return Err(Error::Destroyed);
            }
            let (request, residency) = state.settled(object, request);
            state.may_pin(request.pages, residency, &state.within(at))?;
            let populated = state.super_locked || residency == Residency::Locked;
            if !populated || guard.is_some() {
                self.exchange(&mut state, &mut in_space, object, at, request, &mut gone)?;
                break populated;
            }
            drop(state);
            guard = Some(self.bring_in(object, at, request)?);
        };
        if populated {
            // The pages are in memory: only a translation can fail.
            self.populate(at)?;
        }
        Ok(at)
    }

    /// Pins the pages that the new mapping is to show, and brings them in.
    fn bring_in(
        &self,
        object: &Arc<ObjectCore<M>>,
        at: VirtualSpan,
        request: MapRequest,
    ) -> Result<PinGuard<M>, Error> {
        let extent = Extent { at, first: request.offset };
        let guard = PinGuard::new(object, extent.of_object())?;
        if request.protection.permits(Access::Read) {
            let brought = object.bring_in(extent.of_object(), request.lazy);
            let fault = |(page, error)| Error::Fault { at: extent.place(page), error };
            brought.map_err(fault)?;
        }
        Ok(guard)
    }

    /// Puts the new mapping in place of the old ones, which go into `gone`. On failure nothing has changed.
    fn exchange(
        self: &Arc<Self>,
        state: &mut SpaceState<M>,
        in_space: &mut Token<'_, order::Space>,
        object: &Arc<ObjectCore<M>>,
        at: VirtualSpan,
        request: MapRequest,
        gone: &mut Vec<Mapping<M>>,
    ) -> Result<(), Error> {
        let first = self.split_ends(state, in_space, at).and_then(|()| {
            gone.try_reserve_exact(state.mappings_in(at).count())?;
            self.enter(state, in_space, object, at, request)
        });
        let first = first.inspect_err(|_| state.join(in_space, at))?;
        self.manager.pulses.cancel(self, at, in_space);
        gone.extend(first);
        while gone.len() < gone.capacity() {
            let behind = at.first().number().saturating_add(1);
            let next = state.mappings.from(behind).next().map(|next| next.extent.at.first());
            let next = next.filter(|next| at.contains(*next));
            let Some(old) = next.and_then(|next| state.mappings.remove(next.number())) else {
                break;
            };
            gone.push(old);
        }
        for old in &*gone {
            state.retire(in_space, old);
        }
        state.join(in_space, at);
        Ok(())
    }
}

impl<M: Mmu> SpaceState<M> {
    /// What the mappings take in `span`.
    fn within(&self, span: VirtualSpan) -> SpaceUse {
        let mut used = SpaceUse::default();
        for mapping in self.mappings_in(span) {
            let pages = mapping.extent.at.intersection(&span).pages().0;
            used.mapped = used.mapped.saturating_add(pages);
            if mapping.residency.is_locked() {
                used.locked = used.locked.saturating_add(pages);
            }
        }
        used
    }
}
