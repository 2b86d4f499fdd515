//! Refusals: an object whose pager fails to write is not asked for every page.
//!
//! On a full medium each write fails. A search for a page that can go would write all dirty pages in vain, one after
//! the other, while a fault waits for it. So a search leaves the dirty pages of an object alone once its pager has
//! refused two writes for want of room, or four for another reason, since the search began. Clean pages go as before,
//! and a later search asks again.
//!
//! The time is a count of refused writes. It moves only when one is refused, so a search that began later sees a
//! higher one.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::PagerError;

/// The weight of the failures after which a pager is not asked again: see [`weight`].
const ENOUGH: u64 = 4;

/// The low bits of a [`Refusals`], which count failures. The others are the time.
const COUNT: u64 = 0xFF;
const TIME: u32 = COUNT.count_ones();

/// How many writes have been refused, by all pagers of a manager.
#[derive(Debug)]
pub(crate) struct Clock(AtomicU64);

/// When a search began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Since(u64);

/// The refused writes of one object: when the latest was, and how many there were since the search began that counted
/// the first of them.
#[derive(Debug)]
pub(crate) struct Refusals(AtomicU64);

impl Clock {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn now(&self) -> Since {
        Since(self.0.load(Ordering::Relaxed))
    }

    /// The time of a refusal: later than all that [`now`](Self::now) has told before.
    fn tick(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }
}

impl Refusals {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Whether enough writes have been refused since then.
    pub(crate) fn are_enough(&self, since: Since) -> bool {
        let refusals = self.0.load(Ordering::Relaxed);
        refusals >> TIME > since.0 && refusals & COUNT >= ENOUGH
    }

    /// Counts a refused write of a search that began at `since`.
    pub(crate) fn note(&self, clock: &Clock, since: Since, error: PagerError) {
        let now = clock.tick();
        let next = |refusals: u64| {
            let before = if refusals >> TIME > since.0 { refusals & COUNT } else { 0 };
            let count = before.saturating_add(weight(error)).min(COUNT);
            Some(now.max(refusals >> TIME) << TIME | count)
        };
        // Relaxed: a count that is read late costs a write more, and nothing else.
        _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }
}

/// How much a failure says about the next page.
const fn weight(error: PagerError) -> u64 {
    match error {
        PagerError::KeepsNothing => ENOUGH,
        // A pager that compresses may have room for another page, so it is asked once more.
        PagerError::Full => ENOUGH / 2,
        // Some bad pages of a sound medium do not keep the others in memory.
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROKEN: PagerError = PagerError::Io { code: 5 };

    #[test]
    fn two_refusals_for_want_of_room_are_enough_until_the_next_search() {
        let (clock, refusals) = (Clock::new(), Refusals::new());
        let first = clock.now();
        assert!(!refusals.are_enough(first));
        refusals.note(&clock, first, PagerError::Full);
        assert!(!refusals.are_enough(first));
        refusals.note(&clock, first, PagerError::Full);
        assert!(refusals.are_enough(first));
        assert!(!refusals.are_enough(clock.now()));
    }

    #[test]
    fn a_later_search_counts_anew() {
        let (clock, refusals) = (Clock::new(), Refusals::new());
        for _ in 0..3 {
            let search = clock.now();
            for _ in 0..ENOUGH {
                assert!(!refusals.are_enough(search));
                refusals.note(&clock, search, BROKEN);
            }
            assert!(refusals.are_enough(search));
        }
    }

    #[test]
    fn refusals_of_another_object_are_not_counted() {
        let (clock, one, two) = (Clock::new(), Refusals::new(), Refusals::new());
        let search = clock.now();
        one.note(&clock, search, PagerError::KeepsNothing);
        assert!(one.are_enough(search));
        assert!(!two.are_enough(search));
    }

    #[test]
    fn two_searches_share_what_they_learn() {
        let (clock, refusals) = (Clock::new(), Refusals::new());
        let one = clock.now();
        refusals.note(&clock, one, BROKEN);
        let two = clock.now();
        refusals.note(&clock, two, PagerError::Full);
        assert!(!refusals.are_enough(two));
        refusals.note(&clock, one, PagerError::Full);
        assert!(refusals.are_enough(one) && refusals.are_enough(two));
    }
}
