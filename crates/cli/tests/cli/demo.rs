//! `demo`, with few workers and for a short time.

use serde_json::Value;

use crate::support::{commonhold, ends};

fn run_json(args: &[&str]) -> Value {
    let output = commonhold().args(args).output().unwrap();
    serde_json::from_str(&ends(0, &output, args)).unwrap()
}

#[test]
fn the_demo_kills_recovers_and_loses_nothing() {
    let summary = run_json(&["demo", "--peers", "3", "--seconds", "4", "--json"]);
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
