//! The program as its users see it: small runs of the benchmarks and of the torture.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking; clippy knows that only of unit tests"
)]

use std::{
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use commonhold::{Removal, Space};
use serde_json::Value;

/// The program under test, without anything from the environment.
fn bench() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_commonhold-bench"));
    for name in ["SPACE", "OWNER_DIED", "ANY_OWNER"] {
        command.env_remove(format!("COMMONHOLD_{name}"));
    }
    command
}

fn run(args: &[&str]) -> Output {
    bench().args(args).stdin(Stdio::null()).output().unwrap()
}

/// The standard output of a run that must end with this status.
#[track_caller]
fn ends(code: i32, output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "it said: {errors}");
    assert_eq!(code == 0, errors.is_empty(), "it said: {errors}");
    assert!(matches!(code, 0 | 2) || errors.starts_with("commonhold-bench: "), "{errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn json(args: &[&str]) -> Value {
    serde_json::from_str(&ends(0, &run(args))).unwrap()
}

#[test]
fn torture_with_kills_loses_nothing_and_leaves_nothing() {
    let args = ["torture", "--peers", "4", "--seconds", "3", "--kill-every", "40ms", "--json"];
    let summary = json(&args);
    for field in [
        "seconds",
        "peers",
        "kills",
        "stops",
        "killed_stopped",
        "recoveries",
        "expected",
        "seen",
        "lost",
        "leaked_regions",
        "stuck",
        "operations",
        "violations",
    ] {
        assert!(summary[field].is_number(), "{field}: {summary}");
    }
    // 75 kills were asked for; a busy machine does fewer.
    assert!(summary["kills"].as_u64().unwrap() > 3, "{summary}");
    assert!(summary["expected"].as_u64().unwrap() > 100, "{summary}");
    for field in ["lost", "leaked_regions", "stuck", "violations"] {
        assert_eq!(summary[field], 0, "{field}: {summary}");
    }
}

#[test]
fn torture_with_stops_loses_nothing_and_leaves_no_worker_stopped() {
    let often = ["--kill-every", "100ms", "--stop-every", "40ms"];
    let args = [&["torture", "--peers", "4", "--seconds", "4"], &often[..], &["--json"]].concat();
    let summary = json(&args);
    // 100 stops were asked for; see above.
    assert!(summary["stops"].as_u64().unwrap() > 3, "{summary}");
    assert!(summary["killed_stopped"].as_u64().unwrap() > 0, "{summary}");
    assert!(summary["expected"].as_u64().unwrap() > 100, "{summary}");
    for field in ["lost", "leaked_regions", "stuck", "violations"] {
        assert_eq!(summary[field], 0, "{field}: {summary}");
    }
}

#[test]
fn torture_without_kills_in_a_chosen_space_leaves_the_space_as_it_was() {
    let url = format!("shm:test-bench-{}", std::process::id());
    let space = Space::open_or_format(&url).unwrap();
    space.create("mine", 4096).unwrap();
    let summary = json(&[
        "torture",
        "--space",
        &url,
        "--peers",
        "3",
        "--seconds",
        "2",
        "--kill-every",
        "0",
        "--stop-every",
        "0",
        "--seed",
        "7",
        "--json",
    ]);
    assert_eq!((&summary["kills"], &summary["seed"]), (&0.into(), &7.into()), "{summary}");
    assert_eq!(summary["stops"], 0, "{summary}");
    assert!(summary["operations"].as_u64().unwrap() > 1000, "{summary}");
    let names: Vec<_> = space.regions().unwrap().into_iter().map(|region| region.name).collect();
    drop(space);
    Space::remove(&url, Removal::Forced).unwrap();
    assert_eq!(names, ["mine"]);
}

#[test]
fn the_locks_are_measured() {
    let small = ["recovery", "--kills", "2", "--resident", "0,1536K", "--json"];
    let lines = json(&[&["mutex", "rwlock"], &small[..]].concat());
    let names: Vec<_> = lines.as_array().unwrap().iter().map(|line| &line["name"]).collect();
    let recoveries = [
        "recovery, at once",
        "recovery, later",
        "recovery, 0 B resident",
        "recovery, 1.5 MiB resident",
        "thread ends, 0 B resident",
        "thread ends, 128 MiB resident",
    ];
    assert_eq!(names, [&["mutex", "rwlock, read", "rwlock, write"], &recoveries[..]].concat());
    for line in lines.as_array().unwrap() {
        assert!(line["ours_ns"].as_f64().unwrap() > 0.0, "{line}");
        assert!(line["peer_ns"].as_f64().unwrap() > 0.0, "{line}");
        let by_size = line["name"].as_str().unwrap().ends_with("resident");
        for field in ["resident", "longest_ns", "peer_longest_ns"] {
            assert_eq!(line[field].is_number(), by_size, "{field}: {line}");
        }
    }
    let sizes: Vec<_> = lines.as_array().unwrap().iter().map(|line| &line["resident"]).collect();
    assert_eq!(sizes[5..], [0, 1536 << 10, 0, 128 << 20]);
}

const MUTEXES: [&str; 3] = ["pthread mutex", "pthread robust mutex", "Boost mutex"];
const SHARABLE: [&str; 2] = ["pthread rwlock", "Boost sharable mutex"];
const TURNS: [&str; 3] = ["pthread mutex", "bare futex", "Boost mutex"];
const RWLOCKS: [&str; 4] =
    ["pthread rwlock", "std RwLock", "parking_lot RwLock", "Boost sharable mutex"];

