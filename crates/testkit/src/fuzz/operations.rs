//! Every public operation of the facade, with random arguments, on a space in any state.
//!
//! # What must hold
//! Each operation ends soon: those that can wait get little time. Their results are counted, but not checked here.

use std::time::Duration;

use commonhold::{
    Access, Barrier, Condvar, CreateOptions, Destroy, ErrorKind, LockError, Mapping, Mutex,
    OnceLock, Recovered, RegionError, RwLock, Semaphore, SeqLock, Space, Turn,
};
use fastrand::Rng;

use super::tally::Tally;

const BRIEFLY: Duration = Duration::from_millis(5);
const NAMES: [&str; 9] = ["a", "b", "c", "d", "e", "new", "lazy", "kept", "sized"];
const RECORDS: [u64; 5] = [0, 24, 64, 4096, 8];

type Deed = fn(&Space, &mut Rng) -> Result<(), ErrorKind>;

const DEEDS: [(&str, Deed); 21] = [
    ("info", |space, _| space.info().map(drop).map_err(kind)),
    ("list", |space, _| space.regions().map(drop).map_err(kind)),
    ("peers", |space, _| space.peers().map(drop).map_err(kind)),
    ("locks", |space, _| space.locks().map(drop).map_err(kind)),
    ("graph", |space, _| space.wait_graph().map(drop).map_err(kind)),
    ("check", |space, _| space.check().map_err(kind)),
    ("reap", |space, _| space.reap().map(drop).map_err(kind)),
    ("stat", |space, random| space.stat(name(random)).map(drop).map_err(kind)),
    ("region", |space, random| space.region(name(random)).map(drop).map_err(kind)),
    ("rename", |space, random| space.set_name(name(random)).map_err(kind)),
    ("listen", |space, _| space.listen().map_err(kind)),
    ("orphaned", |space, _| {
        let _ = space.is_orphaned();
        space.duplicate_fd().map(drop).map_err(kind)
    }),
    ("assume dead", |space, random| space.assume_dead(random.u16(0..8)).map(drop).map_err(kind)),
    ("create", create),
    ("create", create),
    ("destroy", destroy),
    ("resize", |space, random| space.resize(name(random), size(random)).map_err(kind)),
    ("map or create", |space, random| {
        space.map_or_create(name(random), size(random)).map(drop).map_err(kind)
    }),
    ("bytes", |space, random| bytes(&*mapped(space, random)?, random)),
    ("lock", |space, random| lock(&*mapped(space, random)?, random)),
    ("record", |space, random| record(&*mapped(space, random)?, random)),
];

/// Does one random operation.
pub(crate) fn any(space: &Space, random: &mut Rng, tally: &mut Tally) {
    let Some((what, deed)) = DEEDS.get(random.usize(..DEEDS.len())) else { return };
    match deed(space, random) {
        Ok(()) => tally.count(what, "done"),
        Err(kind) => tally.count(what, &format!("{kind:?}")),
    }
}

/// Does each operation once.
pub(crate) fn all(space: &Space, random: &mut Rng, tally: &mut Tally) {
    for (what, deed) in DEEDS {
        let outcome =
            deed(space, random).map_or_else(|kind| format!("{kind:?}"), |()| "done".into());
        tally.count(what, &outcome);
    }
}

fn kind(error: RegionError) -> ErrorKind {
    // Formatting the message must not panic either.
    let _ = error.to_string();
    error.kind()
}

fn locked(error: LockError) -> ErrorKind {
    let _ = error.to_string();
    error.kind()
}

fn name(random: &mut Rng) -> &'static str {
    NAMES.get(random.usize(..NAMES.len())).unwrap_or(&"a")
}

fn size(random: &mut Rng) -> u64 {
    match random.u8(..8) {
        0 => 0,
        1 => random.u64(..),
        2 => 1 << random.u32(..48),
        _ => random.u64(..40_000),
    }
}

fn create(space: &Space, random: &mut Rng) -> Result<(), ErrorKind> {
    let options = CreateOptions {
        size: size(random),
        reserve: random.bool().then(|| size(random)),
        lazy: random.bool(),
        force: random.bool(),
    };
    space.create_with(name(random), &options).map(drop).map_err(kind)
}

fn destroy(space: &Space, random: &mut Rng) -> Result<(), ErrorKind> {
    let how = if random.bool() { Destroy::Deferred } else { Destroy::Within(BRIEFLY) };
    space.destroy(name(random), how).map(drop).map_err(kind)
}

fn mapped(space: &Space, random: &mut Rng) -> Result<Box<Mapping>, ErrorKind> {
    let access = if random.u8(..4) == 0 { Access::ReadOnly } else { Access::ReadWrite };
    space.map(name(random), access).map(Box::new).map_err(kind)
}

