//! A ring of records in a region, as the examples `producer` and `consumer` share it.
//!
//! ```text
//! offset 0   the mutex of all that follows
//!        8   event: a record was written
//!       16   event: a record was read
//!       24   records ever written (u64)
//!       32   records ever read (u64)
//!       64   SLOTS records
//! ```
//! A record counts from the moment that "records ever written" says so. Whoever dies before that has
//! left a half-written record in a slot that nobody will read; the next owner of the mutex wipes it.

use std::{error::Error, time::Duration};

use commonhold::{Event, LockError, Mapping, RawMutexGuard, RegionError, Space};
use zerocopy::{FromBytes, Immutable, IntoBytes};

const REGION: &str = "ring";
const MUTEX: u64 = 0;
const RECORD_WRITTEN: u64 = 8;
const RECORD_READ: u64 = 16;
const WRITTEN: u64 = 24;
const READ: u64 = 32;
const RECORDS: u64 = 64;
const SLOTS: u64 = 8;
const RECORD_BYTES: u64 = size_of::<Record>() as u64;

pub(crate) type Failure = Box<dyn Error>;

/// What goes through the ring. Any bit pattern is a record, so it can be read from shared bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Record {
    pub(crate) number: u64,
    /// The number, squared: a half-written record would show.
    pub(crate) square: u64,
}

impl Record {
    pub(crate) const fn new(number: u64) -> Self {
        Self { number, square: number.wrapping_mul(number) }
    }
}

pub(crate) struct Ring(Mapping);

impl Ring {
    /// Finds the ring of the space that `COMMONHOLD_SPACE` names, or makes it: who comes first, does.
    pub(crate) fn open() -> Result<Self, Failure> {
        let url = std::env::var("COMMONHOLD_SPACE").unwrap_or_else(|_| "shm:default".to_owned());
        let space = Space::open_or_format(&url)?;
        // New regions are zero: a free mutex, two events, and an empty ring.
        Ok(Self(space.map_or_create(REGION, RECORDS + SLOTS * RECORD_BYTES)?))
    }

    /// Takes the mutex, and repairs the ring if its last owner died.
    pub(crate) fn lock(&self) -> Result<RawMutexGuard<'_>, Failure> {
        match self.0.mutex(MUTEX)?.lock() {
            Ok(guard) => Ok(guard),
            Err(LockError::OwnerDied(guard)) => {
                let number = self.written()?;
                println!("the other side died; rolling record {number} back");
                self.0.set(slot(number), &Record::new(0))?;
                guard.mark_consistent()?;
                Ok(guard)
            }
            Err(error) => Err(error.to_string().into()),
        }
    }

    pub(crate) fn written(&self) -> Result<u64, RegionError> {
        self.0.get(WRITTEN)
    }

    pub(crate) fn read(&self) -> Result<u64, RegionError> {
        self.0.get(READ)
    }

    /// Writes the next record, in two halves, and then makes it count. Only under the lock.
    pub(crate) fn push(&self, record: Record, between: impl FnOnce()) -> Result<(), RegionError> {
        let at = slot(self.written()?);
        self.0.set(at, &record.number)?;
        between();
        self.0.set(at + 8, &record.square)?;
        self.0.set(WRITTEN, &(self.written()? + 1))
    }

    /// Reads the oldest record that has not been read. Only under the lock.
    pub(crate) fn pop(&self) -> Result<Record, RegionError> {
        let number = self.read()?;
        let record = self.0.get(slot(number))?;
        self.0.set(READ, &(number + 1))?;
        Ok(record)
    }

    pub(crate) fn is_full(&self) -> Result<bool, RegionError> {
        Ok(self.written()? - self.read()? == SLOTS)
    }

    pub(crate) fn is_empty(&self) -> Result<bool, RegionError> {
        Ok(self.written()? == self.read()?)
    }

    pub(crate) fn record_written(&self) -> Result<Event<'_>, RegionError> {
        self.0.event(RECORD_WRITTEN)
    }

    pub(crate) fn record_read(&self) -> Result<Event<'_>, RegionError> {
        self.0.event(RECORD_READ)
    }
}

const fn slot(number: u64) -> u64 {
    RECORDS + number % SLOTS * RECORD_BYTES
}

/// Takes the lock when `ready` holds under it; sleeps on the event in between.
pub(crate) fn lock_when<'a>(
    ring: &'a Ring,
    event: Event<'_>,
    ready: impl Fn(&Ring) -> Result<bool, RegionError>,
) -> Result<RawMutexGuard<'a>, Failure> {
    loop {
        // First the number, then the look: what happens in between is not missed.
        let seen = event.sequence();
        let guard = ring.lock()?;
        if ready(ring)? {
            return Ok(guard);
        }
        drop(guard);
        event.wait(seen, Some(Duration::from_secs(1)))?;
    }
}
