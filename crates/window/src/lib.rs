//! Bounded views of memory that others write at the same time.
//!
//! # What it owns
//! [`Window`]: the only way from an offset to a byte of shared memory; [`Bytes`], a span of it; and [`Run`], the words of
//! a value in it. It is the boundary behind which `unsafe` stands for all crates of the core.
//!
//! # Invariants
//! 1. No access leaves the window: each is checked against its length, in arithmetic that cannot wrap.
//! 2. Nobody gets `&T`, `&mut T` or `&[u8]` of shared bytes: only atomics, copies, and a raw pointer or a [`Door`]
//!    for those who ask and answer for it.
//! 3. Words are read and written as whole 64-bit atomics; bulk bytes as relaxed atomics too, or by a call that the
//!    compiler cannot see into (`copy.rs`), so that a writer at the other side can tear a copy, but never the program.
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

/// The atomics that lock algorithms run on: the processor's, or loom's when it checks them.
pub mod atomic {
    #[cfg(not(loom))]
    pub use core::sync::atomic::{AtomicU64, Ordering, fence};
    #[cfg(loom)]
    pub use loom::sync::atomic::{AtomicU64, Ordering, fence};
}
