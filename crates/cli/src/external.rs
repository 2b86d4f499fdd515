//! `bench` and `torture`: commands of another program, as external commands of git and cargo are.
//!
//! Finds that program, and replaces this process by it. The program gets the global options and all arguments
//! unchanged; only it knows what the arguments mean.

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

/// Replaces this process by `commonhold-bench`, with this command or none. Returns only if that fails.
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
            "`{}` needs the program {PROGRAM}, which is neither in the folder of this program nor in PATH: \
             build it by `cargo build --release -p {PROGRAM}`, or install it by `cargo install --path crates/bench`",
            command.unwrap_or("bench"),
        ),
    )
}

/// A failure with the status that a shell gives to a command that it cannot run: no status of the program itself.
const fn failed(code: u8, message: String) -> Failure {
    Failure { code, message: Some(message) }
}

/// Where the program may be: first the folder of this program, then PATH.
fn places() -> impl Iterator<Item = PathBuf> {
    let beside = env::current_exe().ok().map(|this| this.with_file_name(PROGRAM));
    beside.into_iter().chain([PathBuf::from(PROGRAM)])
}

/// Whether the program is not there. An entry of PATH may also be a file, or may not exist.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// The global options, as they were given on the command line. The other program reads the environment itself.
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
