//! `paging`: simulates which page is evicted when memory is full. Nothing is timed; every run gives the same result.
//!
//! Parts: the traces (`trace`), the simulated memories that run them (`memory`), and the picture of the results
//! (`plot`).

mod memory;
mod plot;
mod trace;

use std::collections::BTreeSet;

use commonhold_console::{
    failure::Failure,
    output::{Column, Out},
    session::Session,
};
use serde::Serialize;

use super::plot::Plot;
use crate::args::BenchArgs;
use memory::{Faults, Memory};
use trace::{SHAPES, Scale, Shape};

/// The size of the whole simulation, which takes some seconds.
const FULL: Scale = Scale { pages: 10_000, references: 400_000 };

/// The sizes of the memories, in sixteenths of the pages.
const MEMORIES: [usize; 9] = [1, 2, 4, 6, 8, 10, 12, 14, 15];

/// The result of one trace in a memory of one size.
#[derive(Debug, Clone, Serialize)]
struct Finding {
    trace: &'static str,
    /// How many different pages the trace uses.
    pages: usize,
    /// How many pages are in memory at most.
    memory: usize,
    /// How many of 1000 references were major faults.
    optimum: f64,
    ours: f64,
    lru: f64,
    fifo: f64,
    vms: f64,
    sieve: f64,
    /// How many of 1000 references were minor faults: what it costs to learn which pages are used.
    ours_minor: f64,
    vms_minor: f64,
    sieve_minor: f64,
}

pub(super) fn paging(session: &Session, args: &BenchArgs) -> Result<(), Failure> {
    let plot = args.plot.as_deref().map(Plot::create).transpose()?;
    let mut findings = Vec::new();
    for shape in SHAPES {
        tracing::info!(trace = shape.0, "simulating");
        findings.extend(sweep(shape, FULL));
    }
    if let Some(plot) = plot {
        plot::draw(plot, &findings)?;
    }
    if session.out.json { session.out.value(&findings) } else { table(session.out, &findings) }
}

/// Runs one trace in all memories that are too small for all its pages.
fn sweep((name, generate): Shape, scale: Scale) -> Vec<Finding> {
    let trace = generate(scale);
    let bound = trace.iter().max().map_or(0, |last| *last as usize + 1);
    let pages = trace.iter().collect::<BTreeSet<_>>().len();
    let memories = MEMORIES.iter().map(|part| scale.pages * part / 16);
    let find = |memory| {
        let run = |policy: Memory| permille(policy(&trace, bound, memory), trace.len());
        let (optimum, _) = run(memory::optimum);
        let (ours, ours_minor) = run(memory::ours);
        let (lru, _) = run(memory::lru);
        let (fifo, _) = run(memory::fifo);
        let (vms, vms_minor) = run(memory::vms);
        let (sieve, sieve_minor) = run(memory::sieve);
        Finding {
            trace: name,
            pages,
            memory,
            optimum,
            ours,
            lru,
            fifo,
            vms,
            sieve,
            ours_minor,
            vms_minor,
            sieve_minor,
        }
    };
    memories.filter(|memory| *memory < pages).map(find).collect()
}

/// Major and minor faults in a thousand references.
fn permille(faults: Faults, references: usize) -> (f64, f64) {
    let references = references as f64;
    (faults.major as f64 * 1e3 / references, faults.minor as f64 * 1e3 / references)
}

fn table(out: Out, findings: &[Finding]) -> Result<(), Failure> {
    out.line("Major faults in 1000 references, and after + the minor faults that a policy needs:")?;
    let titles = ["PAGES", "MEMORY", "OPTIMUM", "OURS", "LRU", "FIFO", "VMS", "SIEVE"];
    let columns: Vec<Column> =
        [Column::Left("TRACE")].into_iter().chain(titles.map(Column::Right)).collect();
    let row = |found: &Finding| {
        let both = |major: f64, minor: f64| format!("{major:.1} + {minor:.1}");
        vec![
            found.trace.to_owned(),
            found.pages.to_string(),
            found.memory.to_string(),
            format!("{:.1}", found.optimum),
            both(found.ours, found.ours_minor),
            format!("{:.1}", found.lru),
            format!("{:.1}", found.fifo),
            both(found.vms, found.vms_minor),
            both(found.sieve, found.sieve_minor),
        ]
    };
    out.table(&columns, findings.iter().map(row).collect())
}

#[cfg(test)]
mod tests;
