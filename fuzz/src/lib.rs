//! What the fuzz targets run: the core of Commonhold on a simulated machine, over bytes that an attacker may have
//! written.
//!
//! # What it owns
//! 1. [`decode`]: every decoder of words, names and URLs, with what must hold of its results.
//! 2. [`image`]: a space on the heap, its peers, and an attacker that writes anything anywhere in it.
//!
//! # Invariants
//! 1. A run depends on its input only: clock, deaths and other peers come from the input. There are no threads.
//! 2. Under AddressSanitizer, bytes of a window without memory behind them are poisoned: an access to them is
//!    detected, as SIGBUS does on a full file system.
//!
//! # What it does not do
//! It uses no operating system: the fuzzers of `commonhold-testkit` cover files, mappings and signals.

/// The name under which the parsers of the command line know the types of the core.
extern crate commonhold_layout as commonhold;

pub mod decode;
pub mod image;
/// The changes that the attacker makes, shared with the fuzzers that use processes.
#[path = "../../crates/testkit/src/fuzz/scribble.rs"]
mod scribble;
