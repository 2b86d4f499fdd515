//! Two processes that take turns: each waits for its turn, and then gives the turn to the other.
//!
//! There are two scenarios. In the first, each passes the turn on at once: a waiter that spins a moment before it
//! sleeps (as ours does, and the others do not) need not sleep at all. In the second, each keeps the turn for so long
//! that the other one sleeps. Our waiter sleeps on an event beside the mutex; the others sleep on their condition
//! variable; one sleeps on a bare futex, without any lock. Each side is pinned to its own processor, since the
//! placement by the scheduler would matter more than the lock.

use std::time::{Duration, Instant};

use commonhold_console::{failure::Failure, workers::PATIENCE};

use super::{ROUNDS, Span, arena::Arena, crew::Crew, protocol::Request};
use crate::{
    args::BenchLock,
    benchmarks::{
        line::{Figures, Line},
        stats::float,
    },
};

/// How many turns each side has between two checks of the clock.
const TIMES: u64 = 50;
/// How long each side keeps its turn.
const KEEP: [(&str, u64); 2] = [("hand-over, at once", 0), ("hand-over, to a sleeper", 100_000)];

pub(super) fn measure(
    arena: &mut Arena,
    locks: &[BenchLock],
    span: Span,
) -> Result<Vec<Line>, Failure> {
    let mut lines = Vec::new();
    for (name, keep_ns) in KEEP {
        let mut field = arena.field(locks, 2)?;
        let rounds = field.rounds(ROUNDS, |_, crew| {
            crew.spread()?;
            round(crew, span.slice(), keep_ns)
        })?;
        arena.clear(field)?;
        let figures: Vec<_> = rounds
            .into_iter()
            .map(|(lock, rounds)| (lock, Figures::spread(rounds.into_iter().flatten().collect())))
            .collect();
        lines.extend(arena.lines(name, &figures)?);
    }
    Ok(lines)
}

/// Nanoseconds for a hand-over and back, without the time for which the two sides keep their turns.
fn round(crew: &mut Crew, slice: Duration, keep_ns: u64) -> Result<Vec<f64>, Failure> {
    let mut turns = Vec::new();
    let began = Instant::now();
    loop {
        for side in [0, 1] {
            let worker = crew.worker(usize::from(side == 1))?;
            worker.tell(Request::Pass { side, times: TIMES, keep_ns })?;
        }
        let between = crew.worker(0)?.answer(2 * PATIENCE)?;
        turns.extend(between.into_iter().map(|ns| float(ns.saturating_sub(2 * keep_ns))));
        crew.worker(1)?.answer(2 * PATIENCE)?;
        if began.elapsed() >= slice {
            return Ok(turns);
        }
    }
}
