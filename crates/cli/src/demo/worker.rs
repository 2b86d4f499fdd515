//! One worker of the demo: transfers until it is told to rest, or is killed.

use std::{thread, time::Duration};

use commonhold::{Access, LockResult, Mapping, RegionError, Space};
use commonhold_console::{
    clock::now_ns,
    failure::{Doing, Failure},
    random::Random,
    session::Session,
    workers::{self, WorkerArgs},
};

use super::ledger::{
    CONTROL, DEATH_FUTEX, FROZEN, Ledger, NAME, PHASE, REST, RESTS, STOP, WORK, freeze_of, says_of,
};

pub(crate) fn worker(session: &Session, args: &WorkerArgs) -> Result<(), Failure> {
    let space = workers::attach(session, args, "demo")?;
    let (control, ledger) = map(&space).doing(|| "map the ledger".to_owned())?;
    let mut random = Random::new(args.seed);
    let what = || "work on the ledger".to_owned();
    while control.get::<u64>(PHASE).doing(what)? == WORK {
        turn(&control, &ledger, args.cell, &mut random).doing(what)?;
    }
    rest(&control, args.cell).doing(what)
}

fn map(space: &Space) -> Result<(Mapping, Ledger), RegionError> {
    let control = space.map(CONTROL, Access::ReadWrite)?;
    Ok((control, Ledger(space.map(NAME, Access::ReadWrite)?)))
}

/// One transfer under the lock, after a repair if the last owner died.
fn turn(control: &Mapping, ledger: &Ledger, cell: u64, random: &mut Random) -> LockResult<()> {
    let guard = ledger.0.lock_repairing(|_| {
        ledger.repair(now_ns(), u64::from(std::process::id()))?;
        Ok(control.event(DEATH_FUTEX)?.broadcast()?)
    })?;
    let done = ledger.transfer(random.next(), random.next(), || {
        if control.get::<u64>(freeze_of(cell))? == 0 {
            return Ok(());
        }
        control.set(says_of(cell), &FROZEN)?;
        control.event(DEATH_FUTEX)?.broadcast()?;
        // The coordinator kills this process here, after the debit and before the credit; or the run ends first.
        while control.get::<u64>(PHASE)? == WORK {
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    });
    match done {
        Ok(()) => guard.unlock(),
        // The transfer is half done: the next owner of the lock undoes it.
        Err(error) => guard.leave_inconsistent().and(Err(error)),
    }
}

/// Keeps the ledger mapped without using it, until told to stop.
fn rest(control: &Mapping, cell: u64) -> LockResult<()> {
    let death_futex = control.event(DEATH_FUTEX)?;
    control.set(says_of(cell), &RESTS)?;
    death_futex.broadcast()?;
    loop {
        let seen = death_futex.sequence();
        match control.get::<u64>(PHASE)? {
            STOP => return Ok(()),
            REST => {
                death_futex.wait(seen)?;
            }
            _ => thread::yield_now(),
        }
    }
}