fn bytes(mapping: &Mapping, random: &mut Rng) -> Result<(), ErrorKind> {
    let at = random.u64(..8192);
    mapping.read_at(at, &mut [0; 64]).map_err(kind)?;
    mapping.write_at(at, &[7; 64]).map_err(kind)?;
    let last = mapping.size().saturating_sub(8);
    mapping.get::<u64>(last).map_err(kind)?;
    mapping.set(last, &7_u64).map_err(kind)?;
    let value = mapping.value::<[u64; 2]>(at & !7).map_err(kind)?;
    value.store(value.load()).map_err(kind)
}

fn lock(mapping: &Mapping, random: &mut Rng) -> Result<(), ErrorKind> {
    use_lock(mapping, random).map_err(locked)
}

fn use_lock(mapping: &Mapping, random: &mut Rng) -> Result<(), LockError> {
    match random.u8(..7) {
        0 => mapping.reset_lock(),
        1 => mapping.try_lock()?.map_or(Ok(()), |guard| guard.unlock()),
        2 => mapping.read_lock_for(BRIEFLY)?.unlock(),
        3 => {
            let lock = mapping.region_lock()?;
            let mut guard = lock.upgradable_read_for(BRIEFLY)?;
            guard.upgrade_for(BRIEFLY)?.downgrade()
        }
        4 => mapping.lock_for(BRIEFLY)?.leave_inconsistent(),
        5 => match mapping.lock_recover_for(BRIEFLY)? {
            Recovered::Inconsistent(guard) => guard.give_up(),
            Recovered::Consistent(guard) => guard.unlock(),
        },
        _ => match mapping.lock_recover_for(BRIEFLY)? {
            Recovered::Inconsistent(guard) => guard.mark_consistent()?.unlock(),
            Recovered::Consistent(guard) => guard.unlock(),
        },
    }
}

fn record(mapping: &Mapping, random: &mut Rng) -> Result<(), ErrorKind> {
    let at = RECORDS.get(random.usize(..RECORDS.len())).copied().unwrap_or(0);
    use_record(mapping, at, random).map_err(locked)
}

fn use_record(mapping: &Mapping, at: u64, random: &mut Rng) -> Result<(), LockError> {
    match random.u8(..11) {
        0 | 1 => {
            let mutex = mapping.open::<Mutex<u64>>(at)?;
            for _ in 0..random.u8(..40) {
                mutex.lock_for(BRIEFLY)?.with_mut(|value| *value ^= 1);
            }
        }
        2 => {
            let table = mapping.open::<RwLock<u64>>(at)?;
            let _: u64 = table.read_for(BRIEFLY)?.get();
            table.write_for(BRIEFLY)?.set(1);
        }
        3 => {
            let once = mapping.open::<OnceLock<u64>>(at)?;
            if let Turn::Mine(turn) = once.begin_for(BRIEFLY)?
                && random.bool()
            {
                turn.complete(&7)?;
            }
        }
        4..8 => together(mapping, at, random)?,
        8 => {
            let event = mapping.event(at)?;
            event.broadcast()?;
            event.wait_for(event.sequence(), BRIEFLY)?;
        }
        9 => {
            // In whatever state the mutex is.
            let mutex = mapping.open::<Mutex<[u64; 4]>>(at)?;
            let mutex = mutex.repaired_by(|data| {
                data.set([0; 4]);
                Ok(())
            });
            mutex.lock_for(BRIEFLY)?.slice(1..3)?.fill(&5);
        }
        _ => {
            let mutex = mapping.mutex(at)?;
            match random.bool() {
                true => mutex.reset()?,
                false => mutex.lock_for(BRIEFLY)?.unlock()?,
            }
        }
    }
    Ok(())
}

/// The operations with which threads wait for each other.
fn together(mapping: &Mapping, at: u64, random: &mut Rng) -> Result<(), LockError> {
    match random.u8(..4) {
        0 => {
            let mutex = mapping.open::<Mutex<u64>>(at)?;
            let condition = mapping.open::<Condvar>(at + 64)?;
            condition.notify_one()?;
            condition.wait_for(mutex.lock_for(BRIEFLY)?, BRIEFLY).map(drop)
        }
        1 => {
            let semaphore = mapping.open::<Semaphore<3>>(at)?;
            semaphore.acquire_for(BRIEFLY)?.spend()?;
            semaphore.give()
        }
        2 => {
            let barrier = mapping.open::<Barrier<2>>(at)?;
            let participant = barrier.join()?;
            participant.arrive()?;
            let _ = participant.wait_for(BRIEFLY);
            participant.leave()
        }
        _ => {
            let data = mapping.open::<SeqLock<u64>>(at)?;
            data.read_for(BRIEFLY)?;
            data.write_for(BRIEFLY)?.set(9);
            Ok(())
        }
    }
}
