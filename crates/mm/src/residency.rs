//! Residency: unlocked, locked, super-locked.
//!
//! A mapping has a flag that it is locked, a space that it is super-locked; pages have none. An eviction asks all
//! mappings of its page (the walk). So a lock sets the flag first, and then brings pages in: a page that is
//! evicted in between is brought in after that, and a page that is in memory stays. Ending a state restores the
//! former one, whose flags have not changed.
//!
//! A lock first checks what needs no page in memory: that its pages can be brought in, that the space may lock so
//! many, and that they fit into their budgets alone. If not, nothing has changed and nothing was evicted. Pages that
//! other spaces have locked in the same budget are not counted.
//!
//! | | evicted | read faults | write faults |
//! |---|---|---|---|
//! | unlocked | yes | yes | yes |
//! | locked | no | not after the lock | the first after each write-back, which makes the page dirty |
//! | super-locked | no | no | no |
//!
//! A space is super-locked while somebody has an [`IoPrivilege`] for it.
//!
//! In every state, a page of a *lazy* mapping that was never accessed has no memory; its first access brings it in.

use alloc::{sync::Arc, vec::Vec};
use core::fmt;

use crate::{
    Access, AddressSpace, Error, FaultError, Mmu, ObjectPage, ObjectSpan, Page, Pages, Span,
    VirtualPage, VirtualSpan,
    manager::Core,
    object::ObjectCore,
    order::{self, Token},
    space::{Mapping, SpaceCore, SpaceState},
};

/// Whether the pages of a mapping may leave memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Residency {
    /// Pages are brought in by accesses, and may be evicted at any time.
    Unlocked,
    /// Pages are in memory and stay; writes may still fault.
    Locked,
}

/// Which mappings [`AddressSpace::lock_all`] locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Present mappings; later ones are as their objects say.
    Present,
    /// Only mappings that are made from now on; present ones stay as they are.
    Future,
    /// Present and future mappings.
    PresentAndFuture,
}

impl<M: Mmu> AddressSpace<M> {
    /// Locks the pages of `span`. When this returns, all of them that are not lazy, or were accessed before, are in
    /// memory and can be read without a fault. Once in memory, a page stays there.
    ///
    /// # Errors
    /// [`Error::BadSpan`], [`Error::NotMapped`], [`Error::LockedLimit`]: nothing has changed. [`Error::NoMemory`]: as
    /// well; it is also the error if the pages, lazy ones too, are more than their budget, and then nothing was evicted.
    /// [`Error::Fault`] with [`FaultError::Protection`] or [`FaultError::PastEnd`]: the page it names cannot be brought
    /// in, and is not lazy; nothing has changed. With another error: a page could not be brought in, and only pages
    /// that were locked before are locked.
    pub fn lock(&self, span: VirtualSpan) -> Result<(), Error> {
        self.core.check(span)?;
        self.core.lock(span, |state, in_space| {
            state.all_mapped(span)?;
            state.all_usable(span, in_space)
        })
    }

    /// Unlocks the pages of `span`, however often they were locked.
    ///
    /// # Errors
    /// [`Error::BadSpan`], [`Error::NotMapped`], [`Error::NoMemory`]: nothing has changed.
    pub fn unlock(&self, span: VirtualSpan) -> Result<(), Error> {
        self.core.check(span)?;
        let mut nothing = Token::nothing_held();
        let (mut state, mut in_space) = self.core.state.write(&mut nothing);
        state.all_mapped(span)?;
        self.core.split_ends(&mut state, &mut in_space, span)?;
        self.core.set_locked(&mut state, &mut in_space, span, false, |_| true);
        Ok(())
    }

