//! Programs of other targets beside those of this one, around one space. See `commonhold_testkit::vm` for how they are
//! made, and `cargo xtask ports` for by whom.
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
