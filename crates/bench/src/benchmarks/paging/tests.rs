//! The properties for which the policy was chosen, checked on small traces of the same shapes. The limits are the
//! measured values and a little margin.

use std::{fs, sync::OnceLock};

use super::*;
use crate::benchmarks::folder::Folder;

const SMALL: Scale = Scale { pages: 1_000, references: 40_000 };

fn all() -> &'static [Finding] {
    static ALL: OnceLock<Vec<Finding>> = OnceLock::new();
    ALL.get_or_init(|| SHAPES.into_iter().flat_map(|shape| sweep(shape, SMALL)).collect())
}

/// Our faults divided by another policy's on one trace: the geometric mean over all memories, and the worst ratio.
fn ratio(trace: &str, other: fn(&Finding) -> f64) -> (f64, f64) {
    let findings = all().iter().filter(|found| found.trace == trace);
    let logs: Vec<f64> = findings.map(|found| (found.ours / other(found)).ln()).collect();
    assert!(logs.len() >= 3, "memories that are smaller than the trace");
    let worst = logs.iter().copied().fold(f64::MIN, f64::max);
    let count = u32::try_from(logs.len()).unwrap();
    ((logs.iter().sum::<f64>() / f64::from(count)).exp(), worst.exp())
}

fn lru(found: &Finding) -> f64 {
    found.lru
}

fn fifo(found: &Finding) -> f64 {
    found.fifo
}

/// Belady's trace, on which FIFO is worse in a larger memory; textbooks give its numbers of faults.
#[test]
fn the_simulated_memories_count_what_textbooks_count() {
    let trace = [1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5];
    let count = |policy: Memory| [3, 4].map(|memory| policy(&trace, 6, memory).major);
    assert_eq!(count(memory::fifo), [9, 10]);
    assert_eq!(count(memory::lru), [10, 8]);
    assert_eq!(count(memory::optimum), [7, 6]);
}

#[test]
fn a_memory_with_room_for_all_pages_fills_each_once() {
    let trace: Vec<u32> = (0..50).chain(0..50).chain((0..50).rev()).collect();
    let policies: [Memory; 6] =
        [memory::ours, memory::fifo, memory::lru, memory::optimum, memory::vms, memory::sieve];
    for policy in policies {
        assert_eq!(policy(&trace, 50, 50).major, 50);
        assert!(policy(&trace, 50, 49).major > 50);
        assert!(policy(&trace, 50, 1).major > 140);
    }
}

#[test]
fn no_policy_is_better_than_the_optimum() {
    for found in all() {
        for other in [found.ours, found.lru, found.fifo, found.vms, found.sieve] {
            assert!(found.optimum <= other, "{found:?}");
        }
    }
}

#[test]
fn ours_has_a_tenth_less_faults_than_fifo_where_pages_are_used_again() {
    for (trace, limit) in [("zipf", 0.87), ("scans", 0.81), ("shift", 0.91), ("loop", 0.82)] {
        let (mean, _) = ratio(trace, fifo);
        assert!(mean < limit, "{trace}: {mean}");
    }
    for trace in ["zipf", "scans", "stack"] {
        let (_, worst) = ratio(trace, fifo);
        assert!(worst <= 1.0, "{trace}: {worst}");
    }
}

#[test]
fn ours_is_close_to_lru_though_it_sees_no_hits() {
    for trace in ["zipf", "scans", "phases", "stack", "shift"] {
        let (mean, _) = ratio(trace, lru);
        assert!(mean < 1.04, "{trace}: {mean}");
    }
    for trace in ["zipf", "scans", "phases", "stack"] {
        let (_, worst) = ratio(trace, lru);
        assert!(worst < 1.12, "{trace}: {worst}");
    }
}

#[test]
fn ours_is_better_than_lru_in_loops_and_scans() {
    for (trace, limit) in [("loop", 0.82), ("scans", 0.95)] {
        let (mean, worst) = ratio(trace, lru);
        assert!(mean < limit && worst < 1.03, "{trace}: {mean}, {worst}");
    }
}

/// A policy that does not give up the pages of the old working set has 4 to 6 times the faults of LRU.
#[test]
fn ours_adapts_to_a_loop_that_fits_after_another_working_set() {
    let (_, worst) = ratio("shift", lru);
    assert!(worst < 1.45, "{worst}");
}

#[test]
fn outside_of_loops_about_one_reference_in_ten_is_a_minor_fault() {
    for found in all() {
        let limit = if found.trace == "loop" { 250.0 } else { 125.0 };
        assert!(found.ours_minor < limit, "{found:?}");
    }
}

#[test]
fn a_trace_is_the_same_in_every_run() {
    for (name, generate) in SHAPES {
        let trace = generate(SMALL);
        assert_eq!(trace.len(), SMALL.references, "{name}");
        assert!(trace == generate(SMALL), "{name}");
    }
}

#[test]
fn the_picture_has_a_chart_for_each_trace_and_a_line_for_each_policy() {
    let folder = Folder::below(&std::env::temp_dir()).unwrap();
    let file = folder.file("paging.svg");
    plot::draw(Plot::create(&file).unwrap(), all()).unwrap();
    let svg = fs::read_to_string(&file).unwrap();
    for (name, _) in SHAPES {
        assert!(svg.contains(name), "{name}");
    }
    assert!(svg.matches("<polyline").count() >= 6 * 6);
}
