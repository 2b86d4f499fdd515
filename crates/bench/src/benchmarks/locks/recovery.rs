//! From the SIGKILL of a holder to the waiter having the lock.
//!
//! Of holders without memory to speak of; `resident` has the others. Twice: the holder is killed when the waiter has
//! just gone to sleep, and when it has waited for some time, another one for each kill, so that no rhythm of the
//! waiting is met again and again.

use std::{
    thread,
    time::{Duration, Instant},
};

use commonhold_console::{
    failure::{Failure, broken},
    workers::PATIENCE,
};

use super::{
    arena::Arena,
    crew::{Crew, Worker},
    protocol::Request,
    worker,
};
use crate::{
    args::BenchLock,
    benchmarks::{
        line::{Figures, Line},
        stats::float,
    },
};

/// The longest that is waited before the kill, in milliseconds, and a number that has no divisor with it.
const LONGEST_MS: u64 = 41;
const STEP_MS: u64 = 17;

pub(super) fn measure(
    arena: &mut Arena,
    locks: &[BenchLock],
    kills: u32,
) -> Result<Vec<Line>, Failure> {
    let mut lines = just(arena, "recovery, at once", locks, kills, |_| Duration::ZERO)?;
    lines.extend(just(arena, "recovery, later", locks, kills, later)?);
    Ok(lines)
}

/// Up to 40 ms, and all of them before any again.
fn later(kill: usize) -> Duration {
    Duration::from_millis(kill as u64 % LONGEST_MS * STEP_MS % LONGEST_MS)
}

fn just(
    arena: &mut Arena,
    name: &'static str,
    locks: &[BenchLock],
    kills: u32,
    wait: impl Fn(usize) -> Duration,
) -> Result<Vec<Line>, Failure> {
    // The waiter; a holder is hired for each kill.
    let mut field = arena.field(locks, 1)?;
    let kills = usize::try_from(kills).unwrap_or(usize::MAX);
    let found = field.rounds(kills, |kill, crew| kill_one(crew, 0, wait(kill)))?;
    arena.clear(field)?;
    let figures: Vec<_> =
        found.into_iter().map(|(lock, times)| (lock, Figures::spread(times))).collect();
    arena.lines(name, &figures)
}

/// Nanoseconds from the kill of a holder with so many bytes of memory to the lock.
pub(super) fn kill_one(crew: &mut Crew, resident: u64, wait: Duration) -> Result<f64, Failure> {
    let mut holder = crew.start_worker(resident)?;
    holder.ask(Request::Hold, PATIENCE)?;
    let waiter = crew.worker(0)?;
    fall_asleep(waiter)?;
    thread::sleep(wait);
    let killed_at = holder.kill()?;
    told(waiter, killed_at)
}

/// Has a worker wait for the lock: it sleeps when this returns.
pub(super) fn fall_asleep(waiter: &mut Worker) -> Result<(), Failure> {
    waiter.ask(Request::Await, PATIENCE)?;
    let deadline = Instant::now() + PATIENCE;
    while !worker::sleeps(waiter.pid()) {
        if Instant::now() > deadline {
            return Err(broken("the waiter does not wait"));
        }
        thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}

/// Nanoseconds from a death to the lock, by one who waits for it.
pub(super) fn told(waiter: &mut Worker, died_at: u64) -> Result<f64, Failure> {
    match waiter.answer(PATIENCE)?[..] {
        [1, got_at] => Ok(float(got_at.saturating_sub(died_at))),
        [_, _] => Err(broken("the waiter was not told that the owner died")),
        _ => Err(broken("one who awaits has two numbers")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_of_waiting_comes_once_before_any_comes_again() {
        let mut times: Vec<_> = (0..41).map(later).collect();
        times.sort_unstable();
        let all: Vec<_> = (0..LONGEST_MS).map(Duration::from_millis).collect();
        assert_eq!(times, all);
    }
}
