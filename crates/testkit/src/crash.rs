//! The crash-point suite: every named instant between two stores is died at, and died at again while
//! the survivors recover.
//!
//! # How it works
//! A scenario is a script for a few real processes ([`Scene`](scene::Scene)): one is told to lock,
//! another to wait. Each says on its standard output which points it comes to, so that a dry run tells
//! what there is to die at. A process that is armed kills itself at one hit of one point; those that
//! survive play their parts to the end; then a fresh process recovers.
//!
//! # What must hold
//! 1. A [`Ledger`](ledger::Ledger) knows from the outside what every answer must be: what was promised
//!    to the dead stands, what was not is as if never asked for.
//! 2. Whoever survives still has what it had: this test process maps and locks two regions throughout.
//! 3. In the end the tables are whole, every name can be had, every lock is clean, only the living are
//!    peers, and nothing but their regions has memory.
//!
//! # What it does not do
//! Nobody here sleeps to synchronise; but timing decides which of two waiters a wake-up reaches, so a
//! point's *last* hit may not come in another run. The first hits must.

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

/// The whole life of a child.
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

/// Why the suite fails, in words.
type Outcome<T = ()> = Result<T, String>;
