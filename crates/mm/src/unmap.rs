//! Unmap: pages leave a space.
//!
//! The space is locked. Pulses for the pages are cancelled, and the machine takes all translations away. Only
//! then are the mappings taken out of the reverse maps of their objects: a walk that does not find a mapping must
//! not miss a translation of it. A reference without mappings leaves its object's list. The references to objects are dropped
//! after all locks are given up, since dropping the last one ends the object.

use alloc::{sync::Arc, vec::Vec};

use crate::{
    AddressSpace, Error, Mmu, ObjectSpan, VirtualSpan,
    order::{self, Before, Token},
    reference::Reference,
    reverse::NodeId,
    space::{Mapping, ObjectView, SpaceCore, SpaceState},
};

impl<M: Mmu> AddressSpace<M> {
    /// Unmaps all pages of `span` that are mapped; a mapping may keep its other pages.
    ///
    /// # Errors
    /// [`Error::BadSpan`]; [`Error::NotMapped`] if no page of `span` is mapped; [`Error::NoMemory`] for the rest of
    /// a mapping that is cut in two. Nothing has changed then.
    pub fn unmap(&self, span: VirtualSpan) -> Result<(), Error> {
        self.core.check(span)?;
        let mut gone = Vec::new();
        let mut nothing = Token::nothing_held();
        let (mut state, mut in_space) = self.core.state.write(&mut nothing);
        self.core.split_ends(&mut state, &mut in_space, span)?;
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
    /// Takes the mappings in `span` out and puts them into `gone`, which has room for them.
    fn take_out(
        &self,
        state: &mut SpaceState<M>,
        in_space: &mut Token<'_, order::Space>,
        span: VirtualSpan,
        gone: &mut Vec<Mapping<M>>,
    ) {
        while gone.len() < gone.capacity() {
            let Some(mapping) = self.take_first(state, in_space, span, |_| true) else { break };
            gone.push(mapping);
        }
    }

    /// Takes out, part after part, what is left of the mapping that `view` describes. What another thread has mapped
    /// in its place stays. A part that has been joined with a neighbour meanwhile stays too, if there is no memory
    /// to cut it off; nothing else needs memory.
    pub(crate) fn take_back(&self, view: ObjectView) {
        loop {
            let mut nothing = Token::nothing_held();
            let (mut state, mut in_space) = self.state.write(&mut nothing);
            if self.split_ends(&mut state, &mut in_space, view.extent.at).is_err() {
                return;
            }
            let ours = |mapping: &Mapping<M>| mapping.is_of(view);
            let gone = self.take_first(&mut state, &mut in_space, view.extent.at, ours);
            drop(state);
            if gone.is_none() {
                return;
            }
        }
    }

    /// Takes out the first mapping in `span` for which `wanted` holds, its translations first. The caller drops it
    /// after it has given up the lock.
    fn take_first(
        &self,
        state: &mut SpaceState<M>,
        in_space: &mut Token<'_, order::Space>,
        span: VirtualSpan,
        wanted: impl Fn(&Mapping<M>) -> bool,
    ) -> Option<Mapping<M>> {
        let first = state.mappings_in(span).find(|mapping| wanted(mapping))?.extent.at.first();
        let mapping = state.mappings.remove(first.number())?;
        self.manager.pulses.cancel(self, mapping.extent.at, in_space);
        self.manager.mmu.detach(&self.machine, mapping.extent.at);
        state.retire(in_space, &mapping);
        Some(mapping)
    }

    /// Takes all mappings out. The space has no handle any more.
    pub(crate) fn clear(&mut self) {
        let mut nothing = Token::nothing_held();
        self.manager.pulses.cancel(self, self.span, &mut nothing);
        let mmu = &self.manager.mmu;
        let state = self.state.get_mut();
        loop {
            let first = state.mappings.from(0).next().map(|m| m.extent.at.first());
            let Some(first) = first else { return };
            let Some(mapping) = state.mappings.remove(first.number()) else { return };
            mmu.detach(&self.machine, mapping.extent.at);
            state.retire(&mut nothing, &mapping);
        }
    }
}

impl<M: Mmu> SpaceState<M> {
    /// Ends a mapping that is out of the index and has no translation left. The caller drops it after it has given up
    /// the locks.
    pub(crate) fn retire<H: Before<order::Object>>(
        &mut self,
        held: &mut Token<'_, H>,
        mapping: &Mapping<M>,
    ) {
        let pages = mapping.extent.at.pages().0;
        self.mapped = self.mapped.saturating_sub(pages);
        if mapping.residency.is_locked() {
            self.locked = self.locked.saturating_sub(pages);
        }
        self.unlink(held, &mapping.reference, mapping.node, self.pins(mapping));
    }

    /// Ends the pin of a mapping that has no translation left, takes it out of the reverse map of its object, and its
    /// reference out of both lists if it was the last one. The caller keeps the object until its lock is given up.
    pub(crate) fn unlink<H: Before<order::Object>>(
        &mut self,
        held: &mut Token<'_, H>,
        reference: &Arc<Reference<M>>,
        node: NodeId,
        pins: Option<ObjectSpan>,
    ) {
        {
            let object = &reference.object;
            let (mut of_object, _) = object.state.lock(held);
            if let Some(pins) = pins {
                object.unpin(&mut of_object, pins);
            }
            reference.unlink(&mut of_object, node);
        }
        self.forget_if_empty(held, reference);
    }

    /// Takes a reference that has no mappings out of both lists. The caller keeps the object alive.
    pub(crate) fn forget_if_empty<H: Before<order::Object>>(
        &mut self,
        held: &mut Token<'_, H>,
        reference: &Arc<Reference<M>>,
    ) {
        let Ok(place) = self.reference(reference.object.number) else { return };
        if !reference.is_empty() {
            return;
        }
        let gone = self.references.remove(place);
        let (mut of_object, _) = reference.object.state.lock(held);
        of_object.references.retain(|reference| !Arc::ptr_eq(reference, &gone));
    }
}
