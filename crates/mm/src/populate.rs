//! Populate: brings in the pages that have to be in memory.
//!
//! These are the pages of locked mappings, and of all mappings while the space is super-locked. Of a *lazy* mapping they
//! are those that were accessed before, and of a mapping that is locked on fault, none. Pages past the end of their
//! object, and pages that no access is permitted to, are left out.
//!
//! Nothing is locked between two pages, so each step looks everything up again.

use alloc::sync::Arc;

use crate::{
    Access, Error, FaultError, Mmu, ObjectSpan, Page, Residency, Span, VirtualPage, VirtualSpan,
    fault::Purpose,
    object::ObjectCore,
    order::Token,
    space::{Mapping, SpaceCore, SpaceState},
};

impl<M: Mmu> Mapping<M> {
    /// Whether its pages have to be brought in, as far as they are not lazy.
    pub(crate) fn is_brought_in(&self, state: &SpaceState<M>) -> bool {
        state.super_locked || self.residency == Residency::Locked
    }
}

impl<M: Mmu> SpaceCore<M> {
    /// Brings in all pages of `span` that have to be in memory. Nothing is locked. Pages that are unmapped or cut
    /// off meanwhile are skipped, and so are pages that cannot be read.
    pub(crate) fn populate(self: &Arc<Self>, span: VirtualSpan) -> Result<(), Error> {
        let mut at = span.first();
        while let Some(page) = self.next_pinned(at, span.end()) {
            match self.bring(page) {
                Ok(()) | Err(FaultError::NotMapped | FaultError::PastEnd) => {}
                Err(FaultError::Protection) => {}
                Err(error) => return Err(Error::Fault { at: page, error }),
            }
            at = page.plus(1);
        }
        Ok(())
    }

    /// As [`populate`](Self::populate), wherever `object` shows pages of `span`.
    pub(crate) fn populate_object(
        self: &Arc<Self>,
        object: &Arc<ObjectCore<M>>,
        span: ObjectSpan,
    ) -> Result<(), Error> {
        let mut at = self.span.first();
        while let Some(shown) = self.next_shown(at, object, span) {
            self.populate(shown)?;
            at = shown.end();
        }
        Ok(())
    }

    /// The first pages from `at` on in which one mapping shows pages of `span`. A caller that asks again from their
    /// end finds all such pages, even if mappings are cut in two meanwhile.
    fn next_shown(
        &self,
        at: VirtualPage,
        object: &Arc<ObjectCore<M>>,
        span: ObjectSpan,
    ) -> Option<VirtualSpan> {
        let rest = Span::between(at, self.span.end());
        let mut nothing = Token::nothing_held();
        let (state, _) = self.state.read(&mut nothing);
        state.mappings_in(rest).find_map(|mapping| {
            let ours = Arc::ptr_eq(&mapping.reference.object, object);
            let pages = mapping.extent.of_object().intersection(&span);
            let first = mapping.extent.place(pages.first());
            let shown = Span::between(first, first.plus(pages.pages().0)).intersection(&rest);
            (ours && !shown.is_empty()).then_some(shown)
        })
    }

    /// The first page from `at` on, below `end`, that has to be in memory. In a lazy mapping, those are the pages
    /// that were accessed before.
    fn next_pinned(&self, at: VirtualPage, end: VirtualPage) -> Option<VirtualPage> {
        // The mapping may go on behind `end`, and those pages were not asked for.
        if at >= end {
            return None;
        }
        let rest = Span::between(at, end);
        let mut nothing = Token::nothing_held();
        let (state, mut in_space) = self.state.read(&mut nothing);
        let mut pinned = state.mappings_in(rest).filter(|mapping| mapping.is_brought_in(&state));
        pinned.find_map(|mapping| {
            let shown = mapping.extent.at.intersection(&rest);
            let first = mapping.extent.page(shown.first());
            let pages = Span::between(first, first.plus(shown.pages().0));
            let object = &mapping.reference.object;
            if !mapping.lazy {
                let (of_object, _) = object.state.lock(&mut in_space);
                return (!of_object.within(pages).is_empty()).then_some(shown.first());
            }
            let touched = object.next_page(&mut in_space, pages, |page| page.touched)?;
            Some(mapping.extent.place(touched))
        })
    }

    /// Brings one page in, unless its mapping is lazy and it was never accessed.
    fn bring(self: &Arc<Self>, at: VirtualPage) -> Result<(), FaultError> {
        self.redo(at, Access::Read, Purpose::Keep, &mut None)
    }
}
