//! `bench` and `torture`: commands of another program, as those of git and cargo are.
//!
//! Owns: where that program is looked for, and that this process becomes it. It gets the options that every command
//! takes, and the arguments as they were given: what they mean is known there only.

use std::{
    env,
    ffi::OsString,
    io::{self, ErrorKind},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::Command,
};

use commonhold::Owners;
use commonhold_console::{failure::Failure, session::Session};

use crate::args::ExternalArgs;

const PROGRAM: &str = "commonhold-bench";

/// Becomes the program of the benchmarks, with this command of it, or with none. Returns only if that fails.
pub(crate) fn become_bench(
    session: &Session,
    command: Option<&str>,
    args: &ExternalArgs,
) -> Failure {
    for program in places() {
        let mut there = Command::new(&program);
        let error = there.args(global(session)).args(command).args(&args.arguments).exec();
        if !is_missing(&error) {
            return failed(126, format!("run {}: {error}", program.display()));
        }
    }
    failed(
        127,
        format!(
            "`{}` is a command of the program {PROGRAM}, which is neither beside this one nor in a folder of PATH: \
             build it by `cargo build --release -p {PROGRAM}`, or install it by `cargo install --path crates/bench`",
            command.unwrap_or("bench"),
        ),
    )
}

/// The status is what a shell says of a command that it cannot run, so that nobody takes it for one of the program.
const fn failed(code: u8, message: String) -> Failure {
    Failure { code, message: Some(message) }
}

/// Beside this program, then wherever PATH leads.
fn places() -> impl Iterator<Item = PathBuf> {
    let beside = env::current_exe().ok().map(|this| this.with_file_name(PROGRAM));
    beside.into_iter().chain([PathBuf::from(PROGRAM)])
}

/// A folder of PATH may be a file, or be gone.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// The options that every command takes, as they were given. What comes from the environment the other program
/// finds there.
fn global(session: &Session) -> Vec<OsString> {
    let mut options: Vec<OsString> = Vec::new();
    if session.chosen {
        options.extend(["--space".into(), session.url.clone().into()]);
    }
    if session.owners == Owners::Any {
        options.push("--any-owner".into());
    }
    if session.out.json {
        options.push("--json".into());
    }
    options.extend((0..session.verbose).map(|_| "--verbose".into()));
    options
}
