//! A process of the crash-point suite: executes the commands it is sent, and dies at the point it is given.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    commonhold_testkit::crash::act()
}
