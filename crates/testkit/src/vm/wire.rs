//! The protocol between a test and the agent in a guest: one JSON value on each line.

use serde::{Deserialize, Serialize};

/// An order of the test to the agent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Start a program, with the number `job`.
    Run { job: u64, argv: Vec<String> },
    /// Write a line to a job's standard input.
    Tell { job: u64, line: String },
    /// Close a job's standard input.
    Close { job: u64 },
    /// Kill a job with SIGKILL.
    Kill { job: u64 },
}

/// A report of the agent to the test.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The guest has booted; the boot id of its kernel.
    Ready { boot: String },
    /// Something happened to a job.
    Job { job: u64, event: Event },
}

/// What happens to a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Event {
    /// It wrote a line to standard output.
    Out(String),
    /// It wrote a line to standard error.
    Err(String),
    /// It has ended, and all its output has been reported. The status is as in a shell: 128 plus the signal.
    End(i32),
}
