//! Filling: how a page comes into memory.
//!
//! A thread that finds a page without memory *claims* it under the object's lock: the page becomes `Filling`, and no
//! other thread fills it. Then, with no lock held, the thread takes a place in the budgets (another page may have
//! to be evicted for it) and a frame of memory, and the pager reads into the frame (`reads.rs`). The thread locks the
//! object again and gives the page the frame: what can fail comes before that.
//! Spaces do not matter here: the fault begins anew afterwards, and checks whether the page is still wanted.
//!
//! # Invariants
//! 1. A claim ends once: by [`ObjectCore::end_filling`], also if its thread unwinds.
//! 2. A frame that no page gets is dropped while its page is still `Filling`, unless it was never made ready.
//! 3. When a filling ends, the pulses that were put off for it are marked under the same lock. So its error reaches no
//!    pulse that was put off later.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use crate::{
    Contents, FaultError, Mmu, MmuError, ObjectPage, PagerError, State,
    object::{ObjectCore, ObjectState, PutOff},
    order::{self, Token},
    pulse::Ticket,
    reads,
    serve::Served,
};

/// A page that this thread alone fills.
#[must_use]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim {
    pub(crate) page: ObjectPage,
    /// Whether the pager has contents of it that count.
    kept: bool,
    was: State,
    /// Whether it has a place in the budgets already.
    pub(crate) reserved: bool,
}

/// The result of a filling without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filled {
    /// The page is in memory.
    InMemory,
    /// The pulse was put off until the pager completes, or passed on to another worker.
    Left,
}

/// A filling whose pager has not been called. Dropped while its thread unwinds, it fails.
struct Filling<'a, M: Mmu> {
    object: &'a ObjectCore<M>,
    claim: Option<Claim>,
}

