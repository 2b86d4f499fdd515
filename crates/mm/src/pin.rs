//! Pins: memory that stays while a device or the kernel uses it without translations.
//!
//! Direct I/O, `vmsplice` and registered buffers keep to the memory that a page has when the I/O begins. If the page is
//! evicted meanwhile, what arrives goes into memory that no page has any more; and what arrives after a write-back is
//! not seen as a change. No machine can tell the manager of such I/O, so the program says when it is under way.
//!
//! # Invariants
//! 1. A pin lies on the pages of objects, not on mappings: it outlives an unmapping, and `unlock` does not end it.
//! 2. A pinned page is not evicted and not discarded, and the page-out does not take its translations away.
//! 3. A page that is pinned for writing is dirty from before [`AddressSpace::pin`] returns until a write-back after the
//!    pin has ended. A write-back meanwhile writes it, and it stays dirty.
//! 4. Each pin is counted by itself: pages of several pins stay until the last has ended.
//!
//! A cut of the object takes its memory all the same.

use alloc::{sync::Arc, vec::Vec};
use core::fmt;

use crate::{
    Access, AddressSpace, Error, FaultError, Mmu, ObjectSpan, Pages, Span, VirtualSpan,
    fault::Purpose, object::ObjectCore, order::Token, reverse::NodeId, space::SpaceCore,
};

impl<M: Mmu> AddressSpace<M> {
    /// Keeps the pages of `span` in memory until the result is dropped: for I/O that uses memory without translations.
    /// When this returns, all of them are in memory, those of lazy mappings too. With [`Access::Write`], the I/O may
    /// write to them, and they count as dirty; otherwise it may only read.
    ///
    /// The pages count against the limit of [`set_locked_limit`](Self::set_locked_limit), also those that are locked.
    ///
    /// # Errors
    /// [`Error::BadSpan`], [`Error::NotMapped`], [`Error::LockedLimit`], [`Error::NoMemory`], as for
    /// [`lock`](Self::lock). [`Error::Fault`]: a page could not be brought in, or its mapping does not permit `access`.
    /// Nothing is pinned then.
    pub fn pin(&self, span: VirtualSpan, access: Access) -> Result<Pinned<M>, Error> {
        self.core.check(span)?;
        let mut pinned = Pinned { space: Arc::clone(&self.core), pages: 0, pins: Vec::new() };
        pinned.begin(span, access)?;
        for at in span.iter() {
            let brought = self.core.redo(at, access, Purpose::Reference, &mut None);
            brought.map_err(|error| Error::Fault { at, error })?;
        }
        Ok(pinned)
    }
}

/// A pin of pages. Dropping it ends the pin, and waits for the locks of the space and of its objects. It keeps the space
/// alive.
#[must_use]
pub struct Pinned<M: Mmu> {
    space: Arc<SpaceCore<M>>,
    /// How many pages it counts in the space.
    pages: u64,
    pins: Vec<(Arc<ObjectCore<M>>, ObjectSpan, NodeId)>,
}

impl<M: Mmu> Pinned<M> {
    /// How many pages are pinned.
    #[must_use]
    pub fn pages(&self) -> Pages {
        Pages(self.pages)
    }

    /// Sets the pins, after all checks that need no page in memory.
    fn begin(&mut self, span: VirtualSpan, access: Access) -> Result<(), Error> {
        let mut nothing = Token::nothing_held();
        let (mut state, mut in_space) = self.space.state.write(&mut nothing);
        state.all_mapped(span)?;
        state.all_usable(span, &mut in_space)?;
        state.within_limit(state.locked.saturating_add(span.pages().0))?;
        self.pins.try_reserve_exact(state.mappings_in(span).count())?;
        for mapping in state.mappings_in(span) {
            let shown = mapping.extent.at.intersection(&span);
            if !mapping.protection.permits(access) {
                let error = FaultError::Protection;
                return Err(Error::Fault { at: shown.first(), error });
            }
            let first = mapping.extent.page(shown.first());
            let pages = Span::between(first, mapping.extent.page(shown.end()));
            let object = &mapping.reference.object;
            let (mut of_object, _) = object.state.lock(&mut in_space);
            object.pin(&mut of_object, pages)?;
            let noted = of_object.io.insert(pages, access);
            let node = noted.inspect_err(|_| object.unpin(&mut of_object, pages))?;
            self.pins.push((Arc::clone(object), pages, node));
        }
        self.pages = span.pages().0;
        state.pinned = state.pinned.saturating_add(self.pages);
        Ok(())
    }
}

impl<M: Mmu> Drop for Pinned<M> {
    fn drop(&mut self) {
        let mut nothing = Token::nothing_held();
        for (object, pages, node) in &self.pins {
            let (mut of_object, _) = object.state.lock(&mut nothing);
            of_object.io.remove(*node);
            object.unpin(&mut of_object, *pages);
        }
        if self.pages > 0 {
            let (mut state, _) = self.space.state.write(&mut nothing);
            state.pinned = state.pinned.saturating_sub(self.pages);
        }
    }
}

impl<M: Mmu> fmt::Debug for Pinned<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned")
            .field("space", &self.space.number)
            .field("pages", &self.pages)
            .finish_non_exhaustive()
    }
}
