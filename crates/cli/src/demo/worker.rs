//! One worker of the demo: transfers until it is told to rest, or is killed.

use std::{thread, time::Duration};

use commonhold::{Access, LockError, Mapping, RegionError, Space};

use super::ledger::{
    BELL, CONTROL, FROZEN, Ledger, NAME, PHASE, REST, RESTS, STOP, WORK, freeze_of, says_of,
};
use crate::{
    args::WorkerArgs,
    clock::now_ns,
    failure::{Doing, Failure},
    random::Random,
    session::Session,
    workers,
};

/// How long to wait for the lock before looking whether there is still work.
const SLICE: Duration = Duration::from_millis(200);

pub(crate) fn worker(session: &Session, args: &WorkerArgs) -> Result<(), Failure> {
    let space = workers::attach(session, args, "demo")?;
    let (control, ledger) = map(&space).doing(|| "map the ledger".to_owned())?;
    let mut random = Random::new(args.seed);
    let what = || "work on the ledger".to_owned();
    while control.get::<u64>(PHASE).doing(what)? == WORK {
        match turn(&control, &ledger, args.cell, &mut random) {
            Ok(()) | Err(LockError::TimedOut) => {}
            Err(error) => return Err(error).doing(what),
        }
    }
    rest(&control, args.cell).doing(what)
}

fn map(space: &Space) -> Result<(Mapping, Ledger), RegionError> {
    let control = space.map(CONTROL, Access::ReadWrite)?;
    Ok((control, Ledger(space.map(NAME, Access::ReadWrite)?)))
}

/// One transfer under the lock, after a repair if the last owner died.
fn turn(
    control: &Mapping,
    ledger: &Ledger,
    cell: u64,
    random: &mut Random,
) -> Result<(), LockError<()>> {
    let guard = match ledger.0.lock_for(SLICE) {
        Ok(guard) => guard,
        Err(LockError::OwnerDied(guard)) => {
            ledger.repair(now_ns(), u64::from(std::process::id()))?;
            guard.mark_consistent()?;
            control.event(BELL)?.broadcast()?;
            guard
        }
        Err(LockError::TimedOut) => return Err(LockError::TimedOut),
        Err(LockError::Unrecoverable) => return Err(LockError::Unrecoverable),
        Err(LockError::Region(error)) => return Err(error.into()),
        Err(_) => return Err(LockError::Deadlock),
    };
    ledger.transfer(random.next(), random.next(), || {
        if control.get::<u64>(freeze_of(cell))? == 0 {
            return Ok(());
        }
        control.set(says_of(cell), &FROZEN)?;
        control.event(BELL)?.broadcast()?;
        // Killed here, with the debit written and the credit not; if not, the run is over.
        while control.get::<u64>(PHASE)? == WORK {
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    })?;
    guard.unlock()?;
    Ok(())
}

/// Keeps the ledger mapped, and works no more, until told to stop.
fn rest(control: &Mapping, cell: u64) -> Result<(), RegionError> {
    let bell = control.event(BELL)?;
    control.set(says_of(cell), &RESTS)?;
    bell.broadcast()?;
    loop {
        let seen = bell.sequence();
        match control.get::<u64>(PHASE)? {
            STOP => return Ok(()),
            REST => {
                bell.wait(seen, Some(Duration::from_millis(500)))?;
            }
            _ => thread::yield_now(),
        }
    }
}