    /// Locks all present mappings, and future ones too if `scope` says so. Pages that no access is permitted to, or
    /// that lie past the end of their object, are brought in when that changes.
    ///
    /// # Errors
    /// [`Error::LockedLimit`], [`Error::NoMemory`], as for [`lock`](Self::lock); [`Error::Fault`] if a page could not be brought in. Only mappings that were locked before
    /// are locked, and future mappings are treated as before.
    pub fn lock_all(&self, scope: Scope) -> Result<(), Error> {
        let mut nothing = Token::nothing_held();
        let before = {
            let (mut state, _) = self.core.state.write(&mut nothing);
            core::mem::replace(&mut state.lock_future, scope != Scope::Present)
        };
        if scope == Scope::Future {
            return Ok(());
        }
        self.core.lock(self.core.span, |_, _| Ok(())).inspect_err(|_| {
            let (mut state, _) = self.core.state.write(&mut nothing);
            state.lock_future = before;
        })
    }

    /// Unlocks everything, now and for the future.
    pub fn unlock_all(&self) {
        let mut nothing = Token::nothing_held();
        let (mut state, mut in_space) = self.core.state.write(&mut nothing);
        state.lock_future = false;
        self.core.set_locked(&mut state, &mut in_space, self.core.span, false, |_| true);
    }

    /// Sets the most pages that this space may lock: those of locked mappings, all mapped pages while the space is
    /// super-locked, and [pinned](Self::pin) pages. Pages that two mappings show count twice. What is locked already stays locked.
    pub fn set_locked_limit(&self, limit: Pages) {
        let mut nothing = Token::nothing_held();
        self.core.state.write(&mut nothing).0.locked_limit = limit.0;
    }

    /// Grants the privilege to do I/O: as long as anyone has one for this space, the space is super-locked, and no
    /// access faults. When this returns, all mapped pages that are not lazy, or were accessed before, are in memory
    /// with all the rights of their mappings; so are the pages of later mappings. Writes do not fault and cannot be
    /// noticed, so every page that can be written counts as dirty.
    ///
    /// # Errors
    /// [`Error::LockedLimit`]; [`Error::NoMemory`] if the mapped pages are more than a budget, or there are too many
    /// privileges: nothing has changed, and nothing was evicted. [`Error::Fault`]: a page could not be brought in;
    /// no privilege is granted, and others still count.
    pub fn io_privilege(&self) -> Result<IoPrivilege<M>, Error> {
        self.core.grant()?;
        // Counted from here on, so no other thread can end the super-lock; dropped if a page cannot be brought in.
        let granted = IoPrivilege { space: Arc::clone(&self.core) };
        self.core.populate(self.core.span)?;
        Ok(granted)
    }
}

/// The privilege to do I/O in a space, which keeps the space super-locked. Dropping it gives it back; the last one
/// restores what was: locked mappings stay locked. It keeps the space alive, and the drop waits for the space's lock.
#[must_use]
pub struct IoPrivilege<M: Mmu> {
    space: Arc<SpaceCore<M>>,
}

impl<M: Mmu> Drop for IoPrivilege<M> {
    fn drop(&mut self) {
        self.space.revoke();
    }
}

impl<M: Mmu> fmt::Debug for IoPrivilege<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IoPrivilege").field("space", &self.space.number).finish()
    }
}

impl<M: Mmu> SpaceState<M> {
    /// Checks that every page of `span` could be brought in, as far as its mapping is not lazy.
    pub(crate) fn all_usable(
        &self,
        span: VirtualSpan,
        in_space: &mut Token<'_, order::Space>,
    ) -> Result<(), Error> {
        for mapping in self.mappings_in(span).filter(|mapping| !mapping.lazy) {
            let shown = mapping.extent.at.intersection(&span);
            if !mapping.protection.permits(Access::Read) {
                return Err(Error::Fault { at: shown.first(), error: FaultError::Protection });
            }
            let (of_object, _) = mapping.reference.object.state.lock(in_space);
            let first = mapping.extent.page(shown.first()).number();
            let there = of_object.size.saturating_sub(first);
            if there < shown.pages().0 {
                let at = shown.first().plus(there);
                return Err(Error::Fault { at, error: FaultError::PastEnd });
            }
        }
        Ok(())
    }

