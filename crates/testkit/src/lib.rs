//! What tests of more than one crate share. Nothing here is ever published.
//!
//! # What it owns
//! 1. The crash-point suite ([`crash`], with the feature `crash-points`).
//! 2. Virtual machines for tests ([`vm`], with the feature `vm`).
//! 3. Fuzzers whose inputs need processes or a file system, and what they share with those in `fuzz/` ([`fuzz`],
//!    with the feature `fuzz`).
//! 4. The actor that the first two tell what to do (`stage`).
#![forbid(unsafe_code)]

#[cfg(feature = "crash-points")]
pub mod crash;
#[cfg(feature = "fuzz")]
pub mod fuzz;
#[cfg(any(feature = "crash-points", feature = "vm"))]
mod scripted_process;
#[cfg(feature = "vm")]
pub mod vm;
