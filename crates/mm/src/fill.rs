//! Filling: how a page comes into memory.
//!
//! A thread that finds a page without memory *claims* it under the object's lock: the page becomes `Filling`, and no
//! other thread fills it. Then, with no lock held, the thread takes a place in the budgets (another page may have
//! to be evicted for it), and the pager reads. The thread locks the object again and gives the page its memory.
//! Spaces do not matter here: the fault begins anew afterwards, and checks whether the page is still wanted.

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::Ordering;

use crate::{
    Error, FaultError, Mmu, ObjectPage, State,
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
}

impl<M: Mmu> ObjectState<M> {
    /// Claims a page that has no memory and is not being filled.
    pub(crate) fn claim(&mut self, page: ObjectPage) -> Result<Claim, Error> {
        let entry = self.pages.get_mut(page)?;
        let claim = Claim { page, kept: entry.kept, was: entry.state };
        entry.state = State::Filling;
        Ok(claim)
    }
}

impl<M: Mmu> ObjectCore<M> {
    /// Fills a page that was claimed. Nothing is locked.
    ///
    /// # Errors
    /// [`FaultError`]: the page has no memory, as before.
    pub(crate) fn fill(self: &Arc<Self>, claim: &Claim) -> Result<(), FaultError> {
        let result = self.fill_or_not(claim);
        let mut nothing = Token::nothing_held();
        let (mut state, _) = self.state.lock(&mut nothing);
        let Some(entry) = state.pages.find_mut(claim.page) else { return result };
        if let Err(error) = result {
            self.counts.failed.fetch_add(1, Ordering::Relaxed);
            let bad = matches!(error, FaultError::Pager(_));
            entry.state = if bad { State::Bad } else { claim.was };
        }
        let awaited = core::mem::take(&mut entry.awaited);
        drop(state);
        if awaited {
            self.manager.pulses.complete(&self.manager.mmu, self.name(claim.page), result);
        }
        result
    }

    /// On success the page is `Clean`; otherwise it is still `Filling`.
    fn fill_or_not(self: &Arc<Self>, claim: &Claim) -> Result<(), FaultError> {
        let page = claim.page;
        let mut bytes = Vec::new();
        let length = self.manager.mmu.page_size();
        bytes.try_reserve_exact(length).map_err(|_| FaultError::NoMemory)?;
        bytes.resize(length, 0);
        self.manager.reserve(&self.budget)?;
        let read = if claim.kept { self.pager.read(page, &mut bytes) } else { Ok(()) };
        let placed = read.map_err(FaultError::Pager).and_then(|()| self.place(page, &bytes));
        if placed.is_err() {
            self.manager.unreserve(&self.budget);
        }
        placed
    }

    /// Gives memory to the page, with these contents.
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