    /// Checks that the space may lock `pages` pages in all, beside those that it has pinned.
    pub(crate) fn within_limit(&self, pages: u64) -> Result<(), Error> {
        let pages = pages.saturating_add(self.pinned);
        if pages > self.locked_limit {
            return Err(Error::LockedLimit {
                limit: Pages(self.locked_limit),
                asked: Pages(pages),
            });
        }
        Ok(())
    }

    /// Checks that the pages of `span` that are not locked yet are no more than their budgets allow. A page that is
    /// shown several times counts once, and a page of a lazy mapping counts even if it was never accessed.
    pub(crate) fn fits(
        &self,
        manager: &Core<M>,
        span: VirtualSpan,
        in_space: &mut Token<'_, order::Space>,
    ) -> Result<(), Error> {
        let new = || self.mappings_in(span).filter(|mapping| !mapping.locked);
        let mut parts = Vec::new();
        parts.try_reserve_exact(new().count())?;
        for mapping in new() {
            let shown = mapping.extent.at.intersection(&span);
            let first = mapping.extent.page(shown.first());
            let object = &mapping.reference.object;
            let (of_object, _) = object.state.lock(in_space);
            let pages = of_object.within(Span::between(first, first.plus(shown.pages().0)));
            parts.push((object, pages));
        }
        parts.sort_unstable_by_key(|(object, pages)| {
            (Arc::as_ptr(&object.budget).addr(), object.number, pages.first())
        });
        let (mut total, mut within) = (0_u64, 0_u64);
        let mut before: Option<(usize, u64, ObjectPage)> = None;
        for (object, pages) in parts {
            let (budget, number) = (Arc::as_ptr(&object.budget).addr(), object.number);
            let counted = match before {
                Some((of, same, end)) if (of, same) == (budget, number) => end,
                _ => pages.first(),
            };
            if before.is_none_or(|(of, ..)| of != budget) {
                within = 0;
            }
            let fresh = Span::between(pages.first().max(counted), pages.end()).pages().0;
            total = total.saturating_add(fresh);
            within = within.saturating_add(fresh);
            if within > object.budget.limit() || total > manager.settings.budget.0 {
                return Err(Error::NoMemory);
            }
            before = Some((budget, number, pages.end().max(counted)));
        }
        Ok(())
    }

    fn set_super_locked(&mut self, super_locked: bool) {
        self.super_locked = super_locked;
        for reference in &self.references {
            reference.set_super_locked(super_locked);
        }
    }
}

