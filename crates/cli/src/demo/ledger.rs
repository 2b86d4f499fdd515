//! The ledger: accounts whose sum never changes, and the journal that makes a transfer atomic.
//!
//! Invariants: 1. everything is read and written under the region's lock, except the totals, which the coordinator
//! reads at any time. 2. While `ACTIVE` is 1 the journal holds both balances from before the transfer. Undoing a
//! transfer is idempotent: if a worker is killed during a repair, the next owner repairs again.

use commonhold::{LockResult, Mapping, RegionError};

pub(crate) const NAME: &str = "demo.ledger";
pub(crate) const CONTROL: &str = "demo.control";
pub(crate) const ACCOUNTS: u64 = 16;
pub(crate) const OPENING: u64 = 1_000;
pub(crate) const SIZE: u64 = BALANCES + 8 * ACCOUNTS;

// The journal.
const ACTIVE: u64 = 0;
const FROM: u64 = 8;
const TO: u64 = 16;
const AMOUNT: u64 = 24;
const BEFORE_FROM: u64 = 32;
const BEFORE_TO: u64 = 40;
// The totals.
const TRANSFERS: u64 = 64;
const RECOVERIES: u64 = 72;
const RECOVERED_AT: u64 = 80;
const RECOVERED_BY: u64 = 88;
const UNDONE: u64 = 96;
const BALANCES: u64 = 128;

// The control region: the phase, which tells all workers what to do; an event; and a cache line for each worker.
pub(crate) const PHASE: u64 = 0;
pub(crate) const DEATH_FUTEX: u64 = 8;
pub(crate) const WORK: u64 = 0;
pub(crate) const REST: u64 = 1;
pub(crate) const STOP: u64 = 2;

/// Offset of the word that asks a worker to stop in the middle of a transfer.
pub(crate) const fn freeze_of(cell: u64) -> u64 {
    64 + 64 * cell
}

/// Offset of the word in which a worker answers: [`FROZEN`] in the middle of a transfer, or [`RESTS`].
pub(crate) const fn says_of(cell: u64) -> u64 {
    freeze_of(cell) + 8
}

pub(crate) const FROZEN: u64 = 1;
pub(crate) const RESTS: u64 = 2;

/// A mapping of the ledger.
#[derive(Debug)]
pub(crate) struct Ledger(pub(crate) Mapping);

/// Counters that the coordinator shows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    pub(crate) transfers: u64,
    pub(crate) recoveries: u64,
    pub(crate) recovered_at: u64,
    pub(crate) recovered_by: u64,
    pub(crate) undone: u64,
}

impl Ledger {
    pub(crate) fn open_accounts(&self) -> Result<(), RegionError> {
        (0..ACCOUNTS).try_for_each(|account| self.0.set(balance_of(account), &OPENING))
    }

    pub(crate) fn sum(&self) -> Result<u64, RegionError> {
        (0..ACCOUNTS).try_fold(0_u64, |sum, account| {
            Ok(sum.wrapping_add(self.0.get::<u64>(balance_of(account))?))
        })
    }

    /// One transfer; `between` is called after the debit and before the credit.
    pub(crate) fn transfer(
        &self,
        from: u64,
        to: u64,
        between: impl FnOnce() -> LockResult<()>,
    ) -> LockResult<()> {
        let (from, to) = (from % ACCOUNTS, to % ACCOUNTS);
        let (before_from, before_to) =
            (self.0.get::<u64>(balance_of(from))?, self.0.get::<u64>(balance_of(to))?);
        if from == to || before_from == 0 {
            return Ok(());
        }
        let amount = 1 + before_from / 7;
        for (word, value) in [
            (FROM, from),
            (TO, to),
            (AMOUNT, amount),
            (BEFORE_FROM, before_from),
            (BEFORE_TO, before_to),
            (ACTIVE, 1),
        ] {
            self.0.set(word, &value)?;
        }
        self.0.set(balance_of(from), &before_from.saturating_sub(amount))?;
        between()?;
        self.0.set(balance_of(to), &before_to.saturating_add(amount))?;
        self.0.set(ACTIVE, &0_u64)?;
        Ok(self.0.set(TRANSFERS, &self.0.get::<u64>(TRANSFERS)?.wrapping_add(1))?)
    }

    /// Undoes what a dead owner left half done.
    pub(crate) fn repair(&self, now_ns: u64, by: u64) -> Result<(), RegionError> {
        let undo = self.0.get::<u64>(ACTIVE)? == 1;
        if undo {
            let (from, to) = (self.0.get::<u64>(FROM)?, self.0.get::<u64>(TO)?);
            self.0.set(balance_of(from % ACCOUNTS), &self.0.get::<u64>(BEFORE_FROM)?)?;
            self.0.set(balance_of(to % ACCOUNTS), &self.0.get::<u64>(BEFORE_TO)?)?;
            self.0.set(UNDONE, &self.0.get::<u64>(AMOUNT)?)?;
            self.0.set(ACTIVE, &0_u64)?;
        }
        self.0.set(RECOVERED_AT, &now_ns)?;
        self.0.set(RECOVERED_BY, &by)?;
        // Last: the coordinator reads the other totals once this one has changed.
        self.0.set(RECOVERIES, &self.0.get::<u64>(RECOVERIES)?.wrapping_add(1))
    }

    pub(crate) fn totals(&self) -> Result<Totals, RegionError> {
        Ok(Totals {
            recoveries: self.0.get(RECOVERIES)?,
            transfers: self.0.get(TRANSFERS)?,
            recovered_at: self.0.get(RECOVERED_AT)?,
            recovered_by: self.0.get(RECOVERED_BY)?,
            undone: self.0.get(UNDONE)?,
        })
    }
}

const fn balance_of(account: u64) -> u64 {
    BALANCES + 8 * account
}
