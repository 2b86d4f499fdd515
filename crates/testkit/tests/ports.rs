//! Programs for other targets and for this one share a space. `commonhold_testkit::vm` describes the tests; `cargo
//! xtask ports` builds the programs.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking; clippy knows that only of unit tests"
)]

#[path = "ports/arm64.rs"]
mod arm64;
#[path = "ports/musl.rs"]
mod musl;
#[path = "vm/support.rs"]
mod support;
