//! Withdrawal: rights are taken away from all translations to a page.
//!
//! A walk under the object's lock tells the machine which translations are meant, and the machine notes them in a
//! [gather](Mmu::Gather). Then, with nothing locked, the machine [finishes](Mmu::finish) it, which may take long: other
//! processors or other processes have to answer. Meanwhile the page is *barred*: a fault that would give back what is
//! being withdrawn waits, as for a filling. So when the withdrawal ends, no translation has these rights.
//!
//! # Invariants
//! 1. One thread at most withdraws from a page at any time. It sets the bar, and clears it after the machine has
//!    finished, whatever the machine's answer was.
//! 2. The memory of a barred page is not released, but by this thread after the end.
//! 3. Where writes are withdrawn, super-locked spaces keep them. A space becomes super-locked in two steps, flag
//!    first, and brings its pages in after that: it waits for the end of each withdrawal that has not seen its flag.

use alloc::sync::Arc;

use crate::{
    Access, FaultError, Lane, Mmu, MmuError, ObjectPage, ObjectSpan, Page, Seen, Span,
    object::{ObjectCore, ObjectState},
    order::{self, Token},
    page::Barred,
};

/// Translations that are being changed.
#[must_use]
pub(crate) struct Withdrawal<M: Mmu> {
    gather: M::Gather,
    /// The machine could not note everything.
    noted: Result<(), MmuError>,
}

/// Where a page can be written to after its writes were withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shielded {
    /// Nowhere without a fault.
    Everywhere,
    /// In super-locked spaces, which must not fault, or by I/O.
    NotEverywhere,
}

impl<M: Mmu> Withdrawal<M> {
    fn new() -> Self {
        Self { gather: M::Gather::default(), noted: Ok(()) }
    }

    /// Lets the machine note one more change, unless it could not note an earlier one.
    fn note(&mut self, change: impl FnOnce(&mut M::Gather) -> Result<(), MmuError>) {
        if self.noted.is_ok() {
            self.noted = change(&mut self.gather);
        }
    }
}

impl<M: Mmu> ObjectCore<M> {
    /// Begins to take write access to a page away in all spaces that are not super-locked, and bars writes. Says whether
    /// a super-locked space keeps it, or I/O that the page is pinned for.
    pub(crate) fn withdraw_writes(
        &self,
        state: &mut ObjectState<M>,
        page: ObjectPage,
    ) -> (Withdrawal<M>, Shielded) {
        let mut withdrawal = Withdrawal::new();
        let mut shielded = match state.is_pinned_for(page, Access::Write) {
            true => Shielded::NotEverywhere,
            false => Shielded::Everywhere,
        };
        self.visit(state, Span::one(page), &mut |reach| {
            if reach.is_super_locked() {
                shielded = Shielded::NotEverywhere;
            }
            withdrawal.note(|gather| reach.write_protect(gather));
        });
        state.bar(page, Barred::Writes);
        (withdrawal, shielded)
    }

    /// Begins to forget that a page was accessed, and bars it: the machine may take translations away for that. No space
    /// that shows the page is super-locked.
    pub(crate) fn age(&self, state: &mut ObjectState<M>, page: ObjectPage) -> Withdrawal<M> {
        let mut withdrawal = Withdrawal::new();
        self.visit(state, Span::one(page), &mut |reach| {
            withdrawal.note(|gather| reach.age(gather));
        });
        state.bar(page, Barred::All);
        withdrawal
    }

    /// Begins to take all translations to a page away, and bars it.
    pub(crate) fn withdraw_all(
        &self,
        state: &mut ObjectState<M>,
        page: ObjectPage,
    ) -> Withdrawal<M> {
        state.bar(page, Barred::All);
        self.take_away(state, Span::one(page))
    }

    /// Begins to take all translations to the pages of `span` away. The caller cares that none is made meanwhile.
    pub(crate) fn take_away(&self, state: &ObjectState<M>, span: ObjectSpan) -> Withdrawal<M> {
        let mut all = Withdrawal::new();
        self.take_away_too(state, span, &mut all);
        all
    }

    fn take_away_too(&self, state: &ObjectState<M>, span: ObjectSpan, all: &mut Withdrawal<M>) {
        let mmu = &self.manager.mmu;
        state.mappings.each(span, |covered, showing| {
            all.note(|gather| showing.take_away(mmu, covered, span, gather));
        });
    }

    /// Begins to take all translations to the pages of `run` away that are being written and need not stay, and bars
    /// them.
    pub(crate) fn withdraw_run(
        &self,
        state: &mut ObjectState<M>,
        run: ObjectSpan,
    ) -> Withdrawal<M> {
        let mut all = Withdrawal::new();
        let mut at = run.first();
        while let Some(page) = state.pages.position(at, run.end(), |page| page.writing) {
            at = page.plus(1);
            if !self.is_pinned(state, page) {
                state.bar(page, Barred::All);
                self.take_away_too(state, Span::one(page), &mut all);
            }
        }
        all
    }

    /// Ends the machine's part. Nothing is locked.
    ///
    /// # Errors
    /// [`FaultError::Machine`]: translations may have their rights still.
    pub(crate) fn finish(&self, withdrawal: Withdrawal<M>) -> Result<Seen, FaultError> {
        let Withdrawal { gather, noted } = withdrawal;
        let mut seen = Seen::default();
        let finished = self.manager.mmu.finish(gather, &mut |_, of_page| {
            seen.accessed |= of_page.accessed;
            seen.written |= of_page.written;
        });
        noted.and(finished)?;
        Ok(seen)
    }

    /// Faults on the page go on.
    pub(crate) fn unbar(
        self: &Arc<Self>,
        state: &mut ObjectState<M>,
        in_object: &mut Token<'_, order::Object>,
        page: ObjectPage,
    ) {
        let Some(entry) = state.pages.find_mut(page) else { return };
        entry.barred = Barred::No;
        if core::mem::take(&mut entry.awaited) {
            self.serve_again(state, in_object, page);
        }
    }

    /// Lets the pulses that were put off for a page wait for a worker again.
    pub(crate) fn serve_again(
        &self,
        state: &mut ObjectState<M>,
        in_object: &mut Token<'_, order::Object>,
        page: ObjectPage,
    ) {
        let manager = &self.manager;
        state.put_off.retain(|put_off| {
            if put_off.page != page || put_off.failed.is_some() {
                return true;
            }
            if manager.pulses.pass_on(put_off.ticket, Lane::Memory, in_object) {
                manager.mmu.pulse(Lane::Memory);
            }
            false
        });
    }
}

impl<M: Mmu> ObjectState<M> {
    fn bar(&mut self, page: ObjectPage, faults: Barred) {
        if let Some(entry) = self.pages.find_mut(page) {
            entry.barred = faults;
        }
    }
}
