//! Two and eight processes that all want one lock, all the time.
//!
//! Each increments a counter under the lock, without atomic additions. If two of them ever hold the lock at once,
//! increments are lost, and the run fails.

use std::time::Duration;

use commonhold_console::{
    failure::{Failure, broken},
    workers::PATIENCE,
};

use super::{ROUNDS, Span, arena::Arena, crew::Crew, protocol::Request};
use crate::{
    args::BenchLock,
    benchmarks::{
        line::{Figures, Line},
        stats::{each, float, quantile, share},
    },
};

const PROCESSES: [(&str, usize); 2] = [("mutex, 2 processes", 2), ("mutex, 8 processes", 8)];

/// The result of one crew in one round.
#[derive(Debug)]
struct Round {
    /// How often each process had the lock.
    counts: Vec<u64>,
    /// The longest single wait of any process.
    longest: u64,
    /// Nanoseconds between two turns of any processes.
    each: f64,
}

pub(super) fn measure(
    arena: &mut Arena,
    locks: &[BenchLock],
    span: Span,
) -> Result<Vec<Line>, Failure> {
    let mut lines = Vec::new();
    for (name, processes) in PROCESSES {
        let mut field = arena.field(locks, processes)?;
        let rounds = field.rounds(ROUNDS, |_, crew| round(crew, processes, span.slice()))?;
        arena.clear(field)?;
        let figures: Vec<_> =
            rounds.into_iter().map(|(lock, rounds)| (lock, sum_up(rounds))).collect();
        lines.extend(arena.lines(name, &figures)?);
    }
    Ok(lines)
}

fn round(crew: &mut Crew, processes: usize, slice: Duration) -> Result<Round, Failure> {
    let before = counted(crew)?;
    let answers = crew.at_once(processes, slice, |_, from, until| Request::Write {
        from,
        until,
        pause_ns: 0,
    })?;
    let (mut counts, mut longest) = (Vec::new(), 0);
    for answer in answers {
        let [count, wait] = answer[..] else {
            return Err(broken("a writer has two numbers"));
        };
        counts.push(count);
        longest = longest.max(wait);
    }
    let sum: u64 = counts.iter().sum();
    let seen = counted(crew)?.wrapping_sub(before);
    if seen != sum {
        return Err(broken(format!("two held it at once: {sum} turns were taken, {seen} counted")));
    }
    let nanos = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
    Ok(Round { counts, longest, each: each(nanos, sum) })
}

fn counted(crew: &mut Crew) -> Result<u64, Failure> {
    let answer = crew.worker(0)?.ask(Request::Count, PATIENCE)?;
    answer.first().copied().ok_or_else(|| broken("a count has one number"))
}

/// The time of the median round, and the longest wait and the shares of the whole run.
fn sum_up(rounds: Vec<Round>) -> Option<Figures> {
    let longest = rounds.iter().map(|round| round.longest).max()?;
    let ns = quantile(rounds.iter().map(|round| round.each).collect(), 50);
    let counts: Vec<_> = rounds.into_iter().map(|round| round.counts).collect();
    Some(Figures {
        ns,
        longest_ns: Some(float(longest)),
        share: Some(share(&counts)),
        throughput: true,
        ..Figures::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_round_gives_the_longest_wait_and_the_median_round_the_time() {
        let round =
            |each, longest, counts: [u64; 2]| Round { counts: counts.into(), longest, each };
        let rounds = vec![round(9.0, 5, [1, 2]), round(70.0, 900, [3, 1]), round(10.0, 20, [1, 2])];
        let figures = sum_up(rounds).unwrap();
        assert!((figures.ns - 10.0).abs() < 1e-9);
        assert!((figures.longest_ns.unwrap() - 900.0).abs() < 1e-9);
        assert!((figures.share.unwrap() - 1.0).abs() < 1e-9);
        assert!(sum_up(Vec::new()).is_none());
    }
}
