//! Discard: pages of an object become zeros, and what they held is given up.
//!
//! # The order
//! The object is worked on in *runs* of pages with which no other thread calls the pager:
//! 1. Under the lock, the run is noted and its pages in memory are marked as being written. So no thread fills,
//!    writes or evicts a page of the run; accesses to what is in memory go on.
//! 2. With no lock held, the pager drops the contents of the run.
//! 3. Under the lock again, the run loses its translations and its memory, and its pages are new.
//!
//! If the pager fails, step 3 is left out: what was in memory stays there, and is dirty, since the pager may have
//! dropped what it had of it. So a failure loses nothing that the pager has not lost itself.
//!
//! # Invariants
//! 1. One discard or resize of an object runs at a time.
//! 2. While a run waits for a page, none of its pages is marked. So the thread that works on that page can evict.
//! 3. A page that must stay in memory is not discarded. If it is locked during step 2, its contents stay and are dirty.
//!
//! 4. Translations are withdrawn before step 3, as in an eviction (`withdraw.rs`). If the machine cannot, that is as if the
//!    pager had failed.
//!
//! Nothing is written back.

use alloc::sync::Arc;

use crate::{
    Error, FaultError, Mmu, Object, ObjectPage, ObjectSpan, Page, Pages, Residents, Span, State,
    object::{ObjectCore, ObjectState},
    order::{self, Token},
    page::{PageEntry, Search},
    resize::Alone,
};

/// The most pages with memory in a run, which lose it under one hold of the object's lock.
const RUN: usize = 64;

