//! What the fuzz targets run: the core of Commonhold on a machine of its own, over bytes that anybody may have
//! written.
//!
//! # What it owns
//! 1. [`decode`]: every decoder of words, names and URLs, with what must hold of its results.
//! 2. [`image`]: a space on the heap, its peers, and those who write in it what they like.
//!
//! # Invariants
//! 1. A run depends on its input alone: clock, deaths and neighbours come from the input. There are no threads.
//! 2. Under AddressSanitizer, bytes of a window without memory behind them are poisoned: whoever touches them is
//!    caught, as SIGBUS would on a full file system.
//!
//! # What it does not do
//! It asks no operating system: files, mappings and signals are the business of `commonhold-testkit`'s fuzzers.

/// The name under which the parsers of the command line know the types of the core.
extern crate commonhold_layout as commonhold;

pub mod decode;
pub mod image;
/// What may be written into a space: the same as the fuzzers with processes write.
#[path = "../../crates/testkit/src/fuzz/scribble.rs"]
mod scribble;
