//! Residency: unlocked, locked, locked on fault, super-locked.
//!
//! A mapping has a residency, and a space is super-locked or not. A lock first checks that its pages can be brought
//! in and that the space may lock so many. Then it *pins* them (`pins.rs`), which reserves room in their budgets: pages that any
//! space has locked count, each once. If one of these steps fails, nothing has changed and nothing was evicted. From
//! there on no eviction takes a pinned page, and the lock brings the pages in (`populate.rs`). Ending a state restores
//! the former one.
//!
//! | | evicted | brought in | read faults | write faults |
//! |---|---|---|---|---|
//! | unlocked | yes | by accesses | yes | yes |
//! | locked | no | by the lock | not after the lock | the first after each write-back, which makes the page dirty |
//! | locked on fault | no | by accesses | the first | as for locked |
//! | super-locked | no | by the super-lock | no | no |
//!
//! A space is super-locked while somebody has an [`IoPrivilege`] for it.
//!
//! In every state, a page of a *lazy* mapping that was never accessed has no memory; its first access brings it in.

use alloc::{sync::Arc, vec::Vec};
use core::fmt;

use crate::{
    Access, AddressSpace, Error, FaultError, Mmu, Page, Pages, Span, VirtualSpan,
    order::{self, Token},
    space::{Mapping, ObjectView, SpaceCore, SpaceState},
};

/// Whether the pages of a mapping may leave memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Residency {
    /// Pages are brought in by accesses, and may be evicted at any time.
    Unlocked,
    /// Pages are in memory and stay; writes may still fault.
    Locked,
    /// Pages are brought in by accesses, and stay from then on. They take room in their budget from the start.
    LockedOnFault,
}

