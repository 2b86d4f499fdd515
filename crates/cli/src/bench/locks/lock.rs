//! A lock as the parties of `bench locks` use it, and those of this library.
//!
//! Each method is inlined into the loop that times it, and binds the guard, as users do: what is measured is
//! what their own loop would cost. (That matters. A guard that never leaves the `Result` it came in, as in
//! `lock().is_ok()`, spares the move, which can cost as much as the lock.) A method that a lock does not
//! have is an error, and never asked for.

use std::{mem, sync, time::Duration};

use commonhold::{Event, LockError, Mapping, RawMutex, RegionLock};

use crate::{
    failure::{Doing, Failure},
    workers::{PATIENCE, broken},
};

/// Counters beside a lock: of turns taken, twice, and whose turn it is.
pub(super) const COUNT: usize = 0;
pub(super) const AGAIN: usize = 1;
pub(in crate::bench) const TURN: usize = 2;

/// Bytes of a region with a lock of ours: a mutex, an event and the counters, in lines of their own.
pub(super) const SIZE: u64 = 4096;
const MUTEX: u64 = 0;
const EVENT: u64 = 64;
const CELLS: u64 = 128;

/// How a lock was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bench) enum Found {
    Clean,
    OwnerDied,
}

/// A lock, and the counters beside it.
pub(in crate::bench) trait Lock {
    /// Does something while nobody else has the lock.
    fn write(&self, _inside: impl FnOnce() -> Result<(), Failure>) -> Result<Found, Failure> {
        Err(cannot("be taken"))
    }

    /// Takes the lock alone, for a thread that will never give it back.
    fn keep(&self) -> Result<(), Failure> {
        Err(cannot("be left behind"))
    }

    /// Does something while nobody has the lock alone.
    fn read(&self, _inside: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
        Err(cannot("be read"))
    }

    fn get(&self, _cell: usize) -> Result<u64, Failure> {
        Err(cannot("protect anything"))
    }

    fn set(&self, _cell: usize, _value: u64) -> Result<(), Failure> {
        Err(cannot("protect anything"))
    }

    /// Waits until it is this side's turn.
    fn await_turn(&self, _side: u64) -> Result<(), Failure> {
        Err(cannot("be passed on"))
    }

    /// Says that it is the other side's.
    fn give_turn(&self, _side: u64) -> Result<(), Failure> {
        Err(cannot("be passed on"))
    }
}

#[cold]
fn cannot(what: &str) -> Failure {
    broken(format!("this lock cannot {what}"))
}

/// A mutex in the bytes of a region.
#[derive(Debug)]
pub(super) struct OurMutex<'a> {
    mapping: &'a Mapping,
    mutex: RawMutex<'a>,
    event: Event<'a>,
}

impl<'a> OurMutex<'a> {
    pub(super) fn of(mapping: &'a Mapping) -> Result<Self, Failure> {
        let what = || "find the mutex".to_owned();
        let (mutex, event) = (mapping.mutex(MUTEX).doing(what)?, mapping.event(EVENT).doing(what)?);
        Ok(Self { mapping, mutex, event })
    }
}

/// The lock that a region has.
#[derive(Debug)]
pub(super) struct OurRegion<'a> {
    mapping: &'a Mapping,
    lock: RegionLock<'a>,
}

impl<'a> OurRegion<'a> {
    pub(super) fn of(mapping: &'a Mapping) -> Result<Self, Failure> {
        Ok(Self { mapping, lock: mapping.region_lock().doing(|| "find the lock".to_owned())? })
    }
}

#[cold]
fn not_taken<G>(error: LockError<G>) -> Failure {
    match Err::<(), _>(error).doing(|| "take the lock".to_owned()) {
        Err(failure) => failure,
        Ok(()) => broken("the lock was not taken"),
    }
}

#[inline]
fn get(mapping: &Mapping, cell: usize) -> Result<u64, Failure> {
    mapping.get(CELLS + 8 * cell as u64).doing(|| "look at a counter".to_owned())
}

#[inline]
fn set(mapping: &Mapping, cell: usize, value: u64) -> Result<(), Failure> {
    mapping.set(CELLS + 8 * cell as u64, &value).doing(|| "set a counter".to_owned())
}

