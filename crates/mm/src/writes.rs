//! Slow writes: a search for a page that can go leaves dirty pages alone whose pager is busy with others.
//!
//! An eviction of a dirty page blocks its thread in the pager. Without a bound, a pager that writes slowly, or never
//! returns, would take one thread after the other, each in search of room for another space's page. So a search skips
//! the dirty pages of an object that has two writes under way, or one that has taken too long. Such a page may go
//! later: the search does not count it as one that must stay.
//!
//! Time counts in ticks, as for reads (`reads.rs`). A write that ends shows that the pager is alive, so only the time
//! since the last end counts.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// With how many writes under way an object's dirty pages are skipped.
const ENOUGH: usize = 2;

/// The writes of one object that are under way.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    under_way: AtomicUsize,
    /// When the first of them began, or the last one ended.
    since: AtomicU64,
}

impl Writes {
    /// A write begins at tick `now`.
    pub(crate) fn begin(&self, now: u64) {
        // Relaxed, here and below: what is read late lets one thread more into the pager, or one fewer.
        if self.under_way.fetch_add(1, Ordering::Relaxed) == 0 {
            self.since.store(now, Ordering::Relaxed);
        }
    }

    /// A write has ended at tick `now`.
    pub(crate) fn end(&self, now: u64) {
        self.since.store(now, Ordering::Relaxed);
        self.under_way.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether the pager has enough to do at tick `now`.
    pub(crate) fn are_enough(&self, now: u64, patience: Option<u64>) -> bool {
        let under_way = self.under_way.load(Ordering::Relaxed);
        let passed = now.saturating_sub(self.since.load(Ordering::Relaxed));
        under_way >= ENOUGH || (under_way > 0 && patience.is_some_and(|most| passed > most))
    }
}
