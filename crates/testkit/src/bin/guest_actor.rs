//! A process of the virtual machine tests: a scripted process, or a helper that starts programs and cleans up.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    commonhold_testkit::vm::act()
}
