//! The trait of a lock, as the workers of `bench locks` use it, and its implementations for all Rust locks.
//!
//! Each method is inlined into the loop that times it, and binds the guard to a variable, as users do: so the
//! benchmark measures what a user's loop costs. (This matters. A guard that never leaves its `Result`, as in
//! `lock().is_ok()`, need not be moved, and the move can cost as much as the lock.) A method that a lock does not
//! support returns an error; the scenarios never call it.

use std::{
    cell::Cell,
    mem,
    sync::{
        self,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use commonhold::{Event, LockError, Mapping, Mutex, MutexGuard, RegionLock, Value};
use commonhold_console::{
    failure::{Doing, Failure, broken},
    workers::PATIENCE,
};

/// Indices of the counters that a lock protects: the number of turns taken, twice, and whose turn it is.
pub(super) const COUNT: usize = 0;
pub(super) const AGAIN: usize = 1;
pub(in crate::benchmarks) const TURN: usize = 2;
const COUNTERS: usize = 3;

/// Size of a region with our locks: a mutex with its counters, an event, and counters under the region's lock, each in
/// its own cache lines.
pub(super) const SIZE: u64 = 4096;
const MUTEX: u64 = 0;
const EVENT: u64 = 64;
const CELLS: u64 = 128;

/// How the last owner of a lock left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::benchmarks) enum Found {
    Clean,
    OwnerDied,
}

/// The counters that a lock protects, as its holder sees them. A counter that does not exist reads as 0.
pub(in crate::benchmarks) trait Counters {
    fn get(&self, counter: usize) -> u64;
    fn set(&self, counter: usize, value: u64);
}

/// The words that a peer's lock protects, accessed by plain loads and stores. As they are atomics, the compiler
/// neither merges nor removes the accesses.
impl<const N: usize> Counters for [AtomicU64; N] {
    #[inline(always)]
    fn get(&self, counter: usize) -> u64 {
        // Relaxed: the lock around it orders it.
        self.as_slice().get(counter).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    #[inline(always)]
    fn set(&self, counter: usize, value: u64) {
        if let Some(word) = self.as_slice().get(counter) {
            // Relaxed: as above.
            word.store(value, Ordering::Relaxed);
        }
    }
}

/// A lock, and the counters that it protects.
pub(in crate::benchmarks) trait Lock {
    type Counters<'a>: Counters + ?Sized
    where
        Self: 'a;

    /// Runs `inside` under the exclusive lock.
    fn write(
        &self,
        _inside: impl FnOnce(&Self::Counters<'_>) -> Result<(), Failure>,
    ) -> Result<Found, Failure> {
        Err(cannot("be taken"))
    }

    /// Takes the exclusive lock and never releases it.
    fn keep(&self) -> Result<(), Failure> {
        Err(cannot("be left behind"))
    }

    /// Runs `inside` under the shared lock.
    fn read(
        &self,
        _inside: impl FnOnce(&Self::Counters<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        Err(cannot("be read"))
    }

    /// Waits until it is this side's turn.
    fn await_turn(&self, _side: u64) -> Result<(), Failure> {
        Err(cannot("be passed on"))
    }

    /// Makes it the other side's turn.
    fn give_turn(&self, _side: u64) -> Result<(), Failure> {
        Err(cannot("be passed on"))
    }
}

#[cold]
fn cannot(what: &str) -> Failure {
    broken(format!("this lock cannot {what}"))
}

/// A mutex in the bytes of a region, with its counters.
#[derive(Debug)]
pub(super) struct OurMutex {
    mutex: Mutex<[u64; COUNTERS]>,
    event: Event,
}

impl OurMutex {
    pub(super) fn new(mapping: &Mapping) -> Result<Self, Failure> {
        let what = || "find the mutex".to_owned();
        Ok(Self {
            mutex: mapping.open(MUTEX).doing(what)?,
            event: mapping.event(EVENT).doing(what)?,
        })
    }
}

/// A region's own lock, and counters in the bytes of the region.
#[derive(Debug)]
pub(super) struct OurRegion {
    lock: RegionLock,
    counters: OurValues,
}

#[derive(Debug)]
pub(super) struct OurValues([Value<u64>; COUNTERS]);

impl OurRegion {
    pub(super) fn new(mapping: &Mapping) -> Result<Self, Failure> {
        let what = || "find the lock".to_owned();
        let value = |counter: u64| mapping.value(CELLS + 8 * counter).doing(what);
        let counters = OurValues([value(0)?, value(1)?, value(2)?]);
        Ok(Self { lock: mapping.region_lock().doing(what)?, counters })
    }
}

#[cold]
fn not_taken(error: LockError) -> Failure {
    match Err::<(), _>(error).doing(|| "take the lock".to_owned()) {
        Err(failure) => failure,
        Ok(()) => broken("the lock was not taken"),
    }
}

impl Counters for MutexGuard<'_, [u64; COUNTERS]> {
    #[inline(always)]
    fn get(&self, counter: usize) -> u64 {
        self.at(counter).map_or(0, |counter| counter.get())
    }

    #[inline(always)]
    fn set(&self, counter: usize, value: u64) {
        if let Ok(counter) = self.at(counter) {
            counter.set(value);
        }
    }
}

impl Lock for OurMutex {
    type Counters<'a> = MutexGuard<'a, [u64; COUNTERS]>;

    #[inline(always)]
    fn write(
        &self,
        inside: impl FnOnce(&Self::Counters<'_>) -> Result<(), Failure>,
    ) -> Result<Found, Failure> {
        let found = Cell::new(Found::Clean);
        let repair = |_: &Self::Counters<'_>| {
            found.set(Found::OwnerDied);
            Ok(())
        };
        match self.mutex.lock_repairing(repair) {
            Ok(guard) => inside(&guard).map(|()| found.get()),
            Err(error) => Err(not_taken(error)),
        }
    }

    fn keep(&self) -> Result<(), Failure> {
        self.mutex.lock().map(mem::forget).map_err(not_taken)
    }

    fn await_turn(&self, side: u64) -> Result<(), Failure> {
        loop {
            // Read before the check: a signal after the check is not missed.
            let seen = self.event.sequence();
            let guard = self.mutex.lock().map_err(not_taken)?;
            if Counters::get(&guard, TURN) == side {
                return Ok(());
            }
            drop(guard);
            let waited = self.event.wait_for(seen, PATIENCE);
            waited.doing(|| "wait for the lock to be passed on".to_owned())?;
        }
    }

    fn give_turn(&self, side: u64) -> Result<(), Failure> {
        let guard = self.mutex.lock().map_err(not_taken)?;
        Counters::set(&guard, TURN, 1 - side);
        drop(guard);
        self.event.signal().doing(|| "signal".to_owned())
    }
}

impl Counters for OurValues {
    #[inline(always)]
    fn get(&self, counter: usize) -> u64 {
        self.0.get(counter).map_or(0, Value::load)
    }

    #[inline(always)]
    fn set(&self, counter: usize, value: u64) {
        // If a store fails, the final count is wrong, and the run fails.
        let _ = self.0.get(counter).map(|counter| counter.store(value));
    }
}

impl Lock for OurRegion {
    type Counters<'a> = OurValues;

    #[inline(always)]
    fn write(
        &self,
        inside: impl FnOnce(&OurValues) -> Result<(), Failure>,
    ) -> Result<Found, Failure> {
        match self.lock.lock() {
            Ok(_guard) => inside(&self.counters).map(|()| Found::Clean),
            Err(error) => Err(not_taken(error)),
        }
    }

    #[inline(always)]
    fn read(&self, inside: impl FnOnce(&OurValues) -> Result<(), Failure>) -> Result<(), Failure> {
        match self.lock.read_lock() {
            Ok(_guard) => inside(&self.counters),
            Err(error) => Err(not_taken(error)),
        }
    }
}

/// The words that the peers' locks protect.
pub(super) type Words = [AtomicU64; COUNTERS];

#[cold]
fn poisoned<E>(_: E) -> Failure {
    broken("the lock is poisoned")
}

impl Lock for sync::Mutex<Words> {
    type Counters<'a> = Words;

    #[inline(always)]
    fn write(&self, inside: impl FnOnce(&Words) -> Result<(), Failure>) -> Result<Found, Failure> {
        let guard = self.lock().map_err(poisoned)?;
        inside(&guard).map(|()| Found::Clean)
    }
}

impl Lock for sync::RwLock<Words> {
    type Counters<'a> = Words;

    #[inline(always)]
    fn write(&self, inside: impl FnOnce(&Words) -> Result<(), Failure>) -> Result<Found, Failure> {
        let guard = sync::RwLock::write(self).map_err(poisoned)?;
        inside(&guard).map(|()| Found::Clean)
    }

    #[inline(always)]
    fn read(&self, inside: impl FnOnce(&Words) -> Result<(), Failure>) -> Result<(), Failure> {
        let guard = sync::RwLock::read(self).map_err(poisoned)?;
        inside(&guard)
    }
}

impl Lock for parking_lot::Mutex<Words> {
    type Counters<'a> = Words;

    #[inline(always)]
    fn write(&self, inside: impl FnOnce(&Words) -> Result<(), Failure>) -> Result<Found, Failure> {
        let guard = self.lock();
        inside(&guard).map(|()| Found::Clean)
    }
}

impl Lock for parking_lot::RwLock<Words> {
    type Counters<'a> = Words;

    #[inline(always)]
    fn write(&self, inside: impl FnOnce(&Words) -> Result<(), Failure>) -> Result<Found, Failure> {
        let guard = parking_lot::RwLock::write(self);
        inside(&guard).map(|()| Found::Clean)
    }

    #[inline(always)]
    fn read(&self, inside: impl FnOnce(&Words) -> Result<(), Failure>) -> Result<(), Failure> {
        let guard = parking_lot::RwLock::read(self);
        inside(&guard)
    }
}

/// How long a worker that was told to hold a lock waits to be killed.
pub(super) const LIFE: Duration = Duration::from_secs(2 * PATIENCE.as_secs());
