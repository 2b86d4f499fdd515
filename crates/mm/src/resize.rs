//! Resize: an object gets a new end.
//!
//! A cut cannot lock the spaces that map the object: the walk takes their translations away. Its steps:
//! 1. The size changes; from here on faults on the tail fail, and no translation to it is made.
//! 2. The translations to the tail are taken away. If the machine cannot, the size is the old one again.
//! 3. As long as a thread works on a page of the tail, without the lock, it is waited for. A read that completes later,
//!    or has taken too long, is given up instead (`reads.rs`).
//! 4. The tail's memory is released, and the machine and the pager are told.
//!
//! If the object grows again, the new pages are zeros, whatever the pager still has.
//!
//! Growing reserves room for the new pages that mappings have locked already, changes the size, and then fills these
//! pages. A mapping may reach past the end: its pages there become usable when the object grows.

use alloc::sync::{Arc, Weak};

use crate::{
    Error, FaultError, Mmu, Object, ObjectPage, ObjectSpan, Pages, Residents, Span,
    object::{ObjectCore, ObjectState},
    order::{self, Token},
    space::SpaceCore,
};

impl<M: Mmu> Object<M> {
    /// Gives the object `pages` pages. Contents that are cut off are lost; new pages are zeros. Mappings keep their
    /// length: accesses past the object's end fail.
    ///
    /// # Errors
    /// - [`Error::BadSpan`]: nothing has changed.
    /// - [`Error::NoMemory`] if the new pages that mappings have locked do not fit into the budget: nothing has changed.
    /// - The machine's error: a growing object has its old size. So has one that was to be cut, if translations could
    ///   not be taken away; otherwise it has the new one.
    /// - [`Error::Pager`] if the pager could not drop what was cut off: the size has changed nevertheless, and the
    ///   old contents never come back.
    /// - [`Error::Fault`] if a new page could not be brought in for a space that has it locked: the size has changed.
    pub fn resize(&self, pages: Pages) -> Result<(), Error> {
        let tail = ObjectSpan::new(ObjectPage::new(0), pages).ok_or(Error::BadSpan)?.end();
        let alone = self.core.alone();
        let before = alone.size;
        if pages.0 < before { self.core.cut(tail, before) } else { self.core.grow(tail) }?;
        drop(alone);
        if pages.0 > before {
            self.core.populate(Span::between(ObjectPage::new(before), tail))?;
        }
        Ok(())
    }
}

/// The only resize or discard of an object, until it is dropped; also while a pager panics.
pub(crate) struct Alone<'a, M: Mmu> {
    object: &'a ObjectCore<M>,
    /// The object's size at the beginning.
    size: u64,
}

impl<M: Mmu> Drop for Alone<'_, M> {
    fn drop(&mut self) {
        let mut nothing = Token::nothing_held();
        self.object.state.lock(&mut nothing).0.resizing = false;
    }
}

impl<M: Mmu> ObjectCore<M> {
    /// Waits until no other resize or discard runs, and keeps others away.
    pub(crate) fn alone(&self) -> Alone<'_, M> {
        let mut attempt = 0_u32;
        loop {
            let mut nothing = Token::nothing_held();
            let (mut state, _) = self.state.lock(&mut nothing);
            if !state.resizing {
                state.resizing = true;
                return Alone { object: self, size: state.size };
            }
            drop(state);
            attempt = attempt.saturating_add(1);
            self.manager.mmu.idle(attempt);
        }
    }

    fn grow(&self, end: ObjectPage) -> Result<(), Error> {
        let mut nothing = Token::nothing_held();
        {
            let (mut state, _) = self.state.lock(&mut nothing);
            self.count_pins(&mut state, end)?;
        }
        let grown = self.manager.mmu.resize_object(&self.machine, Pages(end.number()));
        let (mut state, _) = self.state.lock(&mut nothing);
        if let Err(error) = grown {
            let size = ObjectPage::new(state.size);
            self.count_pins(&mut state, size)?;
            return Err(error.into());
        }
        state.size = end.number();
        Ok(())
    }

    fn cut(&self, end: ObjectPage, before: u64) -> Result<(), Error> {
        let tail = Span::between(end, ObjectPage::new(before));
        let mut nothing = Token::nothing_held();
        let (mut state, _) = self.state.lock(&mut nothing);
        state.size = end.number();
        if !M::RELEASE_UNMAPS {
            let withdrawal = self.take_away(&state, tail);
            drop(state);
            if let Err(error) = self.finish(withdrawal) {
                self.state.lock(&mut nothing).0.size = before;
                return Err(match error {
                    FaultError::Machine(error) => Error::Machine(error),
                    _ => Error::NoMemory,
                });
            }
            (state, _) = self.state.lock(&mut nothing);
        }
        self.count_pins(&mut state, end)?;
        drop(state);
        let mut attempt = 0_u32;
        loop {
            let (mut state, mut in_object) = self.state.lock(&mut nothing);
            if state.pages.position(end, tail.end(), |page| page.is_busy()).is_none() {
                self.take_tail(&mut state, &mut in_object, end);
                break;
            }
            drop(state);
            // A request that completes later is not waited for, nor a call that has taken too long.
            if !self.cut_read(end) {
                attempt = attempt.saturating_add(1);
                self.manager.mmu.idle(attempt);
            }
        }
        // Those that are overdue, whose pages are not busy.
        while self.cut_read(end) {}
        let shrunk = self.manager.mmu.resize_object(&self.machine, Pages(end.number()));
        let discarded = self.pager.discard(tail);
        shrunk?;
        discarded.map_err(|error| Error::Pager { page: end, error })
    }

    /// Releases the memory of all pages from `end` on. Their translations are withdrawn, or go with the memory.
    fn take_tail(
        &self,
        state: &mut ObjectState<M>,
        in_object: &mut Token<'_, order::Object>,
        end: ObjectPage,
    ) {
        state.pages.each_from(end, |number, page| {
            if !page.state.is_resident() {
                return;
            }
            self.release(number);
            let place = page.place.take();
            self.count_out(in_object, place, Residents::remove);
        });
        state.pages.cut(end);
    }

    /// Brings the pages of `span` in for the spaces that have them locked.
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

    /// The space with the lowest number above `last` that has pages of `span` locked.
    fn next_pinning(&self, last: u64, span: ObjectSpan) -> Option<(u64, Weak<SpaceCore<M>>)> {
        let mut nothing = Token::nothing_held();
        let (state, _) = self.state.lock(&mut nothing);
        let first = state.next_pinning(last, span)?;
        Some((first.number, Weak::clone(&first.space)))
    }
}
