//! What a test and the agent in a guest say to each other: one JSON value a line.

use serde::{Deserialize, Serialize};

/// The test tells the agent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Start a program, and call it `job`.
    Run { job: u64, argv: Vec<String> },
    /// Write a line to a job's standard input.
    Tell { job: u64, line: String },
    /// End a job's standard input.
    Close { job: u64 },
    /// Kill a job with SIGKILL.
    Kill { job: u64 },
}

/// The agent tells the test.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The guest is up; the boot id of its kernel.
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
    /// It is dead, and all it wrote has been told. As a shell says it: 128 and the signal.
    End(i32),
}
