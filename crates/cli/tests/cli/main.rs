//! The command line as its users see it: processes, pipes, signals and exit statuses.
//!
//! Every test has a space of its own and removes it. Nothing sleeps to synchronise: tests poll what
//! `locks --json` and `peers --json` say, with a deadline.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking; clippy knows that only of unit tests"
)]

mod basics;
mod crowd;
mod damage;
mod demo;
mod devices;
mod external;
mod gate;
mod graph;
mod kernels;
mod lock;
mod map;
mod media;
mod reset;
mod root;
mod shown;
mod stopped;
mod strangers;
mod support;
