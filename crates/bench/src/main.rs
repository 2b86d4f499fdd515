//! `commonhold-bench`: compares what Commonhold costs with what its alternatives cost, and tortures it.
//!
//! # What it owns
//! The benchmarks (`benchmarks`), with everything that Commonhold is measured against, and `torture`. Both start
//! worker processes of this same program. `commonhold bench` and `commonhold torture` run it.
//!
//! # What it does not do
//! None of it is part of the product. Of the product it uses only the library, and what all programs share
//! (`commonhold-console`).

#![deny(unsafe_code)]

mod args;
mod benchmarks;
mod torture;

use std::process::ExitCode;

use commonhold_console::{failure::Failure, output, program, session::Session};

use crate::args::{Cli, Command};

/// What this program is called in messages.
const NAME: &str = "commonhold-bench";

fn main() -> ExitCode {
    let done = program::parse::<Cli>().and_then(|(cli, matches)| {
        Cli::refuse_mixture(&matches).map_err(|error| output::usage(&error))?;
        let session = cli.global.start(NAME, &matches);
        match cli.command {
            None => benchmarks::bench(&session, &cli.bench),
            Some(command) => run(&session, &command),
        }
    });
    program::end(NAME, done.map(|()| 0))
}

fn run(session: &Session, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Torture(args) => torture::torture(session, args),
        Command::TortureWorker(args) => torture::worker(session, args),
        Command::Worker(args) => benchmarks::worker(session, args),
        Command::Waiter(args) => benchmarks::waiter(session, args),
    }
}
