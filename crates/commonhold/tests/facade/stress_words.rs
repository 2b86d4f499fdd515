//! The records of the stress test in the region: a book under each lock, and a page for each thread.
//!
//! `stress_worker` explains what they prove. All are plain words. They are ordered by the lock around them, or
//! because their writer cannot run.

use commonhold::Mapping;

use crate::{
    stress_waits::{Span, Wait},
    stress_worker::THREADS,
};

/// Where the books and the pages begin, and the size of a page.
pub(crate) const BOOKS: u64 = 2048;
pub(crate) const PAGES: u64 = 4096;
pub(crate) const PAGE: u64 = 256;

/// Words of a book.
pub(crate) const INSIDE: u64 = 0;
pub(crate) const ACTIVE: u64 = 8;
pub(crate) const NEW_COUNT: u64 = 16;
pub(crate) const NEW_CELL: u64 = 24;
pub(crate) const COUNT: u64 = 32;
pub(crate) const DEATHS: u64 = 40;

/// Words of a page.
pub(crate) const PHASE: u64 = 0;
pub(crate) const KEY: u64 = 8;
pub(crate) const KILLED: u64 = 16;
pub(crate) const READING: u64 = 24;
/// The time since which it waits, or 0; the locks that it waits for; and its timeout.
pub(crate) const SINCE: u64 = 40;
pub(crate) const WANTED: u64 = 48;
pub(crate) const TIMEOUT: u64 = 56;
pub(crate) const CELLS: u64 = 64;

pub(crate) fn size(processes: u64) -> u64 {
    PAGES + PAGE * THREADS * processes
}

/// The words that all workers share. The lock around them orders them.
#[derive(Clone, Copy)]
pub(crate) struct Words<'a> {
    pub(crate) mapping: &'a Mapping,
    pub(crate) processes: u64,
}

impl Words<'_> {
    pub(crate) fn get(&self, at: u64) -> u64 {
        self.mapping.get(at).unwrap()
    }

    pub(crate) fn set(&self, at: u64, value: u64) {
        self.mapping.set(at, &value).unwrap();
    }

    pub(crate) fn book(&self, lock: u64, word: u64) -> u64 {
        self.get(BOOKS + 64 * lock + word)
    }

    pub(crate) fn set_book(&self, lock: u64, word: u64, value: u64) {
        self.set(BOOKS + 64 * lock + word, value);
    }

    pub(crate) fn page(&self, place: u64, word: u64) -> u64 {
        self.get(PAGES + PAGE * place + word)
    }

    pub(crate) fn set_page(&self, place: u64, word: u64, value: u64) {
        self.set(PAGES + PAGE * place + word, value);
    }

    /// The locks of a worker that cannot run now, as a bit for each.
    pub(crate) fn had_by(&self, worker: u64) -> u64 {
        (0..THREADS).map(|thread| self.page(worker * THREADS + thread, PHASE)).fold(0, |a, b| a | b)
    }

    /// The waits of a worker that was killed, or stopped, at that moment.
    pub(crate) fn waits_of(&self, worker: u64, until: u64) -> Vec<Wait> {
        let places = worker * THREADS..(worker + 1) * THREADS;
        let waits = places.filter_map(|place| {
            let from = self.page(place, SINCE);
            let wait = Wait {
                worker,
                locks: self.page(place, WANTED),
                when: Span { from, until: until.max(from) },
                timeout: Wait::timeout_of(self.page(place, TIMEOUT)),
            };
            (from != 0 && wait.is_worth_telling()).then_some(wait)
        });
        waits.collect()
    }

    /// Announces a kill before it happens: from then on, the worker's records may be those of a dead thread.
    pub(crate) fn will_be_killed(&self, worker: u64) {
        for place in worker * THREADS..(worker + 1) * THREADS {
            self.set_page(place, KILLED, self.page(place, KEY));
        }
    }

    /// Whether the thread with this key may be dead.
    pub(crate) fn is_dead(&self, key: u64) -> bool {
        let place = (key & 0xffff) - 1;
        self.page(place, KEY) != key || self.page(place, KILLED) == key
    }

    /// For the end of the test: how often a lock was taken alone, how often by the journals, and how often a death
    /// was reported.
    pub(crate) fn counts(&self, lock: u64) -> (u64, u64, u64) {
        self.repair(lock);
        let cells = (0..THREADS * self.processes).map(|place| self.page(place, CELLS + 8 * lock));
        (self.book(lock, COUNT), cells.sum(), self.book(lock, DEATHS))
    }

    /// Completes what a dead owner had decided.
    pub(crate) fn repair(&self, lock: u64) {
        if let Some(place) = self.book(lock, ACTIVE).checked_sub(1) {
            self.set_book(lock, COUNT, self.book(lock, NEW_COUNT));
            self.set_page(place, CELLS + 8 * lock, self.book(lock, NEW_CELL));
            self.set_book(lock, ACTIVE, 0);
        }
    }
}
