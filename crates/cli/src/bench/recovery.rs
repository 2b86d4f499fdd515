//! `recovery`: from the SIGKILL of a holder to the waiter having the lock.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use commonhold::{Access, CreateOptions, Destroy, FormatOptions, LockError, Mapping, Space};

use super::{Line, ground, quantile};
use crate::{
    args::WorkerArgs,
    clock::now_ns,
    failure::{Doing, Failure},
    session::Session,
    workers::{self, Ground, Order, PATIENCE, broken},
};

const NAME: &str = "bench.recovery";
const KILLS: usize = 50;
/// Word that the holder sets when it has the lock.
const HELD: u64 = 0;

pub(super) fn recovery(session: &Session) -> Result<Line, Failure> {
    let what = || "bench recovery".to_owned();
    let (ground, space) = ground(session, &FormatOptions::default())?;
    let options = CreateOptions { size: 4096, ..CreateOptions::default() };
    // No `Region` stays behind: it would keep the space attached.
    let mapping =
        space.create_with(NAME, &options).and_then(|region| region.map(Access::ReadWrite));
    let mapping = mapping.doing(what)?;
    let mut times = Vec::with_capacity(KILLS);
    for _ in 0..KILLS {
        times.push(kill_one(&ground, &space, &mapping)?);
    }
    mapping.unmap().doing(what)?;
    space.destroy(NAME, Destroy::Within(PATIENCE)).doing(what)?;
    ground.remove(space)?;
    let p99 = quantile(times.clone(), 99);
    Ok(Line { p99_ns: Some(p99), ..Line::new("recovery", "nothing", times, Vec::new()) })
}

/// Nanoseconds from the kill to the lock.
fn kill_one(ground: &Ground, space: &Space, mapping: &Mapping) -> Result<f64, Failure> {
    let what = || "bench recovery".to_owned();
    mapping.set(HELD, &0_u64).doing(what)?;
    let mut child = workers::start(Order {
        command: "bench-holder",
        url: &ground.url,
        cell: 0,
        seed: 0,
        peers: 1,
        log: Path::new("-"),
    })?;
    let measured = thread::scope(|scope| {
        until("the holder to hold", || Ok(mapping.get::<u64>(HELD).doing(what)? == 1))?;
        let waiter = scope.spawn(|| match mapping.lock_for(PATIENCE) {
            Err(LockError::OwnerDied(guard)) => {
                let got = now_ns();
                guard.mark_consistent().and_then(|()| guard.unlock()).doing(what)?;
                Ok(got)
            }
            Ok(_) => Err(broken("the waiter was not told that the owner died")),
            Err(error) => Err(error).doing(what),
        });
        let waits = until("the waiter to wait", || {
            let locks = space.locks().doing(what)?;
            Ok(locks.iter().any(|lock| lock.region == NAME && lock.waiters > 0))
        });
        let killed_at = now_ns();
        let killed = workers::kill(&mut child).doing(what);
        let got = waiter.join().map_err(|_| broken("the waiter panicked"))?;
        waits?;
        killed?;
        got.map(|got| got.saturating_sub(killed_at))
    });
    workers::kill(&mut child).doing(what)?;
    // Far below 2^52: exact.
    measured.map(|nanos| Duration::from_nanos(nanos).as_secs_f64() * 1e9)
}

fn until(what: &str, mut done: impl FnMut() -> Result<bool, Failure>) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    while !done()? {
        if Instant::now() > deadline {
            return Err(broken(format!("waited {} s for {what}", PATIENCE.as_secs())));
        }
        thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// The process that is killed: takes the lock, says so, and waits for its end.
pub(crate) fn holder(session: &Session, args: &WorkerArgs) -> Result<(), Failure> {
    let what = || "hold the lock".to_owned();
    let space = workers::attach(session, args, "bench")?;
    let mapping = space.map(NAME, Access::ReadWrite).doing(what)?;
    let guard = mapping.lock().doing(what)?;
    mapping.set(HELD, &1_u64).doing(what)?;
    thread::sleep(2 * PATIENCE);
    guard.unlock().doing(what)
}
