//! Sequence locks, and region locks held upgradable. In the child, each command takes the lock, changes the data and
//! releases the lock. For the ledger, this module knows what a death leaves.

use std::collections::BTreeMap;

use commonhold::{LockError, LockResult, Mapping, SeqLock};
use commonhold_window::Point;

use crate::scripted_process::{Line, refused, say};

/// Two numbers that must always be equal.
type Pair = [u64; 2];

/// Executes `sopen NAME - OFFSET`, `sput NAME VALUE OFFSET`, `sget NAME - OFFSET` or `promote NAME`. Returns whether
/// the line was one of these.
pub(crate) fn obey(line: &Line, mapping: Option<&Mapping>) -> bool {
    let (Some(mapping), verb) = (mapping, line.word(0)) else { return false };
    let opened = || mapping.open::<SeqLock<Pair>>(line.number(3));
    let said = match verb {
        "sopen" => opened().map_or_else(refused, |_| "ok".into()),
        "sput" => match opened() {
            Ok(lock) => put(&lock, line.number(2)).map_or_else(refused, Into::into),
            Err(error) => refused(error),
        },
        "sget" => opened().map_or_else(refused, |lock| get(&lock)),
        "promote" => promote(mapping).map_or_else(refused, Into::into),
        _ => return false,
    };
    say('=', &said);
    true
}

fn put(lock: &SeqLock<Pair>, value: u64) -> LockResult<&'static str> {
    let mut told = "ok";
    let guard = lock.write_repairing(|_| {
        told = "ownerdied";
        Ok(())
    })?;
    guard.set([value; 2]);
    guard.unlock()?;
    Ok(told)
}

fn get(lock: &SeqLock<Pair>) -> String {
    match lock.read() {
        Ok([one, other]) if one == other => format!("ok {one}"),
        Ok(torn) => format!("failed: torn: {torn:?}"),
        Err(LockError::OwnerDied(_)) => "writerdied".into(),
        Err(error) => refused(error),
    }
}

/// Takes the region's lock upgradable, after a repair if one is needed; upgrades it, downgrades it, and frees it.
fn promote(mapping: &Mapping) -> LockResult<&'static str> {
    let lock = mapping.region_lock()?;
    let (told, mut guard) = match lock.upgradable_read() {
        Err(LockError::OwnerDied(_)) => {
            lock.lock_repairing(|_| Ok(()))?.unlock()?;
            ("ownerdied", lock.upgradable_read()?)
        }
        taken => ("ok", taken?),
    };
    guard.upgrade()?.downgrade()?;
    guard.unlock()?;
    Ok(told)
}

/// The expected state of a sequence lock.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seq {
    value: u64,
    /// A writer died in the middle of a change.
    torn: bool,
    /// A writer died while it held the lock.
    told: bool,
}

/// The sequence locks of a region, by their offsets.
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

    /// Records that a process that was writing `value` died after these points.
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

/// Whether a process that upgrades keeps readers out after these points; `None` if no point decides it yet.
pub(crate) fn is_upgraded(trace: &[Point]) -> Option<bool> {
    use Point::{DowngradePending, LockDowngraded, LockUpgraded};
    let steps = [LockUpgraded, DowngradePending, LockDowngraded];
    let last = trace.iter().rev().find(|point| steps.contains(point))?;
    Some(*last != LockDowngraded)
}

/// Whether a process has repaired the data of a lock, and freed it, after these points.
pub(crate) fn has_repaired(trace: &[Point]) -> bool {
    let mut after = trace.iter().skip_while(|point| **point != Point::LockConsistent);
    after.any(|point| *point == Point::UnlockFreed)
}