impl<M: Mmu> ObjectState<M> {
    /// Claims a page that has no memory and is not being filled.
    ///
    /// # Errors
    /// [`FaultError::NoMemory`]; [`PagerError::TimedOut`] if a call for this page has taken too long and has not returned.
    pub(crate) fn claim(&mut self, page: ObjectPage, reserved: bool) -> Result<Claim, FaultError> {
        if reads::is_overdue(&self.reads, page) {
            return Err(FaultError::Pager(PagerError::TimedOut));
        }
        let entry = self.pages.get_mut(page).map_err(|_| FaultError::NoMemory)?;
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
    pub(crate) fn fill(
        self: &Arc<Self>,
        claim: Claim,
        pulse: &mut Option<Served<M>>,
    ) -> Result<Filled, FaultError> {
        let mut filling = Filling { object: self, claim: Some(claim) };
        let contents = if claim.kept { Contents::Unwritten } else { Contents::Zeros };
        let taken = filling.reserve().and_then(|()| self.take_frame(claim.page, contents, pulse));
        let frame = match taken {
            Ok(Some(frame)) => frame,
            Ok(None) => {
                filling.end(Ended::NotTried);
                return Ok(Filled::Left);
            }
            Err(error) => {
                filling.end(Ended::Failed(error));
                return Err(error);
            }
        };
        match filling.claim.take_if(|_| claim.kept) {
            Some(claim) => self.read(claim, frame, pulse),
            None => {
                let result = self.settle(claim.page, frame);
                filling.end(result.into());
                result.map(|()| Filled::InMemory)
            }
        }
    }

    /// Memory for the page. If the machine has none left, pages are evicted until it has; `None` if the pulse was passed
    /// on for that.
    fn take_frame(
        &self,
        page: ObjectPage,
        contents: Contents,
        pulse: &mut Option<Served<M>>,
    ) -> Result<Option<M::Frame>, FaultError> {
        let manager = &self.manager;
        let since = manager.refusals.now();
        loop {
            match manager.mmu.take_frame(&self.machine, page, contents) {
                Err(MmuError::NoMemory) => {}
                taken => return Ok(Some(taken?)),
            }
            if manager.passed_on(pulse, &mut Token::nothing_held()) {
                return Ok(None);
            }
            if !manager.evict_one(since) {
                return Err(FaultError::NoMemory);
            }
        }
    }

    /// Gives the page a frame with its contents.
    pub(crate) fn settle(&self, page: ObjectPage, mut frame: M::Frame) -> Result<(), FaultError> {
        self.manager.mmu.ready(&self.machine, page, &mut frame)?;
        self.place(page, frame)
    }

    /// Gives the page this memory. Its place in the budgets counts as filled then.
    fn place(&self, page: ObjectPage, frame: M::Frame) -> Result<(), FaultError> {
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
        // From here on nothing fails.
        self.manager.mmu.adopt(&self.machine, page, frame);
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

    /// Ends a filling. Nothing is locked.
    pub(crate) fn end_filling(&self, claim: Claim, ended: Ended) {
        if claim.reserved && ended != Ended::InMemory {
            self.manager.unreserve(&self.budget);
        }
        let mut nothing = Token::nothing_held();
        let (mut state, mut in_object) = self.state.lock(&mut nothing);
        self.note_end(&mut state, &mut in_object, claim, ended);
        drop(state);
        self.wake_failed();
    }

    /// Notes the end of a filling whose place in the budgets was filled or given back. The caller calls
    /// [`wake_failed`](Self::wake_failed) once nothing is locked.
    pub(crate) fn note_end(
        &self,
        state: &mut ObjectState<M>,
        in_object: &mut Token<'_, order::Object>,
        claim: Claim,
        ended: Ended,
    ) {
        let Some(entry) = state.pages.find_mut(claim.page) else { return };
        match ended {
            // `place` has set the state.
            Ended::InMemory => {}
            Ended::NotTried => entry.state = claim.was,
            Ended::Failed(error) => {
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
                let bad = matches!(error, FaultError::Pager(_));
                entry.state = if bad { State::Bad } else { claim.was };
            }
        }
        self.release_put_off(state, in_object, claim.page, ended);
    }

    /// The pulses that were put off for the filling of `page` wait again, or are marked with its error.
    pub(crate) fn release_put_off(
        &self,
        state: &mut ObjectState<M>,
        in_object: &mut Token<'_, order::Object>,
        page: ObjectPage,
        ended: Ended,
    ) {
        let Some(entry) = state.pages.find_mut(page) else { return };
        if !core::mem::take(&mut entry.awaited) {
            return;
        }
        let Ended::Failed(error) = ended else { return self.serve_again(state, in_object, page) };
        let waiting = state.put_off.iter_mut().filter(|put_off| put_off.page == page);
        for put_off in waiting.filter(|put_off| put_off.failed.is_none()) {
            put_off.failed = Some(error);
        }
    }

    /// Ends the pulses that are marked with an error. Nothing is locked.
    pub(crate) fn wake_failed(&self) {
        loop {
            let mut nothing = Token::nothing_held();
            let (mut state, _) = self.state.lock(&mut nothing);
            let failed = state.put_off.iter().position(|put_off| put_off.failed.is_some());
            let Some(failed) = failed.map(|place| state.put_off.swap_remove(place)) else { return };
            drop(state);
            self.manager.end_pulse(failed.ticket, failed.failed.map_or(Ok(()), Err));
        }
    }

    /// Puts a pulse off until the end of the filling of `page`. `false` without memory for that.
    pub(crate) fn put_off(
        &self,
        state: &mut ObjectState<M>,
        page: ObjectPage,
        ticket: Ticket,
        in_object: &mut Token<'_, order::Object>,
    ) -> bool {
        let pulses = &self.manager.pulses;
        if state.put_off.len() == state.put_off.capacity() {
            // Pulses that were cancelled meanwhile.
            state.put_off.retain(|put_off| pulses.is_open(put_off.ticket, in_object));
        }
        // A page that is being discarded may have no entry yet.
        let Ok(entry) = state.pages.get_mut(page) else { return false };
        if state.put_off.try_reserve(1).is_err() {
            return false;
        }
        entry.awaited = true;
        state.put_off.push(PutOff { page, ticket, failed: None });
        pulses.defer(ticket, in_object);
        true
    }
}

/// How a filling has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    InMemory,
    Failed(FaultError),
    /// The thread has left it to another.
    NotTried,
}

impl From<Result<(), FaultError>> for Ended {
    fn from(result: Result<(), FaultError>) -> Self {
        result.map_or_else(Self::Failed, |()| Self::InMemory)
    }
}

impl<M: Mmu> Filling<'_, M> {
    /// Takes a place in the budgets.
    fn reserve(&mut self) -> Result<(), FaultError> {
        let (manager, budget) = (&self.object.manager, &self.object.budget);
        match &mut self.claim {
            Some(claim) if !claim.reserved => {
                manager.reserve(budget)?;
                claim.reserved = true;
            }
            _ => budget.sort_if_grown(),
        }
        Ok(())
    }

    fn end(&mut self, ended: Ended) {
        if let Some(claim) = self.claim.take() {
            self.object.end_filling(claim, ended);
        }
    }
}

impl<M: Mmu> Drop for Filling<'_, M> {
    fn drop(&mut self) {
        // The pager of another page has panicked, which was to make room for this one.
        self.end(Ended::Failed(FaultError::NoMemory));
    }
}
