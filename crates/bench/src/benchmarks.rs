//! The benchmarks: ours and its peers (the alternatives), interleaved in one run, so that all see the same machine.
//!
//! Owns the list of benchmarks and the number of rounds. Each benchmark has its own file. A result is a `line` of the
//! table, and a bar of the `plot`.

mod clients;
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

pub(crate) use locks::worker;
pub(crate) use waiting::waiter;

/// How often ours and the peer are measured in turn.
const ROUNDS: usize = 15;

/// The benchmarks that run if none is named: those that take seconds only.
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
            _ => Err(Failure::new(Status::Usage, "`paging` measures no times: name it alone")),
        };
    }
    let chosen = if args.names.is_empty() { &SHORT[..] } else { &args.names };
    if cfg!(debug_assertions) {
        session.out.tell("not a release build: the times and ratios mean nothing")?;
    }
    // First of all, so that a file that cannot be written is reported before anything is measured.
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
            Benchmark::Clients => lines.extend(clients::clients(args)?),
            Benchmark::Locks => lines.extend(locks::locks(session, args)?),
            // Handled above: it is named alone.
            Benchmark::Paging => {}
        }
    }
    if let Some(plot) = plot {
        plot.draw(&lines)?;
    }
    if session.out.json { session.out.value(&lines) } else { line::table(session.out, &lines) }
}

/// Nanoseconds for one operation, measured over `times` of them.
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

/// A space made for the benchmark, or the one given by `--space`.
fn prepare_space(
    session: &Session,
    options: &FormatOptions,
) -> Result<(TestSpace, Space), Failure> {
    TestSpace::prepare(session, "bench", options)
}
