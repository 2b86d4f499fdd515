//! Recovery from holders with much memory, and from the end of a single thread.
//!
//! When a process dies, the kernel frees its memory first and closes its files afterwards. If a waiter learns of the
//! death from a closed file, it learns it later, the more memory the process had. So this benchmark kills holders with
//! different amounts of private memory, all of it touched. In a second scenario only one thread of the holder ends,
//! while it holds the lock. The waiter, which has little memory, has just gone to sleep.
//!
//! Invariant: there is one holder at a time, with the memory that was asked for. This process does not have such
//! memory itself: it would be copied to each holder at its start.

use std::time::Duration;

use commonhold_console::{
    failure::{Failure, broken},
    units::human_size,
    workers::PATIENCE,
};

use super::{
    arena::Arena,
    crew::Crew,
    protocol::Request,
    recovery::{fall_asleep, kill_one, told},
};
use crate::{
    args::BenchLock,
    benchmarks::line::{Figures, Line},
};

/// Bytes of memory that the process has in the scenario in which only one of its threads ends.
const AROUND_A_THREAD: [u64; 2] = [0, 128 << 20];

pub(super) fn measure(
    arena: &mut Arena,
    locks: &[BenchLock],
    sizes: &[u64],
    kills: u32,
) -> Result<Vec<Line>, Failure> {
    let mut lines = Vec::new();
    for &size in sizes {
        let once = |crew: &mut Crew| kill_one(crew, size, Duration::ZERO);
        lines.extend(by_size(arena, "recovery", locks, size, kills, once)?);
    }
    for size in AROUND_A_THREAD {
        let once = |crew: &mut Crew| leave_one(crew, size);
        lines.extend(by_size(arena, "thread ends", locks, size, kills, once)?);
    }
    Ok(lines)
}

fn by_size(
    arena: &mut Arena,
    what: &str,
    locks: &[BenchLock],
    size: u64,
    times: u32,
    once: impl Fn(&mut Crew) -> Result<f64, Failure>,
) -> Result<Vec<Line>, Failure> {
    // The one worker of the crew is the waiter; each death needs a new holder.
    let mut field = arena.field(locks, 1)?;
    let times = usize::try_from(times).unwrap_or(usize::MAX);
    let found = field.rounds(times, |_, crew| once(crew))?;
    arena.clear(field)?;
    let figures: Vec<_> =
        found.into_iter().map(|(lock, times)| (lock, Figures::waits(times))).collect();
    let lines = arena.lines(&format!("{what}, {} resident", human_size(size)), &figures)?;
    Ok(lines.into_iter().map(|line| Line { resident: Some(size), ..line }).collect())
}

/// Nanoseconds from the end of a thread that holds the lock until the waiter has it. The process of that thread has
/// this much memory, and ends afterwards.
fn leave_one(crew: &mut Crew, resident: u64) -> Result<f64, Failure> {
    let mut holder = crew.start_worker(resident)?;
    holder.ask(Request::Leave, PATIENCE)?;
    let waiter = crew.worker(0)?;
    fall_asleep(waiter)?;
    let ended_at = match holder.ask(Request::Go, PATIENCE)?[..] {
        [ended_at] => ended_at,
        _ => return Err(broken("the answer to `go` has one number")),
    };
    let took = told(waiter, ended_at)?;
    holder.end()?;
    Ok(took)
}
