//! A process of the virtual machine tests: an actor, or what starts and cleans up for the test.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    commonhold_testkit::vm::act()
}
