//! A space: the peers that share a window, and the directory of its regions.
//!
//! # What it owns
//! Every transition of the records in a space: which peer may take a slot, an entry or an extent, in
//! which order the stores are made, and how other peers complete or undo what a dead peer had begun.
//!
//! # Invariants
//! 1. A peer slot goes `Free -> Attaching -> Live -> Free`. A verdict of death takes it from `Attaching` or `Live` to
//!    `Fenced`, and from there it goes to `Free`, or to `Attaching` with a new peer. No generation of a slot is used
//!    twice.
//! 2. A peer that is fenced owns nothing: its mappings and read locks cease to count at that instant,
//!    since the words that count them carry its generation.
//! 3. Names, extents and links change under the directory mutex only. Its holder does a bounded amount of
//!    work and makes no system call, except to verify table parts that are new to its process. States change by
//!    compare-and-swap. See `directory`.
//! 4. A region is mapped only while it is active, and its memory is released only when no peer maps it.
//! 5. No byte of the window is touched before memory was committed behind it. A number in the window that claims so
//!    is not enough: see `backed`.
//! 6. Arbitrary bytes in the window cause an error, never a panic, a hang, or an access outside the window.
//!
//! # What it does not do
//! It allocates nothing and knows no operating system: all it needs from one is the port [`Platform`].
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod attach;
mod attached;
mod backed;
mod bias;
mod budget;
mod create;
mod destroy;
mod directory;
mod domain;
mod error;
mod format;
mod kernels;
mod life;
mod list;
mod map;
mod port;
mod reap;
mod reclaim;
mod record;
mod recover;
mod resize;
mod room;
mod settle;
mod silence;
mod slot;
#[cfg(test)]
mod tests;
mod threads;
mod view;
mod waits;

pub use attached::Attached;
pub use budget::Patience;
pub use create::{CreateOptions, RegionHandle};
pub use destroy::Destroy;
pub use error::{AttachError, DirectoryError};
pub use format::{Claim, MakeError, format};
pub use list::{Census, RegionRecord};
pub use map::Mapped;
pub use port::{
    BackingMemory, BackingMemoryError, EvidenceLock, Identity, LivenessEvidence, PeerRecord,
    Platform, Touch,
};
pub use reap::Reaped;
pub use record::{FoundRecord, RecordShares, record_key};
pub use room::{Demand, Room};
pub use silence::{Watched, heartbeat_period_ms};
pub use threads::{OwnThread, OwnThreads};
pub use view::{RegionShares, View, region_key};
pub use waits::{ThreadRecord, WaitTarget};
