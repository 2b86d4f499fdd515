//! x
#![no_std]
#![forbid(unsafe_code)]
#![allow(missing_docs)]
mod port;
pub use port::{Identity, Medium, MediumError, PeerRecord, Platform, Witness};
