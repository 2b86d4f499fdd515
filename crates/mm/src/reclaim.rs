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

impl<M: Mmu> Core<M> {
    /// Takes a place for one page in `budget` and in the total. Nothing is locked.
    pub(crate) fn reserve(&self, budget: &Arc<BudgetCore<M>>) -> Result<(), FaultError> {
        while !budget.take() {
            if !self.reclaim(budget) {
                return Err(FaultError::NoMemory);
            }
        }
        while !take(&self.used, self.settings.budget.0) {
            if !self.reclaim_anywhere() {
                budget.give_back();
                return Err(FaultError::NoMemory);
            }
        }
        Ok(())
    }

    /// Gives the places back that [`reserve`](Self::reserve) took.
    pub(crate) fn unreserve(&self, budget: &BudgetCore<M>) {
        budget.give_back();
        self.used.fetch_sub(1, Ordering::Relaxed);
    }

    /// Evicts one page of the largest budget of which one can go. Nothing is locked.
    pub(crate) fn reclaim_anywhere(&self) -> bool {
        let mut below = u64::MAX;
        while let Some(budget) = self.largest(below) {
            below = budget.used();
            if self.reclaim(&budget) {
                return true;
            }
        }
        false
    }

    /// The budget with the most pages in memory, of those with less than `below`.
    fn largest(&self, below: u64) -> Option<Arc<BudgetCore<M>>> {
        let mut nothing = Token::nothing_held();
        let (budgets, _) = self.budgets.lock(&mut nothing);
        let budgets = budgets.iter().filter_map(alloc::sync::Weak::upgrade);
        budgets.filter(|b| (1..below).contains(&b.used())).max_by_key(|b| b.used())
    }

    /// Evicts one page of `budget`. Nothing is locked.
    fn reclaim(&self, budget: &Arc<BudgetCore<M>>) -> bool {
        let mut nothing = Token::nothing_held();
        let mut round = budget.residents.lock(&mut nothing).0.round();
        while let Some(candidate) = self.next(budget, &mut round) {
            let PageName { object, page } = candidate.key;
            let Some(object) = self.object(object) else { continue };
            let answer = match candidate.step {
                Step::Probation => object.put_on_trial(&candidate),
                Step::Evict => match object.evict(page, Mercy::Referenced) {
                    Evicted::Done => return true,
                    Evicted::Referenced => Answer::Referenced,
                    Evicted::NotNow | Evicted::Pinned | Evicted::Failed(_) => Answer::Kept,
                },
            };
            budget.residents.lock(&mut nothing).0.answer(candidate.slot, answer);
        }
        false
    }

    fn next(&self, budget: &BudgetCore<M>, round: &mut Round) -> Option<Candidate<PageName>> {
        let mut nothing = Token::nothing_held();
        let (mut residents, _) = budget.residents.lock(&mut nothing);
        residents.candidate(round)
    }
}

impl<M: Mmu> ObjectCore<M> {
    /// Takes a page's translations away, so that its next use will be seen.
    fn put_on_trial(&self, candidate: &Candidate<PageName>) -> Answer {
        let page = candidate.key.page;
        let mut nothing = Token::nothing_held();
        let (mut state, _) = self.state.lock(&mut nothing);
        if self.is_pinned(&state, page) {
            return Answer::Kept;
        }
        match state.pages.find_mut(page) {
            Some(entry) if entry.place == Some(candidate.slot) => entry.referenced = false,
            _ => return Answer::Kept,
        }
        self.unmap(&state, Span::one(page));
        Answer::Unmapped
    }
}