impl Lock for OurMutex<'_> {
    #[inline(always)]
    fn write(&self, inside: impl FnOnce() -> Result<(), Failure>) -> Result<Found, Failure> {
        match self.mutex.lock() {
            Ok(_guard) => inside().map(|()| Found::Clean),
            Err(LockError::OwnerDied(guard)) => {
                inside()?;
                guard.mark_consistent().doing(|| "repair".to_owned())?;
                Ok(Found::OwnerDied)
            }
            Err(error) => Err(not_taken(error)),
        }
    }

    fn keep(&self) -> Result<(), Failure> {
        self.mutex.lock().map(mem::forget).map_err(not_taken)
    }

    #[inline]
    fn get(&self, cell: usize) -> Result<u64, Failure> {
        get(self.mapping, cell)
    }

    #[inline]
    fn set(&self, cell: usize, value: u64) -> Result<(), Failure> {
        set(self.mapping, cell, value)
    }

    fn await_turn(&self, side: u64) -> Result<(), Failure> {
        loop {
            // Before the look: a signal after it is not missed.
            let seen = self.event.sequence();
            let guard = self.mutex.lock().map_err(not_taken)?;
            if self.get(TURN)? == side {
                return Ok(());
            }
            drop(guard);
            let waited = self.event.wait(seen, Some(PATIENCE)).doing(|| "wait".to_owned())?;
            waited.ok_or_else(|| broken("nobody passed the lock on"))?;
        }
    }

    fn give_turn(&self, side: u64) -> Result<(), Failure> {
        let guard = self.mutex.lock().map_err(not_taken)?;
        self.set(TURN, 1 - side)?;
        drop(guard);
        self.event.signal().doing(|| "signal".to_owned())
    }
}

impl Lock for OurRegion<'_> {
    #[inline(always)]
    fn write(&self, inside: impl FnOnce() -> Result<(), Failure>) -> Result<Found, Failure> {
        let (guard, found) = match self.lock.lock() {
            Ok(guard) => (guard, Found::Clean),
            Err(LockError::OwnerDied(guard)) => (guard, Found::OwnerDied),
            Err(error) => return Err(not_taken(error)),
        };
        inside()?;
        if found == Found::OwnerDied {
            guard.mark_consistent().doing(|| "repair".to_owned())?;
        }
        Ok(found)
    }

    #[inline(always)]
    fn read(&self, inside: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
        let guard = match self.lock.read_lock() {
            Ok(guard) => guard,
            Err(error) => return Err(not_taken(error)),
        };
        inside()?;
        drop(guard);
        Ok(())
    }

    #[inline]
    fn get(&self, cell: usize) -> Result<u64, Failure> {
        get(self.mapping, cell)
    }

    #[inline]
    fn set(&self, cell: usize, value: u64) -> Result<(), Failure> {
        set(self.mapping, cell, value)
    }
}

#[cold]
fn poisoned<E>(_: E) -> Failure {
    broken("the lock is poisoned")
}

impl Lock for sync::Mutex<()> {
    #[inline(always)]
    fn write(&self, inside: impl FnOnce() -> Result<(), Failure>) -> Result<Found, Failure> {
        let _guard = self.lock().map_err(poisoned)?;
        inside().map(|()| Found::Clean)
    }
}

impl Lock for sync::RwLock<()> {
    #[inline(always)]
    fn write(&self, inside: impl FnOnce() -> Result<(), Failure>) -> Result<Found, Failure> {
        let _guard = sync::RwLock::write(self).map_err(poisoned)?;
        inside().map(|()| Found::Clean)
    }

    #[inline(always)]
    fn read(&self, inside: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
        let _guard = sync::RwLock::read(self).map_err(poisoned)?;
        inside()
    }
}

impl Lock for parking_lot::Mutex<()> {
    #[inline(always)]
    fn write(&self, inside: impl FnOnce() -> Result<(), Failure>) -> Result<Found, Failure> {
        let _guard = self.lock();
        inside().map(|()| Found::Clean)
    }
}

impl Lock for parking_lot::RwLock<()> {
    #[inline(always)]
    fn write(&self, inside: impl FnOnce() -> Result<(), Failure>) -> Result<Found, Failure> {
        let _guard = parking_lot::RwLock::write(self);
        inside().map(|()| Found::Clean)
    }

    #[inline(always)]
    fn read(&self, inside: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
        let _guard = parking_lot::RwLock::read(self);
        inside()
    }
}

/// How long a party that holds a lock waits to be killed.
pub(super) const LIFE: Duration = Duration::from_secs(2 * PATIENCE.as_secs());
