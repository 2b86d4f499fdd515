//! What the programs of Commonhold share, so that `commonhold` and `commonhold-bench` look and behave alike.
//!
//! # What it owns
//! The global options, and the way from arguments to a [`Session`](session::Session); exit statuses and messages;
//! standard output as tables and JSON; sizes and durations as people write them; signals; and the worker processes
//! of commands that start several.
//!
//! # Invariants
//! 1. Only the module `output` writes to standard output. With `--json` it writes one JSON value.
//! 2. An exit status means the same in every program (`failure`).
//! 3. No worker outlives the process that started it (`child`, `workers`).
//!
//! # What it does not do
//! It has no commands: each program defines its own. It is not a library for users: they import `commonhold`.
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
