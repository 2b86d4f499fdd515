//! A lock that no other thread wants, taken and released.

use std::time::Duration;

use commonhold_console::{
    failure::{Failure, broken},
    workers::PATIENCE,
};

use super::{
    arena::Arena,
    protocol::{How, Request},
};
use crate::{
    args::BenchLock,
    benchmarks::{
        line::{Figures, Line},
        stats::each,
    },
};

/// How long each lock is measured in a round.
pub(super) const SPAN: Duration = Duration::from_millis(5);
/// Many short rounds, so that a disturbed one does not matter.
const ROUNDS: usize = 15;

pub(super) fn measure(
    arena: &mut Arena,
    name: &'static str,
    how: How,
    locks: &[BenchLock],
    span: Duration,
) -> Result<Vec<Line>, Failure> {
    let ns = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    let mut field = arena.field(locks, 1)?;
    let rounds = field.rounds(ROUNDS, |_, crew| {
        let answer = crew.worker(0)?.ask(Request::Solo { how, ns }, span + PATIENCE)?;
        match answer[..] {
            [times, took] => Ok(each(took, times)),
            _ => Err(broken("a solo has two numbers")),
        }
    })?;
    arena.clear(field)?;
    let figures: Vec<_> =
        rounds.into_iter().map(|(lock, times)| (lock, Figures::median(times))).collect();
    arena.lines(name, &figures)
}
