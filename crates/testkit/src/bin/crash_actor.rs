//! A process of the crash-point suite: does what it is told, and dies where it is told.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    commonhold_testkit::crash::act()
}
