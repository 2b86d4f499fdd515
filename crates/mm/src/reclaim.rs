//! Reclaim: which page goes when the next one finds no place in its budget.
//!
//! [`Residents`](crate::Residents) proposes, one look after the other; here it is done, object by object, with
//! no lock held in between. A look at a page that has changed meanwhile finds that out under its object's lock.

use alloc::sync::Arc;

use crate::{
    Answer, Candidate, Evicted, FaultError, Mmu, Round, Span, Step,
    budget::{BudgetCore, PageName, Places},
    evict::Mercy,
    manager::Core,
    object::ObjectCore,
    order::Token,
};

/// Budgets by their size, and by their address those that are equally large.
type Rank = (u64, usize);

/// What came of the search for a page that can go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Search {
    /// One has gone.
    Evicted,
    /// None now; but somebody is at work with one, or has just used it, so the next search may find one.
    Later,
    /// All must stay.
    Nothing,
}

impl<M: Mmu> Core<M> {
    /// Takes a place for one page in `budget` and in the total. Nothing is locked. That there is none is
    /// said only if all pages of it must stay: while others are on their way in or out, this thread waits.
    /// Who waits for the total holds a place in its own budget, and who has both waits for none, so
    /// these waits end.
    pub(crate) fn reserve(&self, budget: &Arc<BudgetCore<M>>) -> Result<(), FaultError> {
        self.reserve_in(&budget.places, || budget.limit(), || self.search(budget))?;
        let total = || self.settings.budget.0;
        self.reserve_in(&self.places, total, || self.search_anywhere())
            .inspect_err(|_| budget.places.give_back())
    }

    fn reserve_in(
        &self,
        places: &Places,
        limit: impl Fn() -> u64,
        search: impl Fn() -> Search,
    ) -> Result<(), FaultError> {
        let mut attempt = 0_u32;
        while !places.take(limit()) {
            let before = places.tally();
            let found = search();
            if found == Search::Evicted {
                continue;
            }
            let stood_still = before.is_full(limit()) && before == places.tally();
            if found == Search::Nothing && stood_still {
                return Err(FaultError::NoMemory);
            }
            attempt = attempt.saturating_add(1);
            self.mmu.idle(attempt);
        }
        Ok(())
    }

    /// Gives the places back that [`reserve`](Self::reserve) took, if the page got no memory.
    pub(crate) fn unreserve(&self, budget: &BudgetCore<M>) {
        budget.places.give_back();
        self.places.give_back();
    }

    /// Evicts one page, if one can go. Nothing is locked.
    pub(crate) fn evict_one(&self) -> bool {
        self.search_anywhere() == Search::Evicted
    }

    /// Evicts one page of the largest budget of which one can go.
    fn search_anywhere(&self) -> Search {
        let (mut found, mut below) = (Search::Nothing, (u64::MAX, 0));
        while let Some((budget, rank)) = self.largest(below) {
            below = rank;
            match self.search(&budget) {
                Search::Evicted => return Search::Evicted,
                Search::Later => found = Search::Later,
                Search::Nothing => {}
            }
        }
        found
    }

    /// The budget with the most pages in memory, of those that rank below `below`.
    fn largest(&self, below: Rank) -> Option<(Arc<BudgetCore<M>>, Rank)> {
        let mut nothing = Token::nothing_held();
        let (budgets, _) = self.budgets.lock(&mut nothing);
        let budgets = budgets.iter().filter_map(alloc::sync::Weak::upgrade);
        let ranked = budgets.map(|budget| {
            let rank = (budget.places.taken(), Arc::as_ptr(&budget).addr());
            (budget, rank)
        });
        ranked.filter(|(_, rank)| rank.0 > 0 && *rank < below).max_by_key(|(_, rank)| *rank)
    }

    /// Evicts one page of `budget`, if one can go. Nothing is locked.
    fn search(&self, budget: &Arc<BudgetCore<M>>) -> Search {
        let mut found = Search::Nothing;
        let mut nothing = Token::nothing_held();
        let mut round = budget.residents.lock(&mut nothing).0.round();
        while let Some(candidate) = self.next(budget, &mut round) {
            let PageName { object, page } = candidate.key;
            let Some(object) = self.object(object) else {
                // Its object is at its end, and so is the page.
                found = Search::Later;
                continue;
            };
            let answer = match candidate.step {
                Step::Probation => object.put_on_trial(&candidate),
                Step::Evict => match object.evict(page, Mercy::Referenced) {
                    Evicted::Done => return Search::Evicted,
                    Evicted::Referenced => {
                        found = Search::Later;
                        Answer::Referenced
                    }
                    Evicted::NotNow => {
                        found = Search::Later;
                        Answer::Kept
                    }
                    Evicted::Pinned | Evicted::Failed(_) => Answer::Kept,
                },
            };
            budget.residents.lock(&mut nothing).0.answer(candidate.slot, answer);
        }
        found
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
