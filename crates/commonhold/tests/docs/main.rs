//! Checks of this crate's documentation: every public type has an example ([`types`]), and every example that uses
//! a space survives being killed ([`kills`]). `../compile.rs` checks that the examples compile.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say so by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test that indexes wrongly fails, as it should")]

mod examples;
mod kills;
mod program;
mod types;
