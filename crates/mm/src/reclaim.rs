//! Reclaim: which page goes when the next one finds no place in its budget.
//!
//! [`Residents`](crate::Residents) proposes, one look after the other; here it is done, object by object, with
//! no lock held in between. A look at a page that has changed meanwhile finds that out under its object's lock.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use crate::{
    Answer, Candidate, Evicted, FaultError, Mmu, Round, Span, Step,
    budget::{BudgetCore, PageName, take},
    evict::Mercy,
    manager::Core,
    object::ObjectCore,
    order::Token,
};

/// What a search for a page that can go has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reclaimed {
    /// One has gone.
    Done,
    /// None could go: so many must stay, and others are on their way in or out.
    Kept(u64),
}

impl<M: Mmu> Core<M> {
    /// Takes a place for one page in `budget` and in the total. Nothing is locked.
    ///
    /// Pages that other threads bring in or out just now are waited for. That ends: who waits here for
    /// the total has a place of its own budget already, and who has a place of the total waits for pagers only.
    ///
    /// # Errors
    /// [`FaultError::NoMemory`]: as many pages must stay as there may be.
    pub(crate) fn reserve(&self, budget: &Arc<BudgetCore<M>>) -> Result<(), FaultError> {
        let mut attempt = 0_u32;
        while !budget.take() {
            self.after(self.reclaim(budget), budget.limit(), &mut attempt)?;
        }
        let limit = self.settings.budget.0;
        while !take(&self.used, limit) {
            self.after(self.reclaim_anywhere(), limit, &mut attempt)
                .inspect_err(|_| budget.give_back())?;
        }
        Ok(())
    }

    /// Goes on, at once or after a while, or gives up.
    fn after(&self, found: Reclaimed, limit: u64, attempt: &mut u32) -> Result<(), FaultError> {
        match found {
            Reclaimed::Done => Ok(()),
            Reclaimed::Kept(pages) if pages >= limit => Err(FaultError::NoMemory),
            Reclaimed::Kept(_) => {
                *attempt = attempt.saturating_add(1);
                self.mmu.idle(*attempt);
                Ok(())
            }
        }
    }

    /// Gives the places back that [`reserve`](Self::reserve) took.
    pub(crate) fn unreserve(&self, budget: &BudgetCore<M>) {
        budget.give_back();
        self.used.fetch_sub(1, Ordering::Relaxed);
    }

    /// Evicts one page of the largest budget, or, if none of its pages can go, of any other. Nothing is locked.
    pub(crate) fn reclaim_anywhere(&self) -> Reclaimed {
        let largest = self.budget_by(|budgets| budgets.max_by_key(|budget| budget.used()));
        if largest.is_some_and(|budget| self.reclaim(&budget) == Reclaimed::Done) {
            return Reclaimed::Done;
        }
        let (mut kept, mut last) = (0, 0);
        while let Some(budget) = self.budget_after(last) {
            last = budget.number;
            match self.reclaim(&budget) {
                Reclaimed::Done => return Reclaimed::Done,
                Reclaimed::Kept(pages) => kept += pages,
            }
        }
        Reclaimed::Kept(kept)
    }

    fn budget_after(&self, last: u64) -> Option<Arc<BudgetCore<M>>> {
        self.budget_by(|budgets| budgets.filter(|b| b.number > last).min_by_key(|b| b.number))
    }

    fn budget_by(
        &self,
        choose: impl FnOnce(&mut dyn Iterator<Item = Arc<BudgetCore<M>>>) -> Option<Arc<BudgetCore<M>>>,
    ) -> Option<Arc<BudgetCore<M>>> {
        let mut nothing = Token::nothing_held();
        let (budgets, _) = self.budgets.lock(&mut nothing);
        choose(&mut budgets.iter().filter_map(alloc::sync::Weak::upgrade))
    }

    /// Evicts one page of `budget`. Nothing is locked.
    fn reclaim(&self, budget: &Arc<BudgetCore<M>>) -> Reclaimed {
        let found = self.reclaim_with(budget, Mercy::Referenced);
        // All may have been in use. That is known now, and forgotten: one of them has to go.
        match found {
            Reclaimed::Done => Reclaimed::Done,
            Reclaimed::Kept(_) => self.reclaim_with(budget, Mercy::None),
        }
    }

    fn reclaim_with(&self, budget: &Arc<BudgetCore<M>>, mercy: Mercy) -> Reclaimed {
        let mut nothing = Token::nothing_held();
        let mut round = budget.residents.lock(&mut nothing).0.round();
        let mut kept = 0;
        while let Some(candidate) = self.next(budget, &mut round) {
            let PageName { object, page } = candidate.key;
            let Some(object) = self.object(object) else { continue };
            let evicted = match candidate.step {
                Step::Probation => object.put_on_trial(&candidate),
                Step::Evict => Err(object.evict(page, mercy)),
            };
            let answer = match evicted {
                Ok(()) => Answer::Unmapped,
                Err(Evicted::Done) => return Reclaimed::Done,
                Err(Evicted::Referenced) => Answer::Referenced,
                Err(Evicted::NotNow) => Answer::Kept,
                Err(Evicted::Pinned | Evicted::Failed(_)) => {
                    kept += 1;
                    Answer::Kept
                }
            };
            budget.residents.lock(&mut nothing).0.answer(candidate.slot, answer);
        }
        Reclaimed::Kept(kept)
    }

    fn next(&self, budget: &BudgetCore<M>, round: &mut Round) -> Option<Candidate<PageName>> {
        let mut nothing = Token::nothing_held();
        let (mut residents, _) = budget.residents.lock(&mut nothing);
        residents.candidate(round)
    }
}

impl<M: Mmu> ObjectCore<M> {
    /// Takes a page's translations away, so that its next use will be seen; or says why not.
    fn put_on_trial(&self, candidate: &Candidate<PageName>) -> Result<(), Evicted> {
        let page = candidate.key.page;
        let mut nothing = Token::nothing_held();
        let (mut state, _) = self.state.lock(&mut nothing);
        match state.pages.find_mut(page) {
            Some(entry) if entry.place == Some(candidate.slot) => entry.referenced = false,
            _ => return Err(Evicted::NotNow),
        }
        if self.is_pinned(&state, page) {
            return Err(Evicted::Pinned);
        }
        self.unmap(&state, Span::one(page));
        Ok(())
    }
}
