//! Filling: how a page comes into memory.
//!
//! A thread that finds a page without memory *claims* it under the object's lock: the page becomes `Filling`, and no
//! other thread fills it. Then, with no lock held, the thread takes a place in the budgets (another page may have
//! to be evicted for it), and the pager reads. The thread locks the object again and gives the page its memory. If the
//! pager panics instead, the filling ends as a failure while the thread unwinds.
//! Spaces do not matter here: the fault begins anew afterwards, and checks whether the page is still wanted.

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::Ordering;

use crate::{
    Error, FaultError, Lane, Mmu, ObjectPage, PagerError, State,
    object::{ObjectCore, ObjectState},
    order::Token,
};

/// A page that this thread alone fills.
#[must_use]
#[derive(Debug)]
pub(crate) struct Claim {
    page: ObjectPage,
    /// Whether the pager has contents of it that count.
    kept: bool,
    was: State,
    /// Whether it has a place in the budgets already.
    reserved: bool,
}

/// A filling under way. Dropped while its thread unwinds, it fails.
struct Filling<'a, M: Mmu> {
    object: &'a ObjectCore<M>,
    claim: Claim,
    /// Its pager was called.
    reads: bool,
    ended: bool,
}

impl<M: Mmu> ObjectState<M> {
    /// Claims a page that has no memory and is not being filled.
    pub(crate) fn claim(&mut self, page: ObjectPage, reserved: bool) -> Result<Claim, Error> {
        let entry = self.pages.get_mut(page)?;
        let claim = Claim { page, kept: entry.kept, was: entry.state, reserved };
        entry.state = State::Filling;
        Ok(claim)
    }
}

impl<M: Mmu> ObjectCore<M> {
    /// Fills a page that was claimed. Nothing is locked.
    ///
    /// # Errors
    /// [`FaultError`]: the page has no memory, as before.
    pub(crate) fn fill(self: &Arc<Self>, claim: Claim) -> Result<(), FaultError> {
        let mut filling = Filling { object: self, claim, reads: false, ended: false };
        let result = filling.fill();
        filling.end(result);
        result
    }

    /// The filling of `page` has ended, and pulses were put off for it: they wait again, or end with its error.
    pub(crate) fn go_on(&self, page: ObjectPage, result: Result<(), FaultError>) {
        let mut nothing = Token::nothing_held();
        let (mut state, mut in_object) = self.state.lock(&mut nothing);
        let pulses = &self.manager.pulses;
        state.put_off.retain_mut(|put_off| {
            if put_off.page != page || put_off.failed.is_some() {
                return true;
            }
            if result.is_ok() {
                if pulses.pass_on(put_off.ticket, Lane::Memory, &mut in_object) {
                    self.manager.mmu.pulse(Lane::Memory);
                }
                return false;
            }
            put_off.failed = result.err();
            true
        });
        drop(state);
        while result.is_err() {
            let (mut state, _) = self.state.lock(&mut nothing);
            let failed = state.put_off.iter().position(|put_off| put_off.failed.is_some());
            let Some(failed) = failed.map(|place| state.put_off.swap_remove(place)) else { return };
            drop(state);
            let result = failed.failed.map_or(Ok(()), Err);
            let Some((space, at, access, cookie)) = pulses.done(failed.ticket) else { continue };
            if let Some(space) = space.upgrade() {
                space.counts.serve(result);
                self.manager.mmu.wake(&space.machine, at, access, cookie, result);
            }
        }
    }

    /// Gives memory to the page, with these contents. Its place in the budgets counts as filled then.
    fn place(&self, page: ObjectPage, bytes: &[u8]) -> Result<(), FaultError> {
        let mut nothing = Token::nothing_held();
        let (mut state, mut in_object) = self.state.lock(&mut nothing);
        let cut = page.number() >= state.size;
        let entry = state.pages.find_mut(page).ok_or(FaultError::NoMemory)?;
        if cut {
            return Err(FaultError::PastEnd);
        }
        let (mut residents, _) = self.budget.residents.lock(&mut in_object);
        let place = residents.insert(self.name(page), entry.trace);
        let place = place.map_err(|_| FaultError::NoMemory)?;
        if let Err(error) = self.manager.mmu.fill(&self.machine, page, bytes) {
            residents.remove(place);
            return Err(error.into());
        }
        entry.state = State::Clean;
        entry.place = Some(place);
        entry.touched = true;
        entry.referenced = false;
        self.budget.places.fill();
        self.manager.places.fill();
        self.counts.resident.fetch_add(1, Ordering::Relaxed);
        self.counts.filled.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl<M: Mmu> Filling<'_, M> {
    /// On success the page is `Clean`; otherwise it is still `Filling`.
    fn fill(&mut self) -> Result<(), FaultError> {
        let Self { object, claim, reads, .. } = self;
        let mut bytes = Vec::new();
        let length = object.manager.mmu.page_size();
        bytes.try_reserve_exact(length).map_err(|_| FaultError::NoMemory)?;
        bytes.resize(length, 0);
        if claim.reserved {
            object.budget.sort_if_grown();
        } else {
            object.manager.reserve(&object.budget)?;
            claim.reserved = true;
        }
        if claim.kept {
            *reads = true;
            object.pager.read(claim.page, &mut bytes).map_err(FaultError::Pager)?;
        }
        object.place(claim.page, &bytes)?;
        claim.reserved = false;
        Ok(())
    }

    fn end(&mut self, result: Result<(), FaultError>) {
        self.ended = true;
        let Self { object, claim, .. } = self;
        if core::mem::take(&mut claim.reserved) {
            object.manager.unreserve(&object.budget);
        }
        let mut nothing = Token::nothing_held();
        let (mut state, _) = object.state.lock(&mut nothing);
        let Some(entry) = state.pages.find_mut(claim.page) else { return };
        if let Err(error) = result {
            object.counts.failed.fetch_add(1, Ordering::Relaxed);
            let bad = matches!(error, FaultError::Pager(_));
            entry.state = if bad { State::Bad } else { claim.was };
        }
        let awaited = core::mem::take(&mut entry.awaited);
        drop(state);
        if awaited {
            object.go_on(claim.page, result);
        }
    }
}

impl<M: Mmu> Drop for Filling<'_, M> {
    fn drop(&mut self) {
        if !self.ended {
            // Otherwise the pager of another page has panicked, which was to make room for this one.
            let pager = FaultError::Pager(PagerError::Panicked);
            self.end(Err(if self.reads { pager } else { FaultError::NoMemory }));
        }
    }
}
