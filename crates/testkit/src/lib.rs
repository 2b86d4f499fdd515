//! What tests of more than one crate share. Nothing here is ever published.
//!
//! # What it owns
//! The crash-point suite ([`crash`], with the feature `crash-points`).
#![forbid(unsafe_code)]

#[cfg(feature = "crash-points")]
pub mod crash;
