//! A peer that is stopped in the middle of a change of the directory. See `commonhold_testkit::crash`.

use std::path::Path;

/// The story: a peer got SIGSTOP in the middle of a create, and `destroy` with a timeout of 20 ms beside it had not
/// ended after 3 s. Everything that took the directory mutex waited for it without a deadline.
#[test]
fn beside_a_peer_that_is_stopped_with_the_directory_everything_ends_and_afterwards_all_is_whole() {
    let program = Path::new(env!("CARGO_BIN_EXE_crash-actor"));
    let failures = commonhold_testkit::crash::beside_the_stopped(program);
    assert_eq!(failures, Vec::<String>::new());
}
