//! Unmap: pages leave a space.
//!
//! With the space locked: pulses that wait for the pages are cancelled; the machine takes all translations
//! away; only then are the mappings unlinked (a walk that does not find them must not miss a translation) and
//! their slots freed. References that have no mapping left leave their object's list. Objects are let go of after
//! all locks, since that can be their end.

use alloc::{sync::Arc, vec::Vec};

use crate::{
    AddressSpace, Error, Mmu, VirtualSpan,
    order::{self, Token},
    space::{Mapping, SpaceCore, SpaceState},
};

impl<M: Mmu> AddressSpace<M> {
    /// Takes away whatever is mapped in `span`; parts of mappings too.
    ///
    /// # Errors
    /// [`Error::BadSpan`]; [`Error::NotMapped`] if nothing is mapped there at all; [`Error::NoMemory`]
    /// for the rest of a mapping that is cut in two. Nothing has changed then.
    pub fn unmap(&self, span: VirtualSpan) -> Result<(), Error> {
        self.core.check(span)?;
        let mut gone = Vec::new();
        let mut nothing = Token::nothing_held();
        let (mut state, mut in_space) = self.core.state.write(&mut nothing);
        self.core.split_ends(&mut state, span)?;
        let count = state.mappings_in(span).count();
        if count == 0 {
            return Err(Error::NotMapped { at: span.first() });
        }
        gone.try_reserve_exact(count)?;
        self.core.take_out(&mut state, &mut in_space, span, &mut gone);
        drop(state);
        drop(gone);
        Ok(())
    }
}

impl<M: Mmu> SpaceCore<M> {
    /// Takes the mappings out that lie in `span`, and leaves them in `gone`, which has room for them.
    fn take_out(
        &self,
        state: &mut SpaceState<M>,
        in_space: &mut Token<'_, order::Space>,
        span: VirtualSpan,
        gone: &mut Vec<Mapping<M>>,
    ) {
        self.manager.pulses.cancel(self, span, in_space);
        let mmu = &self.manager.mmu;
        while gone.len() < gone.capacity() {
            let Some(first) = state.mappings_in(span).next().map(|m| m.extent.at.first()) else {
                break;
            };
            let Some(mapping) = state.mappings.remove(first.number()) else { break };
            mmu.detach(&self.machine, mapping.extent.at);
            mapping.reference.list.unlink(mapping.slot);
            self.slots.free(&mut state.free, mapping.slot);
            if mapping.reference.list.is_empty() {
                self.forget(state, in_space, &mapping.reference.object);
            }
            gone.push(mapping);
        }
    }

    /// Takes all mappings out: nobody has a handle of this space any more.
    pub(crate) fn clear(&mut self) {
        let mmu = &self.manager.mmu;
        let state = self.state.get_mut();
        let mut nothing = Token::nothing_held();
        loop {
            let first = state.mappings.from(0).next().map(|m| m.extent.at.first());
            let Some(first) = first else { return };
            let Some(mapping) = state.mappings.remove(first.number()) else { return };
            mmu.detach(&self.machine, mapping.extent.at);
            mapping.reference.list.unlink(mapping.slot);
            self.slots.free(&mut state.free, mapping.slot);
            if mapping.reference.list.is_empty() {
                let object = &mapping.reference.object;
                if let Ok(place) = state.reference(object.number) {
                    let gone = state.references.remove(place);
                    let (mut of_object, _) = object.state.lock(&mut nothing);
                    of_object.references.retain(|reference| !Arc::ptr_eq(reference, &gone));
                }
            }
        }
    }
}
