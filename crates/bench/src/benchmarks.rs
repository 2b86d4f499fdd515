//! Ours and its peers, interleaved in one run, so that all see the same machine.
//!
//! Owns: which benchmarks there are and the rounds. Each benchmark has its file; what they find is a `line`
//! of the table, and a bar of the `plot`.

mod cycle;
mod data;
mod folder;
mod line;
mod locks;
mod lookup;
mod mm;
mod paging;
mod peers;
mod plot;
mod stats;
mod waiting;

use std::time::{Duration, Instant};

use commonhold::{FormatOptions, Space};
use commonhold_console::{
    failure::{Failure, Status},
    session::Session,
    workers::TestSpace,
};

use crate::args::{BenchArgs, Benchmark};

use line::Line;
use plot::Plot;

pub(crate) use locks::party;
pub(crate) use waiting::waiter;

/// How often ours and the peer take turns.
const ROUNDS: usize = 15;

/// What is measured if nothing is named: what takes seconds.
const SHORT: [Benchmark; 8] = [
    Benchmark::Create,
    Benchmark::Data,
    Benchmark::Lookup,
    Benchmark::Mutex,
    Benchmark::Rwlock,
    Benchmark::Recovery,
    Benchmark::Waiting,
    Benchmark::Mm,
];

pub(crate) fn bench(session: &Session, args: &BenchArgs) -> Result<(), Failure> {
    if args.names.contains(&Benchmark::Paging) {
        return match args.names[..] {
            [_] => paging::paging(session, args),
            _ => Err(Failure::new(Status::Usage, "`paging` finds no times: name it alone")),
        };
    }
    let chosen = if args.names.is_empty() { &SHORT[..] } else { &args.names };
    if cfg!(debug_assertions) {
        session.out.tell("not a release build: the times and ratios mean nothing")?;
    }
    // First of all: it would be a pity to learn after a minute that it cannot be written.
    let plot = args.plot.as_deref().map(Plot::create).transpose()?;
    let mut lines = Vec::new();
    for benchmark in chosen {
        tracing::info!(?benchmark, "measuring");
        match benchmark {
            Benchmark::Create => lines.push(cycle::create(session)?),
            Benchmark::Data => lines.extend(data::data(session)?),
            Benchmark::Lookup => lines.extend(lookup::lookup(session)?),
            Benchmark::Mutex => lines.extend(locks::mutex(session)?),
            Benchmark::Rwlock => lines.extend(locks::rwlock(session)?),
            Benchmark::Recovery => lines.extend(locks::recovery(session, args)?),
            Benchmark::Waiting => lines.extend(waiting::waiting(session)?),
            Benchmark::Mm => lines.extend(mm::mm()?),
            Benchmark::Locks => lines.extend(locks::locks(session, args)?),
            // Was named alone, and is done.
            Benchmark::Paging => {}
        }
    }
    if let Some(plot) = plot {
        plot.draw(&lines)?;
    }
    if session.out.json { session.out.value(&lines) } else { line::table(session.out, &lines) }
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
fn ground(session: &Session, options: &FormatOptions) -> Result<(TestSpace, Space), Failure> {
    TestSpace::prepare(session, "bench", options)
}
