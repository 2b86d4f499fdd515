//! What actors do with a sequence lock, and with a region's lock held upgradable: each command takes the lock,
//! changes what it protects, and gives it back. And what the ledger knows of it.

use std::collections::BTreeMap;

use commonhold::{LockError, Mapping, RegionError, SeqLock};
use commonhold_window::Point;

use crate::stage::{Line, answer, refused, say};

/// Two numbers that are always the same.
type Pair = [u64; 2];

/// `sopen NAME - OFFSET`, `sput NAME VALUE OFFSET`, `sget NAME - OFFSET`, `promote NAME`. Whether it was one of
/// these.
pub(crate) fn obey(line: &Line, mapping: Option<&Mapping>) -> bool {
    let (Some(mapping), verb) = (mapping, line.word(0)) else { return false };
    let opened = || mapping.open::<SeqLock<Pair>>(line.number(3));
    match verb {
        "sopen" => answer(&opened()),
        "sput" => say('=', &put(opened(), line.number(2))),
        "sget" => say('=', &get(opened())),
        "promote" => say('=', &promote(mapping)),
        _ => return false,
    }
    true
}

fn put(lock: Result<SeqLock<'_, Pair>, RegionError>, value: u64) -> String {
    let (told, guard) = match lock.map(|lock| lock.write()) {
        Ok(Ok(guard)) => ("ok", guard),
        Ok(Err(LockError::OwnerDied(guard))) => ("ownerdied", guard),
        Ok(Err(error)) => return format!("failed: {error}"),
        Err(error) => return refused(&error),
    };
    let written = guard.set(&[value; 2]);
    let repaired = if told == "ok" { Ok(()) } else { guard.mark_consistent() };
    match written.and(repaired).and(guard.unlock()) {
        Ok(()) => told.into(),
        Err(error) => refused(&error),
    }
}

fn get(lock: Result<SeqLock<'_, Pair>, RegionError>) -> String {
    match lock.map(|lock| lock.read()) {
        Ok(Ok([one, other])) if one == other => format!("ok {one}"),
        Ok(Ok(torn)) => format!("failed: torn: {torn:?}"),
        Ok(Err(LockError::WriterDied)) => "writerdied".into(),
        Ok(Err(error)) => format!("failed: {error}"),
        Err(error) => refused(&error),
    }
}

/// Takes the region's lock upgradable, upgrades, repairs what is to be repaired, and goes back the same way.
fn promote(mapping: &Mapping) -> String {
    let lock = match mapping.region_lock() {
        Ok(lock) => lock,
        Err(error) => return refused(&error),
    };
    let mut guard = match lock.upgradable_read() {
        Ok(guard) | Err(LockError::OwnerDied(guard)) => guard,
        Err(LockError::Unrecoverable) => return "unrecoverable".into(),
        Err(error) => return format!("failed: {error}"),
    };
    let (told, done) = match guard.upgrade() {
        Ok(writer) => ("ok", writer.downgrade()),
        Err(LockError::OwnerDied(writer)) => {
            ("ownerdied", writer.mark_consistent().and_then(|()| writer.downgrade()))
        }
        Err(error) => return format!("failed: {error}"),
    };
    match done.and(guard.unlock()) {
        Ok(()) => told.into(),
        Err(error) => refused(&error),
    }
}

/// A sequence lock, as it must be.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seq {
    value: u64,
    /// A writer died in the middle of a change.
    torn: bool,
    /// A writer died with the lock.
    told: bool,
}

/// The sequence locks of a region, by their places.
pub(crate) type Seqs = BTreeMap<u64, Seq>;

impl Seq {
    pub(crate) fn right_put(self) -> &'static str {
        if self.told { "ownerdied" } else { "ok" }
    }

    pub(crate) fn right_get(self) -> String {
        if self.torn { "writerdied".into() } else { format!("ok {}", self.value) }
    }

    pub(crate) fn put(&mut self, value: u64) {
        *self = Self { value, torn: false, told: false };
    }

    /// Who wanted to make it `value` died after these points.
    pub(crate) fn died(&mut self, value: u64, trace: &[Point]) {
        use Point::{LockAcquired, LockTakenOver, SeqEven, SeqOdd, SeqWritten, UnlockFreed};
        let last = |among: &[Point]| trace.iter().rev().copied().find(|it| among.contains(it));
        match last(&[SeqOdd, SeqWritten, SeqEven]) {
            Some(SeqEven) => (self.value, self.torn) = (value, false),
            Some(_) => self.torn = true,
            None => {}
        }
        match last(&[LockAcquired, LockTakenOver, UnlockFreed]) {
            Some(UnlockFreed) => self.told = false,
            Some(_) => self.told = true,
            None => {}
        }
    }
}

/// Whether somebody who upgrades keeps readers out after these points; `None`: it has not come so far.
pub(crate) fn is_upgraded(trace: &[Point]) -> Option<bool> {
    use Point::{DowngradePending, LockDowngraded, LockUpgraded};
    let steps = [LockUpgraded, DowngradePending, LockDowngraded];
    let last = trace.iter().rev().find(|point| steps.contains(point))?;
    Some(*last != LockDowngraded)
}
