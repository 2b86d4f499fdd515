//! Resize: an object gets a new end.
//!
//! Cutting begins with the object locked, so the spaces that map it cannot be: their translations are taken
//! away by the walk. In order: the size says so (from here on faults on the tail fail); translations go; pages
//! that a pager is at work with are waited for, without the lock; memory goes; the pager is told. What comes
//! back by growing again is zeros, whatever the pager still has.
//!
//! Growing only changes the size, and then fills the new pages for those spaces that have them locked.

use alloc::sync::{Arc, Weak};

use crate::{
    Error, Mmu, Object, ObjectPage, ObjectSpan, Pages, Span,
    object::{ObjectCore, ObjectState},
    order::{self, Token},
    space::SpaceCore,
};

impl<M: Mmu> Object<M> {
    /// Gives the object `pages` pages. What is cut off is lost; new pages are zeros. Mappings stay as long as
    /// they are: past the end, accesses fail.
    ///
    /// # Errors
    /// [`Error::BadSpan`]: nothing has changed. What the machine says: it has not grown, or it has been cut, but
    /// the machine did not take note. [`Error::Pager`] if the pager did not take note of what was cut off: the
    /// size has changed nevertheless, and nothing of it will be seen again. [`Error::Fault`]
    /// if pages that grew could not be brought in for somebody who has them locked: the size has changed.
    pub fn resize(&self, pages: Pages) -> Result<(), Error> {
        let tail = ObjectSpan::new(ObjectPage::new(0), pages).ok_or(Error::BadSpan)?.end();
        let before = self.core.begin_resize();
        let result =
            if pages.0 < before { self.core.cut(tail, before) } else { self.core.grow(tail) };
        self.core.end_resize();
        result?;
        if pages.0 > before {
            self.core.populate(Span::between(ObjectPage::new(before), tail))?;
        }
        Ok(())
    }
}

impl<M: Mmu> ObjectCore<M> {
    /// One at a time. The size as it is.
    fn begin_resize(&self) -> u64 {
        let mut attempt = 0_u32;
        loop {
            let mut nothing = Token::nothing_held();
            let (mut state, _) = self.state.lock(&mut nothing);
            if !state.resizing {
                state.resizing = true;
                return state.size;
            }
            drop(state);
            attempt = attempt.saturating_add(1);
            self.manager.mmu.idle(attempt);
        }
    }

    fn end_resize(&self) {
        let mut nothing = Token::nothing_held();
        self.state.lock(&mut nothing).0.resizing = false;
    }

    fn grow(&self, end: ObjectPage) -> Result<(), Error> {
        self.manager.mmu.resize_object(&self.machine, Pages(end.number()))?;
        let mut nothing = Token::nothing_held();
        self.state.lock(&mut nothing).0.size = end.number();
        Ok(())
    }

    fn cut(&self, end: ObjectPage, before: u64) -> Result<(), Error> {
        let tail = Span::between(end, ObjectPage::new(before));
        let mut attempt = 0_u32;
        loop {
            let mut nothing = Token::nothing_held();
            let (mut state, mut in_object) = self.state.lock(&mut nothing);
            state.size = end.number();
            self.unmap(&state, tail);
            if state.pages.position(end, tail.end(), |page| page.is_busy()).is_none() {
                self.take_tail(&mut state, &mut in_object, end);
                break;
            }
            drop(state);
            attempt = attempt.saturating_add(1);
            self.manager.mmu.idle(attempt);
        }
        let shrunk = self.manager.mmu.resize_object(&self.machine, Pages(end.number()));
        let discarded = self.pager.discard(tail);
        shrunk?;
        discarded.map_err(|error| Error::Pager { page: end, error })
    }

    /// Takes the memory of all pages from `end` on, to which no translation is left.
    fn take_tail(
        &self,
        state: &mut ObjectState<M>,
        in_object: &mut Token<'_, order::Object>,
        end: ObjectPage,
    ) {
        let (mmu, machine) = (&self.manager.mmu, &self.machine);
        state.pages.each_from(end, |number, page| {
            if !page.state.is_resident() {
                return;
            }
            if let Some(place) = page.place.take() {
                self.budget.residents.lock(in_object).0.remove(place);
            }
            mmu.release(machine, number);
            self.count_out();
        });
        state.pages.cut(end);
    }

    /// Brings pages in for the spaces that have them locked.
    fn populate(self: &Arc<Self>, span: ObjectSpan) -> Result<(), Error> {
        let mut last = 0;
        while let Some((number, space)) = self.next_pinning(last, span) {
            last = number;
            if let Some(space) = space.upgrade() {
                space.populate_object(self, span)?;
            }
        }
        Ok(())
    }

    /// Of the spaces with greater numbers that have pages of `span` locked, the first.
    fn next_pinning(&self, last: u64, span: ObjectSpan) -> Option<(u64, Weak<SpaceCore<M>>)> {
        let mut nothing = Token::nothing_held();
        let (state, _) = self.state.lock(&mut nothing);
        let later = state.references.iter().filter(|r| r.number > last && r.pins(span));
        let first = later.min_by_key(|reference| reference.number)?;
        Some((first.number, Weak::clone(&first.space)))
    }
}
