//! Reclaim: which page goes when a budget has no place for the next one.
//!
//! [`Residents`](crate::Residents) proposes one page after the other, and this file acts on the proposals. No lock is
//! held between the proposal and the act, so the act checks under the object's lock whether the page has changed.
//!
//! A medium that is full is asked once for each object, not once for each dirty page: see `refusal.rs`. One that is slow
//! holds few threads: see `writes.rs`.

use alloc::sync::Arc;

use crate::{
    Answer, Candidate, Evicted, FaultError, Mmu, ObjectPage, Round, Step,
    budget::{BudgetCore, PageName, ResidentCount},
    evict::Mercy,
    manager::Core,
    object::ObjectCore,
    order::Token,
    page::PageEntry,
    refusal::Since,
};

/// What came of the search for a page that can go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Search {
    /// One has gone.
    Evicted,
    /// None now. But another thread works on a page, or a page was just used, so the next search may find one.
    Later,
    /// All must stay.
    Nothing,
}

impl<M: Mmu> Core<M> {
    /// Takes a place for one page in `budget` and in the total. Nothing is locked. It fails only if all pages of the
    /// budget, or of the total, must stay or cannot be written: while pages are on their way in or out, it waits.
    /// These waits end: a thread takes its place in `budget` first, waits for the total with that place in hand,
    /// and a thread that has both waits for no place.
    pub(crate) fn reserve(&self, budget: &Arc<BudgetCore<M>>) -> Result<(), FaultError> {
        let since = self.refusals.now();
        self.reserve_in(&budget.places, || budget.limit(), || self.search(budget, since))?;
        budget.sort_if_grown();
        let total = || self.settings.budget.0;
        self.reserve_in(&self.places, total, || self.search_anywhere(since))
            .inspect_err(|_| budget.places.give_back())
    }

    /// As [`reserve`](Self::reserve), without a search for pages that can go. Spaces and objects may be locked. The
    /// caller calls [`BudgetCore::sort_if_grown`] once nothing is locked.
    pub(crate) fn try_reserve(&self, budget: &BudgetCore<M>) -> bool {
        if !budget.places.take(budget.limit()) {
            return false;
        }
        let both = self.places.take(self.settings.budget.0);
        if !both {
            budget.places.give_back();
        }
        both
    }

