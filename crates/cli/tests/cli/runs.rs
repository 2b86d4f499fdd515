//! `demo`, `torture` and `bench`, in small.

use serde_json::Value;

use crate::support::{Space, commonhold, ends};

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
        "--seed",
        "7",
        "--json",
    ]);
    assert_eq!((&summary["kills"], &summary["seed"]), (&0.into(), &7.into()), "{summary}");
    assert!(summary["operations"].as_u64().unwrap() > 1000, "{summary}");
    let ls = space.json(&["ls"]);
    assert_eq!(ls.as_array().unwrap().len(), 1);
    assert_eq!(ls[0]["name"], "mine");
}

#[test]
fn the_locks_are_measured() {
    let lines = json(&["bench", "mutex", "rwlock", "--json"]);
    for line in lines.as_array().unwrap() {
        assert!(line["ours_ns"].as_f64().unwrap() > 0.0, "{line}");
    }
}
