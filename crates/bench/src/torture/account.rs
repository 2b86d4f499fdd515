//! Counters whose increments are counted exactly, whichever process is killed, and whenever.
//!
//! An increment adds one to a counter and one to the cell of the worker's incarnation, as one transaction: it writes
//! the intent, then both numbers, then clears the intent. A repair rolls a written intent forward, which is
//! idempotent. So, while no thread holds the lock:
//! 1. the sum of the counters is the sum of the cells;
//! 2. a cell is at least what its worker has acknowledged, and at most what it has announced (at most one more). The
//!    worker writes both numbers to its own file, before and after the increment;
//! 3. the two twin words are equal, and no reader ever sees them differ.
//!
//! Everything is read and written under the account's lock, except the cells of other incarnations.

use commonhold::{Mapping, RegionError};

pub(super) const LEDGER: &str = "torture.ledger";
pub(super) const CELLS: &str = "torture.cells";
pub(super) const CONTROL: &str = "torture.control";
/// Offset of a word in the control region: 1 tells the workers to stop.
pub(super) const STOP: u64 = 0;
/// Offset of the mutex of the second account in the ledger region.
pub(super) const MUTEX: u64 = 8;
pub(super) const COUNTERS: u64 = 32;
pub(super) const LEDGER_SIZE: u64 = 64 + 2 * ACCOUNT_SIZE;

const ACCOUNT_SIZE: u64 = COUNTER + 8 * COUNTERS;
const ACTIVE: u64 = 0;
const INDEX: u64 = 8;
const NEW: u64 = 16;
const CELL: u64 = 24;
const CELL_NEW: u64 = 32;
const TWIN_NEW: u64 = 40;
const TWIN_A: u64 = 64;
const TWIN_B: u64 = 72;
const RECOVERIES: u64 = 80;
const COUNTER: u64 = 128;

/// Which of the two accounts: the one under the region's own lock, or the one under the mutex in its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Region,
    Mutex,
}

impl Which {
    pub(super) const BOTH: [Self; 2] = [Self::Region, Self::Mutex];

    pub(super) const fn number(self) -> u64 {
        match self {
            Self::Region => 0,
            Self::Mutex => 1,
        }
    }
}

/// One account; the caller holds its lock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Account<'a> {
    pub(super) ledger: &'a Mapping,
    pub(super) cells: &'a Mapping,
    pub(super) which: Which,
}

/// Offset of the cell of an incarnation in the cells region.
pub(super) const fn cell_at(incarnation: u64, which: Which) -> u64 {
    16 * incarnation + 8 * which.number()
}

impl Account<'_> {
    /// Adds one to a counter and to a cell.
    pub(super) fn increment(&self, counter: u64, incarnation: u64) -> Result<(), RegionError> {
        let index = counter % COUNTERS;
        let cell = cell_at(incarnation, self.which);
        self.set(INDEX, index)?;
        self.set(NEW, self.get(COUNTER + 8 * index)?.wrapping_add(1))?;
        self.set(CELL, cell)?;
        self.set(CELL_NEW, self.cells.get::<u64>(cell)?.wrapping_add(1))?;
        self.set(TWIN_NEW, self.get(TWIN_B)?.wrapping_add(1))?;
        self.set(ACTIVE, 1)?;
        self.carry_out()
    }

    /// Completes the increment that a dead owner had begun, if its intent is written.
    pub(super) fn repair(&self) -> Result<(), RegionError> {
        if self.get(ACTIVE)? == 1 {
            self.carry_out()?;
        }
        self.set(RECOVERIES, self.get(RECOVERIES)?.wrapping_add(1))
    }

    fn carry_out(&self) -> Result<(), RegionError> {
        let twin = self.get(TWIN_NEW)?;
        self.set(TWIN_A, twin)?;
        self.set(COUNTER + 8 * (self.get(INDEX)? % COUNTERS), self.get(NEW)?)?;
        self.cells.set(self.get(CELL)?, &self.get(CELL_NEW)?)?;
        self.set(TWIN_B, twin)?;
        self.set(ACTIVE, 0)
    }

    /// A description of half an increment, if there is one: no reader may ever see it.
    pub(super) fn torn(&self) -> Result<Option<String>, RegionError> {
        let (a, active) = (self.get(TWIN_A)?, self.get(ACTIVE)?);
        let b = self.get(TWIN_B)?;
        Ok((a != b || active != 0).then(|| {
            format!("{:?} account: a reader saw twins {a} and {b}, intent {active}", self.which)
        }))
    }

    pub(super) fn sum(&self) -> Result<u64, RegionError> {
        (0..COUNTERS)
            .try_fold(0_u64, |sum, index| Ok(sum.wrapping_add(self.get(COUNTER + 8 * index)?)))
    }

    pub(super) fn recoveries(&self) -> Result<u64, RegionError> {
        self.get(RECOVERIES)
    }

    fn get(&self, word: u64) -> Result<u64, RegionError> {
        self.ledger.get(self.base() + word)
    }

    fn set(&self, word: u64, value: u64) -> Result<(), RegionError> {
        self.ledger.set(self.base() + word, &value)
    }

    const fn base(&self) -> u64 {
        64 + ACCOUNT_SIZE * self.which.number()
    }
}