impl Residency {
    /// Whether pages stay in memory once they are in.
    #[must_use]
    pub const fn is_locked(self) -> bool {
        !matches!(self, Self::Unlocked)
    }

    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Unlocked => 0,
            Self::Locked => 1,
            Self::LockedOnFault => 2,
        }
    }

    /// The residency with this [`number`](Self::number).
    pub(crate) const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Unlocked,
            1 => Self::Locked,
            _ => Self::LockedOnFault,
        }
    }
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
    /// well; it is also the error if the pages, lazy ones too, and all that are locked already, in whatever spaces, are
    /// more than a budget, and then nothing was evicted.
    /// [`Error::Fault`] with [`FaultError::Protection`] or [`FaultError::PastEnd`]: the page it names cannot be brought
    /// in, and is not lazy; nothing has changed. With another error: a page could not be brought in, and only pages
    /// that were locked before are locked.
    pub fn lock(&self, span: VirtualSpan) -> Result<(), Error> {
        self.core.check(span)?;
        self.core.lock(span, Residency::Locked, |state, in_space| {
            state.all_mapped(span)?;
            state.all_usable(span, in_space)
        })
    }

    /// Locks the pages of `span` as they are brought in: pages that are in memory stay, and so does every other page
    /// from its next access on. Brings nothing in. A page that cannot be brought in now, as those past the end of
    /// their object, is locked when it can.
    ///
    /// # Errors
    /// [`Error::BadSpan`], [`Error::NotMapped`], [`Error::LockedLimit`], [`Error::NoMemory`], as for [`lock`](Self::lock):
    /// nothing has changed.
    pub fn lock_on_fault(&self, span: VirtualSpan) -> Result<(), Error> {
        self.core.check(span)?;
        self.core.lock(span, Residency::LockedOnFault, |state, _| state.all_mapped(span))
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
        state.set_residency(&mut in_space, span, Residency::Unlocked, |_| true);
        Ok(())
    }

    /// Locks all present mappings, and future ones too if `scope` says so. Pages that no access is permitted to, or
    /// that lie past the end of their object, are brought in when that changes.
    ///
    /// # Errors
    /// [`Error::LockedLimit`], [`Error::NoMemory`], as for [`lock`](Self::lock); [`Error::Fault`] if a page could not
    /// be brought in. Only mappings that were locked before are locked, and future mappings are treated as before.
    pub fn lock_all(&self, scope: Scope) -> Result<(), Error> {
        self.core.lock_all(scope, Residency::Locked)
    }

    /// As [`lock_all`](Self::lock_all), and pages are locked as accesses bring them in: see
    /// [`lock_on_fault`](Self::lock_on_fault).
    ///
    /// # Errors
    /// [`Error::LockedLimit`], [`Error::NoMemory`]: nothing has changed.
    pub fn lock_all_on_fault(&self, scope: Scope) -> Result<(), Error> {
        self.core.lock_all(scope, Residency::LockedOnFault)
    }

    /// Unlocks everything, now and for the future.
    pub fn unlock_all(&self) {
        let mut nothing = Token::nothing_held();
        let (mut state, mut in_space) = self.core.state.write(&mut nothing);
        state.future = Residency::Unlocked;
        state.set_residency(&mut in_space, self.core.span, Residency::Unlocked, |_| true);
    }

    /// Sets the most pages that this space may lock: those of locked mappings, and all mapped pages while the space is
    /// super-locked. Pages that two mappings show count twice. What is locked already stays locked.
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
        self.core.manager.mmu.flush(&self.core.machine, self.core.span);
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
    fn all_usable(
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

    /// Checks that the space may lock `pages` pages in all.
    pub(crate) fn within_limit(&self, pages: u64) -> Result<(), Error> {
        if pages > self.locked_limit {
            return Err(Error::LockedLimit {
                limit: Pages(self.locked_limit),
                asked: Pages(pages),
            });
        }
        Ok(())
    }

    fn set_super_locked(&mut self, super_locked: bool) {
        self.super_locked = super_locked;
        for reference in &self.references {
            reference.set_super_locked(super_locked);
        }
    }

    /// The mappings in `span` that are unlocked.
    fn unlocked_in(&self, span: VirtualSpan) -> impl Iterator<Item = &Mapping<M>> {
        self.mappings_in(span).filter(|mapping| !mapping.residency.is_locked())
    }

    /// Pins the unlocked mappings in `span`, none of which reaches across an end of it; if one cannot be pinned, none
    /// is. The space is not super-locked.
    fn pin(&self, in_space: &mut Token<'_, order::Space>, span: VirtualSpan) -> Result<(), Error> {
        for (pinned, mapping) in self.unlocked_in(span).enumerate() {
            let object = &mapping.reference.object;
            let (mut of_object, _) = object.state.lock(in_space);
            let said = object.pin(&mut of_object, mapping.extent.of_object());
            drop(of_object);
            if said.is_err() {
                self.unlocked_in(span).take(pinned).for_each(|mapping| mapping.unpin(in_space));
                return said;
            }
        }
        Ok(())
    }

    /// Sets the residency of the mappings in `span` for which `wanted` holds. No mapping reaches across an end of
    /// `span`, and those that become locked are pinned already.
    fn set_residency(
        &mut self,
        in_space: &mut Token<'_, order::Space>,
        span: VirtualSpan,
        residency: Residency,
        wanted: impl Fn(&Mapping<M>) -> bool,
    ) {
        let mut at = span.first();
        loop {
            let rest = Span::between(at, span.end());
            let first = self.mappings_in(rest).next().map(|m| m.extent.at.first());
            let Some(first) = first else { break };
            let super_locked = self.super_locked;
            let Some(mapping) = self.mappings.at_or_before_mut(first.number()) else { break };
            at = mapping.extent.at.end();
            let before = mapping.residency;
            if before == residency || !wanted(mapping) {
                continue;
            }
            mapping.residency = residency;
            let pages = mapping.extent.at.pages().0;
            match (before.is_locked(), residency.is_locked()) {
                (false, true) => self.locked = self.locked.saturating_add(pages),
                (true, false) => self.locked = self.locked.saturating_sub(pages),
                (true, true) | (false, false) => continue,
            }
            let object = &mapping.reference.object;
            let (mut of_object, _) = object.state.lock(in_space);
            if let Some(showing) = of_object.mappings.get_mut(mapping.node) {
                showing.locked = residency.is_locked();
            }
            if !residency.is_locked() && !super_locked {
                object.unpin(&mut of_object, mapping.extent.of_object());
            }
        }
        self.join(in_space, span);
    }
}

