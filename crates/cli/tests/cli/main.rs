//! The command line as its users see it: processes, pipes, signals and exit statuses.
//!
//! Every test makes its own space and removes it. No test sleeps to synchronise: tests poll `locks --json` and
//! `peers --json`, with a deadline.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking; clippy knows that only of unit tests"
)]

mod basics;
mod damage;
mod demo;
mod devices;
mod external;
mod gate;
mod graph;
mod kernels;
mod lock;
mod many_peers;
mod map;
mod media;
mod reset;
mod root;
mod shown;
mod stopped;
mod strangers;
mod support;