impl<M: Mmu> Object<M> {
    /// Drops the contents of the pages of `span`, in memory and with the pager: they read as zeros from now on, and are
    /// not written back. Returns how many of them had memory. Pages past the object's end are left out. A page that was
    /// [lost](State::Lost) can be used again.
    ///
    /// Pages that must stay in memory are refused, as Linux refuses `MADV_REMOVE` of locked memory. What other threads
    /// write meanwhile is dropped or stays. To bring the change to the pager's medium takes a [`sync`](Self::sync).
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Pager`]: the page that it names and those behind it have kept their contents, as far
    /// as the pager has; those before it are discarded.
    pub fn discard(&self, span: ObjectSpan) -> Result<Pages, Error> {
        let mut discarding =
            Discarding { object: &self.core, run: None, _alone: self.core.alone() };
        let (mut rest, mut dropped) = (span, 0);
        while let Some(run) = discarding.claim(rest)? {
            let said = self.core.pager.discard(run);
            said.map_err(|error| Error::Pager { page: run.first(), error })?;
            dropped += discarding.finish(run)?;
            rest = Span::between(run.end(), span.end());
        }
        Ok(Pages(dropped))
    }
}

/// A discard under way. Its drop ends it: a run that was claimed and not finished keeps its contents.
struct Discarding<'a, M: Mmu> {
    object: &'a Arc<ObjectCore<M>>,
    run: Option<ObjectSpan>,
    _alone: Alone<'a, M>,
}

impl<M: Mmu> Discarding<'_, M> {
    /// Claims the first pages of `rest`. `None` if the object has none of them.
    fn claim(&mut self, rest: ObjectSpan) -> Result<Option<ObjectSpan>, Error> {
        let mut attempt = 0_u32;
        loop {
            let mut nothing = Token::nothing_held();
            let (mut state, _) = self.object.state.lock(&mut nothing);
            let rest = state.within(rest);
            if rest.is_empty() {
                return Ok(None);
            }
            if let Some(page) = self.object.first_pinned(&state, rest) {
                return Err(Error::Locked { page });
            }
            let mut resident = 0;
            let ends_run = |page: &PageEntry| {
                resident += usize::from(page.state.is_resident());
                page.is_busy() || resident > RUN
            };
            let end = match state.pages.search(rest.first(), rest.end(), ends_run) {
                Search::Found(page) | Search::From(page) => page,
                Search::Nothing => rest.end(),
            };
            let run = Span::between(rest.first(), end);
            if !run.is_empty() {
                state.pages.each_in(run, |_, page| page.writing = page.state.is_resident());
                state.discarding = Some(run);
                self.run = Some(run);
                return Ok(Some(run));
            }
            // No new filling of this page begins.
            state.discarding = Some(Span::one(rest.first()));
            drop(state);
            attempt = attempt.saturating_add(1);
            self.object.manager.mmu.idle(attempt);
        }
    }

    /// Ends a run that the pager has dropped, and returns how many of its pages had memory.
    fn finish(&mut self, run: ObjectSpan) -> Result<u64, Error> {
        let object = self.object;
        let mut nothing = Token::nothing_held();
        let (mut state, mut in_object) = object.state.lock(&mut nothing);
        if !M::RELEASE_UNMAPS {
            let withdrawal = object.withdraw_run(&mut state, run);
            drop(state);
            let finished = object.finish(withdrawal);
            (state, in_object) = object.state.lock(&mut nothing);
            while let Some(page) =
                state.pages.position(run.first(), run.end(), PageEntry::is_barred)
            {
                object.unbar(&mut state, &mut in_object, page);
            }
            finished.map_err(|error| match error {
                FaultError::Machine(error) => Error::Machine(error),
                _ => Error::NoMemory,
            })?;
        }
        // Locked meanwhile: its thread has found the pages in memory already, or waits for the end of this.
        let kept = object.first_pinned(&state, run);
        let (mut dropped, mut at) = (0, run.first());
        while let Some(page) = state.pages.position(at, run.end(), |page| page.writing) {
            at = page.plus(1);
            if !object.is_pinned(&state, page) {
                object.drop_memory(&mut state, &mut in_object, page);
                dropped += 1;
            } else if let Some(entry) = state.pages.find_mut(page) {
                entry.writing = false;
                entry.state = State::Dirty;
            }
        }
        state.pages.each_in(run, |_, page| {
            if !page.state.is_resident() {
                page.renew();
            }
        });
        drop(state);
        self.run = None;
        object.end_discard(run);
        kept.map_or(Ok(dropped), |page| Err(Error::Locked { page }))
    }
}

impl<M: Mmu> Drop for Discarding<'_, M> {
    fn drop(&mut self) {
        let mut nothing = Token::nothing_held();
        let (mut state, _) = self.object.state.lock(&mut nothing);
        let run = state.discarding;
        if let Some(claimed) = self.run {
            state.pages.each_in(claimed, |_, page| {
                let kept = core::mem::take(&mut page.writing) && page.kept;
                // The pager may have dropped it, and here it is still whole.
                if kept && page.state == State::Clean {
                    page.state = State::Dirty;
                }
            });
        }
        drop(state);
        if let Some(run) = run {
            self.object.end_discard(run);
        }
    }
}

impl<M: Mmu> ObjectCore<M> {
    /// Faults on the pages of `run` may be served again. Nothing is locked.
    fn end_discard(self: &Arc<Self>, run: ObjectSpan) {
        let mut nothing = Token::nothing_held();
        self.state.lock(&mut nothing).0.discarding = None;
        let mut at = run.first();
        loop {
            let (mut state, mut in_object) = self.state.lock(&mut nothing);
            let waits = |page: &PageEntry| page.awaited && !page.is_busy();
            let Some(page) = state.pages.position(at, run.end(), waits) else { return };
            if let Some(entry) = state.pages.find_mut(page) {
                entry.awaited = false;
            }
            self.serve_again(&mut state, &mut in_object, page);
            at = page.plus(1);
        }
    }

    /// Takes a page's memory away, whatever it holds. No translation to it is left. The page is new then.
    fn drop_memory(
        &self,
        state: &mut ObjectState<M>,
        in_object: &mut Token<'_, order::Object>,
        page: ObjectPage,
    ) {
        self.release(page);
        let Some(entry) = state.pages.find_mut(page) else { return };
        let place = entry.place.take();
        entry.renew();
        self.count_out(in_object, place, Residents::remove);
    }

    /// The first page of `span` that must stay in memory.
    fn first_pinned(&self, state: &ObjectState<M>, span: ObjectSpan) -> Option<ObjectPage> {
        state.pins.first_covered(span)
    }
}