impl<M: Mmu> Mapping<M> {
    fn unpin(&self, in_space: &mut Token<'_, order::Space>) {
        let object = &self.reference.object;
        let (mut of_object, _) = object.state.lock(in_space);
        object.unpin(&mut of_object, self.extent.of_object());
    }
}

impl<M: Mmu> SpaceCore<M> {
    /// Gives the mappings in `span` a residency that is locked, if they pass `check`.
    fn lock(
        self: &Arc<Self>,
        span: VirtualSpan,
        residency: Residency,
        check: impl FnOnce(&SpaceState<M>, &mut Token<'_, order::Space>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut changed = Vec::new();
        {
            let mut nothing = Token::nothing_held();
            let (mut state, mut in_space) = self.state.write(&mut nothing);
            check(&state, &mut in_space)?;
            self.split_ends(&mut state, &mut in_space, span)?;
            let new: u64 = state.unlocked_in(span).map(|m| m.extent.at.pages().0).sum();
            state.within_limit(state.locked.saturating_add(new))?;
            let others = || state.mappings_in(span).filter(|m| m.residency != residency);
            changed.try_reserve_exact(others().count())?;
            changed.extend(others().map(|mapping| (mapping.view(), mapping.residency)));
            // In a super-locked space all of them are pinned already.
            if !state.super_locked {
                state.pin(&mut in_space, span)?;
            }
            state.set_residency(&mut in_space, span, residency, |_| true);
        }
        if residency == Residency::LockedOnFault {
            return Ok(());
        }
        self.populate(span).inspect_err(|_| self.restore(&changed, residency))
    }

    /// Gives mappings the residency that they had before they got `residency`.
    fn restore(&self, changed: &[(ObjectView, Residency)], residency: Residency) {
        for (view, before) in changed {
            let mut nothing = Token::nothing_held();
            let (mut state, mut in_space) = self.state.write(&mut nothing);
            // Without memory for the split, the whole mapping stays locked, which loses nothing. What another
            // thread has mapped in its place meanwhile stays as that thread wants it.
            if self.split_ends(&mut state, &mut in_space, view.extent.at).is_ok() {
                state.set_residency(&mut in_space, view.extent.at, *before, |mapping| {
                    mapping.residency == residency && mapping.is_of(*view)
                });
            }
        }
    }

    fn lock_all(self: &Arc<Self>, scope: Scope, residency: Residency) -> Result<(), Error> {
        let mut nothing = Token::nothing_held();
        let future = if scope == Scope::Present { Residency::Unlocked } else { residency };
        let before = {
            let (mut state, _) = self.state.write(&mut nothing);
            core::mem::replace(&mut state.future, future)
        };
        if scope == Scope::Future {
            return Ok(());
        }
        self.lock(self.span, residency, |_, _| Ok(())).inspect_err(|_| {
            let (mut state, _) = self.state.write(&mut nothing);
            state.future = before;
        })
    }

    /// Counts one more privilege; the first super-locks the space.
    fn grant(&self) -> Result<(), Error> {
        let mut nothing = Token::nothing_held();
        let (mut state, mut in_space) = self.state.write(&mut nothing);
        let privileges = state.privileges.checked_add(1).ok_or(Error::NoMemory)?;
        if state.privileges == 0 {
            state.within_limit(state.mapped)?;
            state.pin(&mut in_space, self.span)?;
            state.set_super_locked(true);
        }
        state.privileges = privileges;
        Ok(())
    }

    /// Counts one privilege less; the last ends the super-lock.
    fn revoke(&self) {
        let mut nothing = Token::nothing_held();
        let (mut state, mut in_space) = self.state.write(&mut nothing);
        state.privileges = state.privileges.saturating_sub(1);
        if state.privileges == 0 {
            state.set_super_locked(false);
            state.unlocked_in(self.span).for_each(|mapping| mapping.unpin(&mut in_space));
        }
    }
}
