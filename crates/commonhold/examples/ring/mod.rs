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

use commonhold::{
    Event, LockError, LockResult, Mapping, RawMutex, RawMutexGuard, RegionError, Space, plain,
};

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

plain! {
    /// What goes through the ring. Any bit pattern is a record, so it can be read from shared bytes.
    #[derive(PartialEq, Eq)]
    pub(crate) struct Record {
        pub(crate) number: u64,
        /// The number, squared: a half-written record would show.
        pub(crate) square: u64,
    }
}

impl Record {
    pub(crate) const fn new(number: u64) -> Self {
        Self { number, square: number.wrapping_mul(number) }
    }
}

pub(crate) struct Ring {
    mapping: Mapping,
    mutex: RawMutex,
    pub(crate) record_written: Event,
    pub(crate) record_read: Event,
}

impl Ring {
    /// Finds the ring of the space that `COMMONHOLD_SPACE` names, or makes it: who comes first, does.
    pub(crate) fn open() -> Result<Self, Failure> {
        let url = std::env::var("COMMONHOLD_SPACE").unwrap_or_else(|_| "shm:default".to_owned());
        let space = Space::open_or_format(&url)?;
        // New regions are zero: a free mutex, two events, and an empty ring.
        let mapping = space.map_or_create(REGION, RECORDS + SLOTS * RECORD_BYTES)?;
        Ok(Self {
            mutex: mapping.mutex(MUTEX)?,
            record_written: mapping.event(RECORD_WRITTEN)?,
            record_read: mapping.event(RECORD_READ)?,
            mapping,
        })
    }

    /// Takes the mutex, and repairs the ring if its last owner died.
    fn lock(&self) -> LockResult<RawMutexGuard<'_>> {
        self.mutex.lock_repairing(|_| {
            let number = self.written()?;
            println!("the other side died; rolling record {number} back");
            Ok(self.mapping.set(slot(number), &Record::new(0))?)
        })
    }

    pub(crate) fn written(&self) -> Result<u64, RegionError> {
        self.mapping.get(WRITTEN)
    }

    pub(crate) fn read(&self) -> Result<u64, RegionError> {
        self.mapping.get(READ)
    }

    /// Writes the next record, in two halves, and then makes it count. Only under the lock.
    pub(crate) fn push(&self, record: Record, between: impl FnOnce()) -> Result<(), RegionError> {
        let at = slot(self.written()?);
        self.mapping.set(at, &record.number)?;
        between();
        self.mapping.set(at + 8, &record.square)?;
        self.mapping.set(WRITTEN, &(self.written()? + 1))
    }

    /// Reads the oldest record that has not been read. Only under the lock.
    pub(crate) fn pop(&self) -> Result<Record, RegionError> {
        let number = self.read()?;
        let record = self.mapping.get(slot(number))?;
        self.mapping.set(READ, &(number + 1))?;
        Ok(record)
    }

    pub(crate) fn is_full(&self) -> Result<bool, RegionError> {
        Ok(self.written()? - self.read()? == SLOTS)
    }

    pub(crate) fn is_empty(&self) -> Result<bool, RegionError> {
        Ok(self.written()? == self.read()?)
    }
}

const fn slot(number: u64) -> u64 {
    RECORDS + number % SLOTS * RECORD_BYTES
}

/// Takes the lock when `ready` holds under it; sleeps on the event in between.
pub(crate) fn lock_when<'a>(
    ring: &'a Ring,
    event: &Event,
    ready: impl Fn(&Ring) -> Result<bool, RegionError>,
) -> LockResult<RawMutexGuard<'a>> {
    loop {
        // First the number, then the look: what happens in between is not missed.
        let seen = event.sequence();
        let guard = ring.lock()?;
        if ready(ring)? {
            return Ok(guard);
        }
        drop(guard);
        // Whoever should signal may be dead, with its record in place.
        match event.wait_for(seen, Duration::from_secs(1)) {
            Ok(_) | Err(LockError::TimedOut(_)) => {}
            Err(error) => return Err(error),
        }
    }
}