/// The lines of `locks` in order: its name, the peers, and the fields that it has besides the times.
const ROWS: [(&str, &[&str], &[&str]); 13] = [
    (
        "uncontended mutex",
        &["pthread mutex", "pthread robust mutex", "std Mutex", "parking_lot Mutex", "Boost mutex"],
        &[],
    ),
    ("uncontended write", &RWLOCKS, &[]),
    ("uncontended read", &RWLOCKS, &[]),
    ("mutex, 2 processes", &MUTEXES, &["per_s", "longest_ns", "share"]),
    ("mutex, 8 processes", &MUTEXES, &["per_s", "longest_ns", "share"]),
    ("1 reader and a writer", &SHARABLE, &["per_s", "longest_ns"]),
    ("2 readers and a writer", &SHARABLE, &["per_s", "longest_ns"]),
    ("4 readers and a writer", &SHARABLE, &["per_s", "longest_ns"]),
    ("8 readers and a writer", &SHARABLE, &["per_s", "longest_ns"]),
    ("hand-over, at once", &TURNS, &["p99_ns"]),
    ("hand-over, to a sleeper", &TURNS, &["p99_ns"]),
    ("recovery, at once", &["pthread robust mutex"], &["p99_ns"]),
    ("recovery, later", &["pthread robust mutex"], &["p99_ns"]),
];

#[test]
fn every_lock_is_measured_in_every_scenario_and_drawn() {
    let folder = Folder::new();
    let plot = folder.0.join("locks.svg");
    let plot = plot.to_str().unwrap();
    let small = ["--seconds", "0.02", "--kills", "2", "--plot", plot, "--json"];
    let lines = json(&[&["locks"], &small[..]].concat());
    let mut lines = lines.as_array().unwrap().iter();
    for (name, peers, fields) in ROWS {
        for peer in peers {
            let line = lines.next().unwrap();
            assert_eq!((&line["name"], &line["against"]), (&name.into(), &(*peer).into()));
            // Boost need not be installed, but then a note says so.
            let measured = line["note"].is_null();
            assert!(measured || peer.starts_with("Boost"), "{line}");
            for field in ["ours_ns", "peer_ns", "ratio"] {
                let expected = measured || field == "ours_ns";
                assert_eq!(line[field].as_f64().is_some_and(|it| it > 0.0), expected, "{line}");
            }
            for field in fields {
                assert!(line[field].is_number(), "{field}: {line}");
                assert_eq!(line[format!("peer_{field}")].is_number(), measured, "{field}: {line}");
            }
        }
    }
    assert_eq!(lines.next(), None);
    let svg = std::fs::read_to_string(plot).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    for (name, _, _) in ROWS {
        assert!(svg.contains(name), "{name}");
    }
}

#[test]
fn a_client_is_measured_alone_and_beside_slow_ones() {
    let output = run(&["clients", "--seconds", "0.01", "--json"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("no memory manager on a userfaultfd") {
        return eprintln!("note: not tested: {errors}");
    }
    let lines: Value = serde_json::from_str(&ends(0, &output)).unwrap();
    let names: Vec<_> =
        lines.as_array().unwrap().iter().map(|line| line["name"].as_str().unwrap()).collect();
    let expected: Vec<_> = ["a 3 s pager", "64 threads, 5 ms pager"]
        .iter()
        .flat_map(|other| {
            let kinds = ["zeros, p50", "zeros, p99", "file, p50", "file, p99"];
            kinds.map(|kind| format!("{kind}, {other}"))
        })
        .collect();
    assert_eq!(names, expected);
    for line in lines.as_array().unwrap() {
        assert!(line["ratio"].as_f64().unwrap() > 0.0, "{line}");
    }
}

#[test]
fn without_a_compiler_the_rest_is_measured_and_a_note_says_why() {
    let args = ["locks", "--seconds", "0.01", "--kills", "1"];
    let text = ends(0, &bench().args(args).env("CXX", "/nonexistent").output().unwrap());
    assert!(text.contains("Boost mutex: not measured: /nonexistent: "), "{text}");
    assert!(text.contains("pthread robust mutex"), "{text}");
}

#[test]
fn a_plot_that_cannot_be_written_is_refused_before_anything_is_measured() {
    ends(1, &run(&["locks", "--seconds", "3600", "--plot", "/nonexistent/locks.svg"]));
}

#[test]
fn the_simulation_measures_no_times_and_must_be_named_alone() {
    ends(2, &run(&["paging", "mutex"]));
}

#[test]
fn benchmarks_before_torture_are_refused_and_global_options_are_not() {
    let text = String::from_utf8(run(&["--kills", "2", "torture"]).stderr).unwrap();
    assert!(text.contains("--kills") && text.contains("`torture`"), "{text}");
    ends(2, &run(&["--kills", "2", "torture"]));
    ends(2, &run(&["--json", "torture", "--peers", "0"]));
    let help = ends(0, &run(&["--help"]));
    assert!(help.contains("torture") && help.contains("paging"), "{help}");
    assert!(!help.contains("worker"), "{help}");
}

#[test]
fn when_the_reader_goes_away_it_ends_quietly_as_by_sigpipe() {
    let mut child =
        bench().arg("--help").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert!(output.stderr.is_empty());
}

/// A folder that is removed when this is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path =
            std::env::temp_dir().join(format!("commonhold-test-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
