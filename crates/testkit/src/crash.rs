//! The crash-point suite: real processes die at every crash point (a named instant between two stores), and die
//! again while others recover from that death.
//!
//! # How it works
//! A scenario is a script for a few real processes ([`Scene`](scene::Scene)): one is told to lock, another to wait.
//! Each prints the points it passes, so that a dry run shows where a process can die. An *armed* process kills itself
//! at one hit of one point. The survivors finish their parts of the script. Then a new process recovers.
//!
//! # What must hold
//! 1. A [`Ledger`](ledger::Ledger) predicts every answer from the commands and deaths alone. An operation that had
//!    taken effect before its process died stays in effect; any other has no effect at all.
//! 2. The survivors keep what they have: this test process maps and locks two regions throughout.
//! 3. In the end the tables are whole, every name can be used, every lock is clean, only living processes are peers,
//!    and only their regions have memory.
//!
//! # What it does not do
//! No process sleeps to synchronise. But timing decides which of two waiters a wake-up reaches, so the *last* hit of a
//! point may not come again in another run. The first hits must.

pub(crate) mod actor;
mod alone;
pub(crate) mod arm;
mod command;
mod formatters;
mod guest;
mod ledger;
mod medium;
mod participants;
mod records;
mod recovery;
mod removers;
mod scenarios;
mod scene;
mod shared;
mod stops;
mod suite;
mod who;

use std::process::ExitCode;

pub use stops::beside_the_stopped;
pub use suite::{Report, run};

/// The main function of a child process.
#[must_use]
pub fn act() -> ExitCode {
    arm::install();
    crate::scripted_process::act(|line, space, mapping| {
        if shared::obey(line, mapping) {
            return true;
        }
        if mapping.is_some_and(|mapping| records::obey(line, mapping)) {
            return true;
        }
        if mapping.is_some_and(|mapping| alone::obey(line, mapping)) {
            return true;
        }
        match (line.word(0), space) {
            ("guest", None) => guest::attend(line.word(1), line.number(2)),
            ("tour", None) => guest::tour(line.word(1), line.number(2)),
            ("format", None) => formatters::format(line.word(1), line.word(2) == "force"),
            ("remove", None) => removers::remove(line.word(1)),
            ("renew", None) => removers::renew(line.word(1)),
            ("try", None) => formatters::try_open(line.word(1)),
            _ => return false,
        }
        true
    })
}

/// A result, or a sentence that says why the suite fails.
type Outcome<T = ()> = Result<T, String>;
