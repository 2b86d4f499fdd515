//! The first process of a guest of the virtual machine tests.
#![forbid(unsafe_code)]

use std::{path::Path, process::ExitCode};

fn main() -> ExitCode {
    let tty = std::env::args_os().nth(1).unwrap_or_else(|| "/dev/ttyS1".into());
    if let Err(error) = commonhold_testkit::vm::agent::serve(Path::new(&tty)) {
        eprintln!("guest-agent: {}: {error}", tty.display());
    }
    ExitCode::FAILURE
}