impl<M: Mmu> SpaceCore<M> {
    /// Locks the mappings in `span`, if it passes `check`.
    fn lock(
        self: &Arc<Self>,
        span: VirtualSpan,
        check: impl FnOnce(&SpaceState<M>, &mut Token<'_, order::Space>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut fresh = Vec::new();
        {
            let mut nothing = Token::nothing_held();
            let (mut state, mut in_space) = self.state.write(&mut nothing);
            check(&state, &mut in_space)?;
            self.split_ends(&mut state, &mut in_space, span)?;
            self.may_lock(&state, &mut in_space, span)?;
            let unlocked = || state.mappings_in(span).filter(|mapping| !mapping.locked);
            fresh.try_reserve_exact(unlocked().count())?;
            fresh.extend(unlocked().map(Mapping::view));
            self.set_locked(&mut state, &mut in_space, span, true, |_| true);
        }
        self.populate(span).inspect_err(|_| {
            for view in fresh {
                let mut nothing = Token::nothing_held();
                let (mut state, mut in_space) = self.state.write(&mut nothing);
                // Without memory for the split, the whole mapping stays locked, which loses nothing. What another
                // thread has mapped in its place meanwhile stays as that thread wants it.
                if self.split_ends(&mut state, &mut in_space, view.extent.at).is_ok() {
                    self.set_locked(&mut state, &mut in_space, view.extent.at, false, |m| {
                        m.is_of(view)
                    });
                }
            }
        })
    }

    /// Checks that the pages of `span` may be locked, before anything is done.
    fn may_lock(
        &self,
        state: &SpaceState<M>,
        in_space: &mut Token<'_, order::Space>,
        span: VirtualSpan,
    ) -> Result<(), Error> {
        let new = state.mappings_in(span).filter(|mapping| !mapping.locked);
        let new: u64 = new.map(|mapping| mapping.extent.at.pages().0).sum();
        state.within_limit(state.locked.saturating_add(new))?;
        // In a super-locked space these pages have to be in memory already.
        if state.super_locked { Ok(()) } else { state.fits(&self.manager, span, in_space) }
    }

    /// Checks that a new mapping of `pages` pages of `object` may be locked.
    pub(crate) fn may_pin(
        &self,
        state: &SpaceState<M>,
        object: &ObjectCore<M>,
        pages: Pages,
    ) -> Result<(), Error> {
        let before = if state.super_locked { state.mapped } else { state.locked };
        state.within_limit(before.saturating_add(pages.0))?;
        let limit = object.budget.limit().min(self.manager.settings.budget.0);
        if pages.0 > limit { Err(Error::NoMemory) } else { Ok(()) }
    }

    /// Sets the flag of the mappings in `span` for which `wanted` holds. No mapping reaches across an end of `span`.
    fn set_locked(
        &self,
        state: &mut SpaceState<M>,
        in_space: &mut Token<'_, order::Space>,
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
            if mapping.locked == locked || !wanted(mapping) {
                continue;
            }
            let pages = mapping.extent.at.pages().0;
            state.locked = match locked {
                true => state.locked.saturating_add(pages),
                false => state.locked.saturating_sub(pages),
            };
            mapping.locked = locked;
            let (mut of_object, _) = mapping.reference.object.state.lock(in_space);
            if let Some(showing) = of_object.mappings.get_mut(mapping.node) {
                showing.locked = locked;
            }
        }
        state.join(in_space, span);
    }

    /// Counts one more privilege; the first super-locks the space.
    fn grant(&self) -> Result<(), Error> {
        let mut nothing = Token::nothing_held();
        let (mut state, mut in_space) = self.state.write(&mut nothing);
        let privileges = state.privileges.checked_add(1).ok_or(Error::NoMemory)?;
        if state.privileges == 0 {
            state.within_limit(state.mapped)?;
            state.fits(&self.manager, self.span, &mut in_space)?;
            state.set_super_locked(true);
        }
        state.privileges = privileges;
        Ok(())
    }

    /// Counts one privilege less; the last ends the super-lock.
    fn revoke(&self) {
        let mut nothing = Token::nothing_held();
        let (mut state, _) = self.state.write(&mut nothing);
        state.privileges = state.privileges.saturating_sub(1);
        if state.privileges == 0 {
            state.set_super_locked(false);
        }
    }

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
        let all = state.super_locked;
        let mut pinned = state.mappings_in(rest).filter(|mapping| all || mapping.locked);
        pinned.find_map(|mapping| {
            let shown = mapping.extent.at.intersection(&rest);
            if !mapping.lazy {
                return Some(shown.first());
            }
            let first = mapping.extent.page(shown.first());
            let pages = Span::between(first, first.plus(shown.pages().0));
            let object = &mapping.reference.object;
            let touched = object.next_page(&mut in_space, pages, |page| page.touched)?;
            Some(mapping.extent.place(touched))
        })
    }

    /// Brings one page in, unless its mapping is lazy and it was never accessed.
    fn bring(self: &Arc<Self>, at: VirtualPage) -> Result<(), FaultError> {
        self.redo(at, Access::Read, crate::fault::Purpose::Keep, &mut None)
    }
}
