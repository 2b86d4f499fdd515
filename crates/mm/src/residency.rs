//! Residency: unlocked, locked, super-locked.
//!
//! A mapping says whether it is locked, a space whether it is super-locked; pages say nothing. Who wants to
//! evict one asks all mappings of it (the walk). So a lock first says so, and then brings pages in: what is
//! evicted in between was not in yet, and what is in stays. Leaving a state restores the former one, since nothing
//! of it was written over.
//!
//! | | evicted | read faults | write faults |
//! |---|---|---|---|
//! | unlocked | yes | yes | yes |
//! | locked | no | not after the lock | the first after each write-back, to know what was changed |
//! | super-locked | no | no | no |
//!
//! Pages of a *lazy* mapping that nobody has ever referenced have no memory in any of them, and get it with
//! the first reference.

use alloc::{sync::Arc, vec::Vec};

use crate::{
    Access, AddressSpace, Error, FaultError, Mmu, ObjectSpan, Page, Span, VirtualPage, VirtualSpan,
    object::ObjectCore,
    order::Token,
    space::{Mapping, SpaceCore, SpaceState},
};

/// How the memory of a mapping is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Residency {
    /// It comes with references, and may go at any time.
    Unlocked,
    /// It is there, and stays; writes may still fault.
    Locked,
}

/// Which mappings a call for a whole space means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those that there are.
    Present,
    /// Those that there are and those to come.
    PresentAndFuture,
}

impl<M: Mmu> AddressSpace<M> {
    /// Locks the pages of `span`: those that are not lazy, or have been referenced, are in memory, and can be
    /// read without a fault, when this returns, and all stay there once they have come.
    ///
    /// # Errors
    /// [`Error::BadSpan`], [`Error::NotMapped`], [`Error::NoMemory`]: nothing has changed.
    /// [`Error::Fault`]: a page could not be brought in; what was locked before is still, nothing else is.
    pub fn lock(&self, span: VirtualSpan) -> Result<(), Error> {
        self.core.check(span)?;
        self.core.lock(span, SpaceState::all_mapped)
    }

    /// Unlocks the pages of `span`, however often they were locked.
    ///
    /// # Errors
    /// As [`lock`](Self::lock), without [`Error::Fault`].
    pub fn unlock(&self, span: VirtualSpan) -> Result<(), Error> {
        self.core.check(span)?;
        let mut nothing = Token::nothing_held();
        let (mut state, _) = self.core.state.write(&mut nothing);
        state.all_mapped(span)?;
        self.core.split_ends(&mut state, span)?;
        self.core.set_locked(&mut state, span, false, |_| true);
        Ok(())
    }

    /// Locks everything that is mapped, and maybe everything that will be.
    ///
    /// # Errors
    /// [`Error::Fault`]: a page could not be brought in. What was not locked before is not, and the future is
    /// as it was.
    pub fn lock_all(&self, scope: Scope) -> Result<(), Error> {
        let mut nothing = Token::nothing_held();
        let before = {
            let (mut state, _) = self.core.state.write(&mut nothing);
            core::mem::replace(&mut state.lock_future, scope == Scope::PresentAndFuture)
        };
        self.core.lock(self.core.span, |_, _| Ok(())).inspect_err(|_| {
            let (mut state, _) = self.core.state.write(&mut nothing);
            state.lock_future = before;
        })
    }

    /// Unlocks everything, now and for the future.
    pub fn unlock_all(&self) {
        let mut nothing = Token::nothing_held();
        let (mut state, _) = self.core.state.write(&mut nothing);
        state.lock_future = false;
        self.core.set_locked(&mut state, self.core.span, false, |_| true);
    }

    /// Makes the whole space one in which nothing faults: all that is mapped and not lazy, or has been
    /// referenced, is in memory with all rights when this returns, and so will be whatever is mapped.
    /// Writes are not seen any more, so what can be written counts as dirty.
    ///
    /// # Errors
    /// [`Error::Fault`]: a page could not be brought in; the space is as it was.
    pub fn super_lock(&self) -> Result<(), Error> {
        loop {
            self.core.begin_super_lock();
            let populated = self.core.populate(self.core.span);
            // If not, another call of this has failed meanwhile, or somebody has ended it.
            if self.core.end_super_lock(populated.is_ok()) || populated.is_err() {
                return populated;
            }
        }
    }

