//! Processes die at every crash point, and again in the recovery from that death. See `commonhold_testkit::crash`.

use std::path::Path;

#[test]
fn a_death_at_any_point_leaves_nothing_locked_leaked_or_torn() {
    let report = commonhold_testkit::crash::run(Path::new(env!("CARGO_BIN_EXE_crash-actor")));
    eprintln!("{report}");
    assert_eq!(report.failures.len(), 0, "the first: {}", report.failures[0]);
    assert_eq!(report.unreached(), Vec::<&str>::new(), "no process died at these points");
}
