//! Two processes that take turns: each waits until it is its turn, and gives it to the other.
//!
//! Twice: each passes it on at once, so that a waiter that looks again for a moment before it sleeps need not
//! sleep at all (ours does so, the others do not); and each keeps it for so long that the other sleeps. Ours
//! sleeps on an event beside the mutex, the others on their condition, and one on a bare futex, without
//! any lock. Each side has a processor of its own: where the scheduler puts them otherwise decides more than
//! the lock does.

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

/// Turns of each side without a look at the clock.
const TIMES: u64 = 50;
/// How long each keeps it.
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

/// Nanoseconds there and back, without those for which the two kept it.
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
