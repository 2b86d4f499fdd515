//! The fuzzers that use processes: see `commonhold_testkit::fuzz`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    commonhold_testkit::fuzz::storm()
}
