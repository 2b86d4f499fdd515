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
    /// None could go, but another thread brings one in or out just now: look again then.
    Busy,
    /// All have to stay.
    Nothing,
}

impl<M: Mmu> Core<M> {
    /// Takes a place for one page in `budget` and in the total. Nothing is locked.
    ///
    /// Who waits here for the total has a place of its own budget already, and nobody who has a place of the
    /// total waits for anything but pagers: so waiting ends.
    pub(crate) fn reserve(&self, budget: &Arc<BudgetCore<M>>) -> Result<(), FaultError> {
        let mut attempt = 0_u32;
        while !budget.take() {
            self.after(self.reclaim(budget), &mut attempt)?;
        }
        while !take(&self.used, self.settings.budget.0) {
            let reclaimed = self.reclaim_anywhere();
            self.after(reclaimed, &mut attempt).inspect_err(|_| budget.give_back())?;
        }
        Ok(())
    }

    /// Goes on, at once or after a while, or gives up.
    fn after(&self, reclaimed: Reclaimed, attempt: &mut u32) -> Result<(), FaultError> {
        match reclaimed {
            Reclaimed::Done => Ok(()),
            Reclaimed::Busy => {
                *attempt = attempt.saturating_add(1);
                self.mmu.idle(*attempt);
                Ok(())
            }
            Reclaimed::Nothing => Err(FaultError::NoMemory),
        }
    }

    /// Gives the places back that [`reserve`](Self::reserve) took.
    pub(crate) fn unreserve(&self, budget: &BudgetCore<M>) {
        budget.give_back();
        self.used.fetch_sub(1, Ordering::Relaxed);
    }

    /// Evicts one page of the largest budget, or, if none of its pages can go, of any other. Nothing is locked.
    pub(crate) fn reclaim_anywhere(&self) -> Reclaimed {
        let Some(largest) = self.budget_by(|budgets| budgets.max_by_key(|budget| budget.used()))
        else {
            return Reclaimed::Nothing;
        };
        let mut result = self.reclaim(&largest);
        let mut last = 0;
        while result != Reclaimed::Done {
            let next = self.budget_by(|budgets| {
                budgets.filter(|budget| budget.number > last).min_by_key(|budget| budget.number)
            });
            let Some(next) = next else { break };
            last = next.number;
            match self.reclaim(&next) {
                Reclaimed::Nothing => {}
                found => result = found,
            }
        }
        result
    }

    /// One of all budgets.
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
        let mut busy = false;
        // Pages that were all in use have been found so now, and those that go first are known.
        for mercy in [Mercy::Referenced, Mercy::None] {
            let mut nothing = Token::nothing_held();
            let mut round = budget.residents.lock(&mut nothing).0.round();
            let mut spared = false;
            while let Some(candidate) = self.next(budget, &mut round) {
                let PageName { object, page } = candidate.key;
                let Some(object) = self.object(object) else { continue };
                let answer = match candidate.step {
                    Step::Probation => object.put_on_trial(&candidate),
                    Step::Evict => match object.evict(page, mercy) {
                        Evicted::Done => return Reclaimed::Done,
                        Evicted::Referenced => Answer::Referenced,
                        Evicted::NotNow => {
                            busy = true;
                            Answer::Kept
                        }
                        Evicted::Pinned | Evicted::Failed(_) => Answer::Kept,
                    },
                };
                spared |= answer == Answer::Referenced;
                budget.residents.lock(&mut nothing).0.answer(candidate.slot, answer);
            }
            if !spared {
                break;
            }
        }
        if busy || self.has_guests(budget) { Reclaimed::Busy } else { Reclaimed::Nothing }
    }

    /// Whether somebody has a place in `budget` for a page that is not in memory yet.
    fn has_guests(&self, budget: &BudgetCore<M>) -> bool {
        let mut nothing = Token::nothing_held();
        let (residents, _) = budget.residents.lock(&mut nothing);
        budget.used() > residents.len() as u64
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
