//! Bounded views of memory that others write at the same time.
//!
//! # What it owns
//! [`Window`]: the only way from an offset to a byte of shared memory; [`Bytes`], a span of it; and [`Run`], the
//! words of a value in it. All `unsafe` code of the core crates is in this one.
//!
//! # Invariants
//! 1. No access leaves the window: each is checked against its length, in arithmetic that cannot wrap.
//! 2. Safe code never gets `&T`, `&mut T` or `&[u8]` to shared bytes: only atomics, copies, and a raw pointer or a
//!    [`Door`], whose use is `unsafe`.
//! 3. Words are read and written as whole 64-bit atomics. Bulk bytes are relaxed atomics too, or are copied by a call
//!    that the compiler cannot see into (`copy.rs`). So another writer can tear a copy, but causes no undefined
//!    behaviour.
//!
//! # What it does not do
//! It neither maps nor unmaps memory (`commonhold-host` does), and gives no meaning to any byte
//! (`commonhold-layout` does).
#![cfg_attr(not(feature = "crash-points"), no_std)]

/// The example of the README compiles, and is right.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
extern crate std;

#[cfg(not(loom))]
mod bytes;
#[cfg(not(loom))]
mod copy;
#[cfg(not(loom))]
mod door;
#[cfg(not(loom))]
mod out_of_window;
mod point;
#[cfg(not(loom))]
mod run;
#[cfg(not(loom))]
mod window;

#[cfg(not(loom))]
pub use bytes::Bytes;
#[cfg(not(loom))]
pub use door::Door;
#[cfg(not(loom))]
pub use out_of_window::OutOfWindow;
pub use point::Point;
#[cfg(feature = "crash-points")]
pub use point::{Hook, at_each_point};
#[cfg(not(loom))]
pub use run::Run;
#[cfg(not(loom))]
pub use window::Window;

/// The atomics that the lock algorithms use: the processor's, or loom's under the model checker.
pub mod atomic {
    #[cfg(not(loom))]
    pub use core::sync::atomic::{AtomicU64, Ordering, fence};
    #[cfg(loom)]
    pub use loom::sync::atomic::{AtomicU64, Ordering, fence};
}
