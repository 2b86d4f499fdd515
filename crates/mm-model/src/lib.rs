//! A model of the memory manager (`commonhold-mm`), and random programs that compare a machine with it.
//!
//! An author of a machine (`Mmu`) implements [`Machine`], which is how a program accesses memory, and calls [`run`] with
//! one seed after the other. Each seed is a program of maps, unmaps, locks, accesses, evictions and more, in three
//! spaces, with four objects, in budgets that are too small. After every step everything that can be observed is
//! compared with the model. The README has an example.
//!
//! # What it owns
//! - The model (`reference.rs`): objects are maps from pages to bytes, spaces are maps from pages to what they show. It
//!   has no locks, no mappings, no policy, and no page ever leaves memory.
//! - The programs (`program.rs`), from a generator of its own (`random.rs`): a seed means the same program on all
//!   machines, for as long as this crate has the same version.
//! - The comparison (`world.rs`; `operations.rs`, `residency.rs` and `access.rs` act, `check.rs` compares), and the
//!   search for a shorter program (`run.rs`).
//! - A pager that keeps what it is given (`pager.rs`), and failures: of pagers, of the machine, of the allocator
//!   (`shortage.rs`).
//!
//! # Invariants
//! 1. The machine is reached only through [`Machine`] and the memory manager, never through the port `Mmu`.
//! 2. The checker does not panic: what differs is a [`Failure`], with the seed, the step and a short list of steps.
//! 3. One thread runs a program, so it can be repeated. A machine may have threads of its own; then the checker waits
//!    for them after each step ([`Machine::settle`]).
//!
//! # What it does not do
//! It explores no schedules: that is for shuttle, and for tests with real threads.
#![no_std]
#![forbid(unsafe_code)]
#![allow(
    clippy::indexing_slicing,
    reason = "only maps are indexed: those of the model, by names that the checker has put into them"
)]

extern crate alloc;
#[cfg(test)]
extern crate std;

/// Returns an error unless a condition holds.
macro_rules! ensure {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err(alloc::format!($($what)+));
        }
    };
}

/// Returns an error.
macro_rules! fail {
    ($($what:tt)+) => {
        return Err(alloc::format!($($what)+))
    };
}

mod access;
mod check;
mod machine;
mod operations;
mod pager;
mod program;
mod random;
mod reference;
mod residency;
mod run;
mod shortage;
mod world;

pub use machine::{CPUS, Machine, Outlook, PAGES, Touch, Touched, Translated, Wake};
pub use program::{Failing, Op, Part, Program, Setting, Step, Trouble};
pub use random::Random;
pub use reference::{BYTES, FIRST, LENGTH, Place};
pub use run::{Failure, Report, run, run_failing, run_program};
pub use shortage::{Limit, Shortage};

/// The example in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
