//! A space: the peers that share a window, and the directory of its regions.
//!
//! # What it owns
//! Every transition of the records in a space: who may take a peer slot, an entry or an extent, in
//! which order the stores are made, and what whoever comes across the traces of the dead makes of them.
//!
//! # Invariants
//! 1. A peer goes `Free -> Attaching -> Live -> Free`, or from either of the middle two to `Fenced` on a
//!    verdict of death, and from there to `Free`, or to `Attaching` with a new peer. Its generation is
//!    never used twice.
//! 2. A peer that is fenced owns nothing: its mappings and read locks count no longer at that instant,
//!    since they are counted in words that carry its generation.
//! 3. Names, extents and links change under the directory mutex only; who holds it does a bounded amount of
//!    work and makes no system call. States change by compare-and-swap; see `directory`.
//! 4. A region is mapped only while it is active, and its memory goes only when nobody maps it.
//! 5. No byte of the window is touched before memory was committed behind it. That others say so is not enough:
//!    see `backed`.
//! 6. Arbitrary bytes in the window cost an error, never a panic, a hang, or an access outside it.
//!
//! # What it does not do
//! It allocates nothing and knows no operating system: all it needs of one is the port [`Platform`].
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
