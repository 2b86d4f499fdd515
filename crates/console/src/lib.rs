//! What the programs of Commonhold have in common, so that `commonhold` and `commonhold-bench` look and end alike.
//!
//! # What it owns
//! The options that all commands take and the way from arguments to a [`Session`](session::Session); exit
//! statuses and messages; standard output as tables and JSON; sizes and durations as people write them; signals;
//! and the worker processes of commands that run several.
//!
//! # Invariants
//! 1. One module writes to standard output (`output`), and with `--json` it is one JSON value.
//! 2. An exit status means the same in every program (`failure`).
//! 3. No worker outlives the process that started it (`child`, `workers`).
//!
//! # What it does not do
//! It has no command: each program defines its own. It is no library for users: they import `commonhold`.
#![forbid(unsafe_code)]

pub mod child;
pub mod clock;
pub mod failure;
pub mod output;
pub mod program;
pub mod random;
pub mod session;
pub mod signals;
pub mod units;
pub mod workers;
