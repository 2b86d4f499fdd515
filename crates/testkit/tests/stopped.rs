//! A peer that is stopped in the middle of a change of the directory. See `commonhold_testkit::crash`.

use std::path::Path;

/// The story: while a peer was stopped by SIGSTOP in the middle of a create, a `destroy` with a timeout of 20 ms had
/// not ended after 3 s. Every operation that took the directory mutex waited for the peer without a deadline.
#[test]
fn operations_end_while_a_stopped_peer_holds_the_directory_and_all_is_whole_afterwards() {
    let program = Path::new(env!("CARGO_BIN_EXE_crash-actor"));
    let failures = commonhold_testkit::crash::beside_the_stopped(program);
    assert_eq!(failures, Vec::<String>::new());
}
