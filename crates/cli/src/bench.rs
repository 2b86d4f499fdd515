//! `bench`: ours and its peer, interleaved in one run, so that both see the same machine.
//!
//! Owns: which benchmarks there are, the rounds and the table. Each benchmark has its file; what they
//! are measured against is in `peers`.

mod cycle;
mod locks;
mod lookup;
mod peers;
mod recovery;
mod waiting;

use std::time::{Duration, Instant};

use commonhold::{FormatOptions, Space};
use serde::Serialize;

use crate::{
    args::{BenchArgs, Benchmark},
    failure::Failure,
    output::Column,
    session::Session,
    workers::Ground,
};

pub(crate) use recovery::holder;
pub(crate) use waiting::waiter;

/// How often ours and the peer take turns.
const ROUNDS: usize = 15;

/// One line of the table. Times are nanoseconds for one operation.
#[derive(Debug, Serialize)]
struct Line {
    name: &'static str,
    ours_ns: f64,
    /// What it was measured against.
    against: &'static str,
    peer_ns: Option<f64>,
    /// Ours by the peer's: below 1 is faster.
    ratio: Option<f64>,
    p99_ns: Option<f64>,
}

impl Line {
    fn new(name: &'static str, against: &'static str, ours: Vec<f64>, peer: Vec<f64>) -> Self {
        let ours_ns = quantile(ours, 50);
        let peer_ns = (!peer.is_empty()).then(|| quantile(peer, 50));
        let ratio = peer_ns.filter(|peer| *peer > 0.0).map(|peer| ours_ns / peer);
        Self { name, ours_ns, against, peer_ns, ratio, p99_ns: None }
    }
}

pub(crate) fn bench(session: &Session, args: &BenchArgs) -> Result<(), Failure> {
    let all = [
        Benchmark::Create,
        Benchmark::Lookup,
        Benchmark::Mutex,
        Benchmark::Rwlock,
        Benchmark::Recovery,
        Benchmark::Waiting,
    ];
    let chosen = if args.names.is_empty() { &all[..] } else { &args.names };
    if cfg!(debug_assertions) {
        session.out.tell("not a release build: the times and ratios mean nothing")?;
    }
    let mut lines = Vec::new();
    for benchmark in chosen {
        tracing::info!(?benchmark, "measuring");
        match benchmark {
            Benchmark::Create => lines.push(cycle::create(session)?),
            Benchmark::Lookup => lines.extend(lookup::lookup(session)?),
            Benchmark::Mutex => lines.push(locks::mutex(session)?),
            Benchmark::Rwlock => lines.extend(locks::rwlock(session)?),
            Benchmark::Recovery => lines.push(recovery::recovery(session)?),
            Benchmark::Waiting => lines.extend(waiting::waiting(session)?),
        }
    }
    if session.out.json {
        return session.out.value(&lines);
    }
    let columns = [
        Column::Left("BENCHMARK"),
        Column::Right("OURS"),
        Column::Left("AGAINST"),
        Column::Right("PEER"),
        Column::Right("RATIO"),
        Column::Right("P99"),
    ];
    session.out.table(&columns, lines.iter().map(row).collect())
}

fn row(line: &Line) -> Vec<String> {
    let or_none = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    vec![
        line.name.to_owned(),
        nanos(line.ours_ns),
        line.against.to_owned(),
        or_none(line.peer_ns.map(nanos)),
        or_none(line.ratio.map(|ratio| format!("{ratio:.2}"))),
        or_none(line.p99_ns.map(nanos)),
    ]
}

fn nanos(value: f64) -> String {
    if value < 10_000.0 { format!("{value:.1} ns") } else { format!("{:.1} us", value / 1e3) }
}

/// The `percent` quantile; 0 of nothing.
fn quantile(mut values: Vec<f64>, percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get(last * percent / 100).copied().unwrap_or(0.0)
}

/// Nanoseconds of one of `times` operations.
fn time(times: u32, mut operation: impl FnMut()) -> f64 {
    let began = Instant::now();
    for _ in 0..times {
        operation();
    }
    per(began.elapsed(), times)
}

fn per(elapsed: Duration, times: u32) -> f64 {
    elapsed.as_secs_f64() * 1e9 / f64::from(times.max(1))
}

/// A space of the benchmark's own, or the chosen one.
fn ground(session: &Session, options: &FormatOptions) -> Result<(Ground, Space), Failure> {
    Ground::prepare(session, "bench", options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_sorted_values() {
        let values: Vec<f64> = (1..=101).rev().map(f64::from).collect();
        assert!((quantile(values.clone(), 50) - 51.0).abs() < 1e-9);
        assert!((quantile(values, 99) - 100.0).abs() < 1e-9);
        assert!(quantile(Vec::new(), 50).abs() < 1e-9);
    }
}
