//! Recovery by what the holder had in memory, and of a thread that ends alone.
//!
//! When a process dies, the kernel frees its memory first and closes its files afterwards. A waiter that learns of the
//! death from a closed file learns it later, the more memory the process had. So: holders with so much private
//! memory, every page of it written, are killed one after another; and a thread of a process that lives on ends with
//! the lock. The waiter, which has little memory, has just gone to sleep.
//!
//! Invariant: one holder at a time, with the memory that was asked for; this process has none of it, or each
//! holder would be started with a copy.

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

/// Bytes in memory of the process in the runs in which only one of its threads ends.
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
    // The waiter; a holder is hired for each death.
    let mut field = arena.field(locks, 1)?;
    let times = usize::try_from(times).unwrap_or(usize::MAX);
    let found = field.rounds(times, |_, crew| once(crew))?;
    arena.clear(field)?;
    let figures: Vec<_> =
        found.into_iter().map(|(lock, times)| (lock, Figures::waits(times))).collect();
    let lines = arena.lines(&format!("{what}, {} resident", human_size(size)), &figures)?;
    Ok(lines.into_iter().map(|line| Line { resident: Some(size), ..line }).collect())
}

/// Nanoseconds from the end of a thread that has the lock to the lock. Its process, which has so many bytes of
/// memory, ends after that.
fn leave_one(crew: &mut Crew, resident: u64) -> Result<f64, Failure> {
    let mut holder = crew.start_worker(resident)?;
    holder.ask(Request::Leave, PATIENCE)?;
    let waiter = crew.worker(0)?;
    fall_asleep(waiter)?;
    let ended_at = match holder.ask(Request::Go, PATIENCE)?[..] {
        [ended_at] => ended_at,
        _ => return Err(broken("the end of a thread is one number")),
    };
    let took = told(waiter, ended_at)?;
    holder.end()?;
    Ok(took)
}
