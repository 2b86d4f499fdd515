//! Several real kernels share a space. `commonhold_testkit::vm` describes how.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking; clippy knows that only of unit tests"
)]

mod deaths;
mod devices;
mod guide;
mod image;
mod leftovers;
mod metal;
mod rounds;
mod support;
mod together;