    /// Ends it. What was locked before is locked.
    pub fn super_unlock(&self) {
        let mut nothing = Token::nothing_held();
        let (mut state, _) = self.core.state.write(&mut nothing);
        state.super_complete = false;
        state.set_super_locked(false);
    }
}

impl<M: Mmu> SpaceState<M> {
    fn set_super_locked(&mut self, super_locked: bool) {
        self.super_locked = super_locked;
        for reference in &self.references {
            reference.list.set_super_locked(super_locked);
        }
    }
}

impl<M: Mmu> SpaceCore<M> {
    /// Locks what is mapped in `span`, if it passes `check`.
    fn lock(
        self: &Arc<Self>,
        span: VirtualSpan,
        check: impl FnOnce(&SpaceState<M>, VirtualSpan) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut fresh = Vec::new();
        {
            let mut nothing = Token::nothing_held();
            let (mut state, _) = self.state.write(&mut nothing);
            check(&state, span)?;
            self.split_ends(&mut state, span)?;
            let unlocked = || state.mappings_in(span).filter(|mapping| !mapping.locked);
            fresh.try_reserve_exact(unlocked().count())?;
            fresh.extend(unlocked().map(Mapping::view));
            self.set_locked(&mut state, span, true, |_| true);
        }
        self.populate(span).inspect_err(|_| {
            for view in fresh {
                let mut nothing = Token::nothing_held();
                let (mut state, _) = self.state.write(&mut nothing);
                // Without memory for the split it stays locked as a whole, which loses nothing. What
                // somebody has mapped in its place meanwhile is as that somebody wants it.
                if self.split_ends(&mut state, view.extent.at).is_ok() {
                    self.set_locked(&mut state, view.extent.at, false, |m| m.is_of(view));
                }
            }
        })
    }

    /// Says of those mappings in `span`, which end with it, that are wanted, whether they are locked.
    fn set_locked(
        &self,
        state: &mut SpaceState<M>,
        span: VirtualSpan,
        locked: bool,
        wanted: impl Fn(&Mapping<M>) -> bool,
    ) {
        let mut at = span.first();
        loop {
            let rest = Span::between(at, span.end());
            let first = state.mappings_in(rest).next().map(|m| m.extent.at.first());
            let Some(first) = first else { break };
            let Some(mapping) = state.mappings.at_or_before_mut(first.number()) else { break };
            at = mapping.extent.at.end();
            if !wanted(mapping) {
                continue;
            }
            mapping.locked = locked;
            if let Some(slot) = self.slots.get(mapping.slot) {
                slot.set_locked(locked);
            }
        }
        self.join(state, span);
    }

    fn begin_super_lock(&self) {
        let mut nothing = Token::nothing_held();
        let (mut state, _) = self.state.write(&mut nothing);
        if !state.super_locked {
            state.set_super_locked(true);
        }
    }

    /// All that has to be in memory is, or some of it could not be brought in. Whether the space is super-locked.
    fn end_super_lock(&self, populated: bool) -> bool {
        let mut nothing = Token::nothing_held();
        let (mut state, _) = self.state.write(&mut nothing);
        state.super_complete |= populated && state.super_locked;
        // Whoever has been told that the space is super-locked is not betrayed by a later call that fails.
        if !populated && !state.super_complete {
            state.set_super_locked(false);
        }
        state.super_locked
    }

    /// Brings in all pages of `span` that have to be in memory. Nothing is locked. What is unmapped or cut
    /// off meanwhile is passed over.
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

    /// The first pages from `at` on of which one mapping shows some of `span`. Whoever asks again with the
    /// end of these comes by all of them, however mappings are cut in two meanwhile.
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

    /// The first page from `at` on, below `end`, that lies in a mapping whose pages have to be in memory.
    fn next_pinned(&self, at: VirtualPage, end: VirtualPage) -> Option<VirtualPage> {
        // A mapping can go on behind `end`, where nobody has asked for its pages.
        if at >= end {
            return None;
        }
        let mut nothing = Token::nothing_held();
        let (state, _) = self.state.read(&mut nothing);
        let all = state.super_locked;
        let mut mappings = state.mappings_in(Span::between(at, end));
        let found = mappings.find(|mapping| all || mapping.locked)?;
        Some(found.extent.at.first().max(at))
    }

    /// Brings one page in, unless its mapping is lazy and it was never referenced.
    fn bring(self: &Arc<Self>, at: VirtualPage) -> Result<(), FaultError> {
        self.redo(at, Access::Read, crate::fault::Purpose::Keep, &mut None)
    }
}
