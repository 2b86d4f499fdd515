//! One to eight processes that read, and one that writes now and then.
//!
//! A reader compares two numbers that the writer changes together. If a reader sees them differ, the run fails.

use std::time::Duration;

use commonhold_console::failure::{Failure, broken};

use super::{ROUNDS, Span, arena::Arena, crew::Crew, protocol::Request};
use crate::{
    args::BenchLock,
    benchmarks::{
        line::{Figures, Line},
        stats::{each, float, quantile},
    },
};

const READERS: [(&str, usize); 4] = [
    ("1 reader and a writer", 1),
    ("2 readers and a writer", 2),
    ("4 readers and a writer", 4),
    ("8 readers and a writer", 8),
];
/// Index of the worker that writes.
const WRITER: usize = 0;
/// The pause of the writer between two writes. It writes some thousand times while readers read a million times.
const PAUSE: Duration = Duration::from_millis(1);

/// The result of one crew in one round: nanoseconds between two reads of any readers, and the writer's longest wait.
type Round = (f64, u64);

pub(super) fn measure(
    arena: &mut Arena,
    locks: &[BenchLock],
    span: Span,
) -> Result<Vec<Line>, Failure> {
    let mut lines = Vec::new();
    for (name, readers) in READERS {
        let mut field = arena.field(locks, 1 + readers)?;
        let rounds = field.rounds(ROUNDS, |_, crew| round(crew, readers, span.slice()))?;
        arena.clear(field)?;
        let figures: Vec<_> =
            rounds.into_iter().map(|(lock, rounds)| (lock, sum_up(&rounds))).collect();
        lines.extend(arena.lines(name, &figures)?);
    }
    Ok(lines)
}

fn round(crew: &mut Crew, readers: usize, slice: Duration) -> Result<Round, Failure> {
    let pause_ns = u64::try_from(PAUSE.as_nanos()).unwrap_or(u64::MAX);
    let answers = crew.at_once(1 + readers, slice, |worker, from, until| match worker {
        WRITER => Request::Write { from, until, pause_ns },
        _ => Request::Read { from, until },
    })?;
    let Some(([_, longest], reads)) = answers.split_first().map(|(first, rest)| (&first[..], rest))
    else {
        return Err(broken("a writer has two numbers"));
    };
    let nanos = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
    Ok((each(nanos, reads.iter().flatten().sum()), *longest))
}

fn sum_up(rounds: &[Round]) -> Option<Figures> {
    let longest = rounds.iter().map(|(_, longest)| *longest).max()?;
    Some(Figures {
        ns: quantile(rounds.iter().map(|(each, _)| *each).collect(), 50),
        longest_ns: Some(float(longest)),
        throughput: true,
        ..Figures::default()
    })
}
