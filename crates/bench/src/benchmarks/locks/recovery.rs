//! The time from the SIGKILL of a holder until the waiter has the lock.
//!
//! The holders have little memory; `resident` measures those with much. There are two scenarios: the holder is killed
//! when the waiter has just gone to sleep, and after the waiter has waited for some time. That time differs for each
//! kill, so that the kills do not always meet the same phase of a periodic wait.

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

/// The number of different waiting times, in milliseconds from 0, and a step that has no common divisor with it.
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

/// A waiting time from 0 to 40 ms; all of them come before any comes again.
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
    // The one worker of the crew is the waiter; each kill starts a new holder.
    let mut field = arena.field(locks, 1)?;
    let kills = usize::try_from(kills).unwrap_or(usize::MAX);
    let found = field.rounds(kills, |kill, crew| kill_one(crew, 0, wait(kill)))?;
    arena.clear(field)?;
    let figures: Vec<_> =
        found.into_iter().map(|(lock, times)| (lock, Figures::spread(times))).collect();
    arena.lines(name, &figures)
}

/// Nanoseconds from the kill of a holder with this much memory until the waiter has the lock.
pub(super) fn kill_one(crew: &mut Crew, resident: u64, wait: Duration) -> Result<f64, Failure> {
    let mut holder = crew.start_worker(resident)?;
    holder.ask(Request::Hold, PATIENCE)?;
    let waiter = crew.worker(0)?;
    fall_asleep(waiter)?;
    thread::sleep(wait);
    let killed_at = holder.kill()?;
    told(waiter, killed_at)
}

/// Makes a worker wait for the lock. When this returns, the worker sleeps.
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

/// Nanoseconds from a death until the waiter has the lock.
pub(super) fn told(waiter: &mut Worker, died_at: u64) -> Result<f64, Failure> {
    match waiter.answer(PATIENCE)?[..] {
        [1, got_at] => Ok(float(got_at.saturating_sub(died_at))),
        [_, _] => Err(broken("the waiter was not told that the owner died")),
        _ => Err(broken("the answer to `await` has two numbers")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_waiting_times_come_before_any_comes_again() {
        let mut times: Vec<_> = (0..41).map(later).collect();
        times.sort_unstable();
        let all: Vec<_> = (0..LONGEST_MS).map(Duration::from_millis).collect();
        assert_eq!(times, all);
    }
}