    fn reserve_in(
        &self,
        places: &ResidentCount,
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

    /// Gives back the places that [`reserve`](Self::reserve) took, if the page got no memory.
    pub(crate) fn unreserve(&self, budget: &BudgetCore<M>) {
        budget.places.give_back();
        self.places.give_back();
    }

    /// Evicts one page, if one can go. Nothing is locked.
    pub(crate) fn evict_one(&self, since: Since) -> bool {
        self.search_anywhere(since) == Search::Evicted
    }

    /// Evicts one page of one of the largest budgets, or, if none of its pages can go, of any other.
    fn search_anywhere(&self, since: Since) -> Search {
        let largest = self.budgets.largest();
        let mut found = largest.as_ref().map_or(Search::Nothing, |b| self.search(b, since));
        let mut walk = self.budgets.walk();
        while found != Search::Evicted {
            let Some(budget) = self.budgets.next(&mut walk) else { break };
            if largest.as_ref().is_some_and(|largest| Arc::ptr_eq(largest, &budget)) {
                continue;
            }
            match self.search(&budget, since) {
                Search::Evicted => {
                    self.budgets.begin_behind(&budget);
                    found = Search::Evicted;
                }
                Search::Later => found = Search::Later,
                Search::Nothing => {}
            }
        }
        found
    }

    /// Evicts one page of `budget`. Nothing is locked.
    fn search(&self, budget: &Arc<BudgetCore<M>>, since: Since) -> Search {
        match self.search_with(budget, Mercy::Referenced, since) {
            Search::Evicted => Search::Evicted,
            // All pages may have been in use. The first search has cleared their flags; one of them has to go.
            Search::Later | Search::Nothing => self.search_with(budget, Mercy::None, since),
        }
    }

    fn search_with(&self, budget: &Arc<BudgetCore<M>>, mercy: Mercy, since: Since) -> Search {
        let mut found = Search::Nothing;
        let mut nothing = Token::nothing_held();
        let mut round = budget.residents.lock(&mut nothing).0.round();
        // Pages on trial that this round has not proposed for eviction.
        let mut left = round.trials();
        while let Some(candidate) = self.next(budget, &mut round) {
            let PageName { object, page } = candidate.key;
            let Some(object) = self.object(object) else {
                // Its object is being dropped, and the page with it.
                found = Search::Later;
                continue;
            };
            let evicted = match candidate.step {
                Step::Probation => object.put_on_trial(&candidate).inspect(|()| left += 1),
                Step::Evict => {
                    left = left.saturating_sub(1);
                    Err(object.evict_unless_refused(page, mercy, since))
                }
            };
            let answer = match evicted {
                Ok(()) => Answer::Unmapped,
                Err(Evicted::Done) => return Search::Evicted,
                Err(Evicted::Pinned | Evicted::Failed(_)) => Answer::Kept,
                Err(Evicted::Referenced) => {
                    found = Search::Later;
                    Answer::Referenced
                }
                Err(Evicted::NotNow) => {
                    found = Search::Later;
                    Answer::Kept
                }
            };
            budget.residents.lock(&mut nothing).0.answer(candidate.slot, answer);
        }
        // Another search has moved a page meanwhile that this round has not seen, or has seen on trial only.
        let moved = left > 0 || round.others() > 0;
        if found == Search::Nothing && moved { Search::Later } else { found }
    }

    fn next(&self, budget: &BudgetCore<M>, round: &mut Round) -> Option<Candidate<PageName>> {
        let mut nothing = Token::nothing_held();
        let (mut residents, _) = budget.residents.lock(&mut nothing);
        residents.candidate(round)
    }
}

impl<M: Mmu> ObjectCore<M> {
    /// Evicts a page. A dirty one stays if the pager has refused enough others since then, and is skipped if it is busy
    /// with others.
    fn evict_unless_refused(
        self: &Arc<Self>,
        page: ObjectPage,
        mercy: Mercy,
        since: Since,
    ) -> Evicted {
        if self.refusals.are_enough(since) && self.is_dirty(page) {
            return Evicted::Pinned;
        }
        let patience = self.manager.settings.patience;
        if self.writes.are_enough(self.manager.now(), patience) && self.is_dirty(page) {
            return Evicted::NotNow;
        }
        let evicted = self.evict(page, mercy);
        if let Evicted::Failed(FaultError::Pager(error)) = evicted {
            self.refusals.note(&self.manager.refusals, since, error);
        }
        evicted
    }

    /// Forgets that a page was accessed, so that its next use is noticed; or says why not.
    fn put_on_trial(self: &Arc<Self>, candidate: &Candidate<PageName>) -> Result<(), Evicted> {
        let page = candidate.key.page;
        let mut nothing = Token::nothing_held();
        let (mut state, _) = self.state.lock(&mut nothing);
        let ours = |entry: &PageEntry| entry.place == Some(candidate.slot) && !entry.is_busy();
        if !ours(&state.pages.get(page)) {
            return Err(Evicted::NotNow);
        }
        if self.is_pinned(&state, page) {
            return Err(Evicted::Pinned);
        }
        let withdrawal = self.age(&mut state, page);
        drop(state);
        let finished = self.finish(withdrawal);
        let (mut state, mut in_object) = self.state.lock(&mut nothing);
        if let Some(entry) = state.pages.find_mut(page) {
            entry.referenced = false;
        }
        self.unbar(&mut state, &mut in_object, page);
        finished.map(|_| ()).map_err(Evicted::Failed)
    }
}
