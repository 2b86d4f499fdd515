//! Test code that several crates share. It is never published.
//!
//! # What it owns
//! 1. The crash-point suite ([`crash`], with the feature `crash-points`).
//! 2. Virtual machines for tests ([`vm`], with the feature `vm`).
//! 3. Fuzzers whose inputs need processes or a file system, and what they share with those in `fuzz/` ([`fuzz`],
//!    with the feature `fuzz`).
//! 4. The process that the first two script, command by command (`scripted_process`).
#![forbid(unsafe_code)]

#[cfg(feature = "crash-points")]
pub mod crash;
#[cfg(feature = "fuzz")]
pub mod fuzz;
#[cfg(any(feature = "crash-points", feature = "vm"))]
mod scripted_process;
#[cfg(feature = "vm")]
pub mod vm;
