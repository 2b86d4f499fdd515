//! `demo`, `torture` and `bench`, in small.

use serde_json::Value;

use crate::support::{Folder, Space, commonhold, ends};

fn json(args: &[&str]) -> Value {
    let output = commonhold().args(args).output().unwrap();
    serde_json::from_str(&ends(0, &output, args)).unwrap()
}

#[test]
fn the_demo_kills_recovers_and_loses_nothing() {
    let summary = json(&["demo", "--peers", "3", "--seconds", "4", "--json"]);
    assert!(summary["kills"].as_u64().unwrap() >= 2, "{summary}");
    assert!(summary["recoveries"].as_u64() >= summary["kills"].as_u64(), "{summary}");
    assert_eq!(summary["lost"], 0, "{summary}");
    assert_eq!(summary["leaked_regions"], 0, "{summary}");
}

#[test]
fn the_demo_talks_to_people() {
    let args = ["demo", "--peers", "2", "--seconds", "2"];
    let text = ends(0, &commonhold().args(args).output().unwrap(), &args);
    assert!(text.contains("died holding the lock"), "{text}");
    assert!(text.ends_with("nothing left\n"), "{text}");
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
    assert!(summary["kills"].as_u64().unwrap() > 10, "{summary}");
    assert!(summary["expected"].as_u64().unwrap() > 100, "{summary}");
    for field in ["lost", "leaked_regions", "stuck", "violations"] {
        assert_eq!(summary[field], 0, "{field}: {summary}");
    }
}

#[test]
fn torture_with_stops_loses_nothing_and_nobody_is_left_stopped() {
    let often = ["--kill-every", "100ms", "--stop-every", "40ms"];
    let args = [&["torture", "--peers", "4", "--seconds", "4"], &often[..], &["--json"]].concat();
    let summary = json(&args);
    assert!(summary["stops"].as_u64().unwrap() > 10, "{summary}");
    assert!(summary["killed_stopped"].as_u64().unwrap() > 0, "{summary}");
    assert!(summary["expected"].as_u64().unwrap() > 100, "{summary}");
    for field in ["lost", "leaked_regions", "stuck", "violations"] {
        assert_eq!(summary[field], 0, "{field}: {summary}");
    }
}

#[test]
fn torture_without_kills_in_a_chosen_space_leaves_the_space_as_it_was() {
    let space = Space::new();
    space.ends(0, &["create", "mine", "4K"]);
    let summary = json(&[
        "torture",
        "--space",
        &space.url,
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
    let ls = space.json(&["ls"]);
    assert_eq!(ls.as_array().unwrap().len(), 1);
    assert_eq!(ls[0]["name"], "mine");
}

#[test]
fn the_locks_are_measured() {
    let small = ["recovery", "--kills", "2", "--resident", "0,1536K", "--json"];
    let lines = json(&[&["bench", "mutex", "rwlock"], &small[..]].concat());
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

/// What `bench locks` compares, in order, and the fields that it finds beside the times.
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
    let lines = json(&[&["bench", "locks"], &small[..]].concat());
    let mut lines = lines.as_array().unwrap().iter();
    for (name, peers, fields) in ROWS {
        for peer in peers {
            let line = lines.next().unwrap();
            assert_eq!((&line["name"], &line["against"]), (&name.into(), &(*peer).into()));
            // Boost need not be installed, but then that is said.
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
fn without_a_compiler_the_rest_is_measured_and_a_note_says_why() {
    let args = ["bench", "locks", "--seconds", "0.01", "--kills", "1"];
    let output = commonhold().args(args).env("CXX", "/nonexistent").output().unwrap();
    let text = ends(0, &output, &args);
    assert!(text.contains("Boost mutex: not measured: /nonexistent: "), "{text}");
    assert!(text.contains("pthread robust mutex"), "{text}");
}

#[test]
fn a_plot_that_cannot_be_written_is_refused_before_anything_is_measured() {
    let args = ["bench", "locks", "--seconds", "3600", "--plot", "/nonexistent/locks.svg"];
    ends(1, &commonhold().args(args).output().unwrap(), &args);
}

#[test]
fn the_simulation_finds_no_times_and_is_named_alone() {
    let args = ["bench", "paging", "mutex"];
    ends(2, &commonhold().args(args).output().unwrap(), &args);
}
