//! The byte format of a space, and the types that a number read from one must become.
//!
//! # What it owns
//! Every constant of the format: where each field lies, what each bit of it means, which sizes are
//! allowed. `docs/SPEC.md` says the same in prose; a test in this crate compares the two.
//!
//! # Invariants
//! 1. Everything in a space is a 64-bit little-endian word at an offset that is a multiple of 8.
//! 2. A raw word is a *claim*. A function of this crate turns it into a type: it refuses bad words, or
//!    maps every bit pattern to something harmless. The type is the proof that the word was checked.
//! 3. Nothing here panics, allocates, or does arithmetic that can wrap, for any bytes.
//!
//! # What it does not do
//! It never touches memory: `commonhold-window` does. It knows no lock protocol: `commonhold-sync`
//! and `commonhold-space` do.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(target_endian = "big")]
compile_error!(
    "a space is little-endian and its words are used in place: big-endian machines cannot attach"
);

#[cfg(not(all(target_pointer_width = "64", target_has_atomic = "64")))]
compile_error!(
    "Commonhold needs a 64-bit machine: a space is mapped whole, and its words are 64-bit atomics"
);

/// The example of the README compiles, and is right.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
extern crate std;

mod bias;
mod domain;
mod error;
mod event;
mod extent;
mod fnv;
mod geometry;
mod header;
mod intent;
pub mod limits;
mod lock;
mod name;
mod owner;
mod peer;
mod read_key;
mod record;
mod region;
mod share;
mod shown;
mod slot_word;
#[cfg(test)]
mod spec;
mod thread;

pub use bias::{BIAS_AFTER, BIAS_MISSES, Bias, BiasState, BiasTarget, bias_entry};
pub use domain::{BootId, DomainState, domain_word};
pub use error::{Damage, FormatError, OpenError};
pub use event::{EVENT_STEP, EVENT_WAITERS};
pub use extent::{Extent, OFFSET_LIMIT, Offset, align_up};
pub use geometry::{FormatOptions, Geometry};
pub use header::{FORMATTING, HEADER_BYTES, HEADER_WORDS, MAGIC, Marker, VERSION, header_word};
pub use intent::{Intent, IntentKind, IntentPhase};
pub use lock::{LockFlags, LockWord};
pub use name::{Name, NameError, NameHash};
pub use owner::Owner;
pub use peer::{DeathFutex, Evidence, PeerId, PeerName, PeerPhase, PeerRef, PeerState, peer_word};
pub use read_key::{EPOCH_STEP, ReadKey};
pub use record::{NotATag, PLACES_MOST, RECORD_MARKER, RecordKind, RecordTag, record_words};
pub use region::{RegionFlags, RegionId, RegionPhase, RegionState, region_word};
pub use share::{ShareError, ShareWord};
pub use shown::{Shown, Visible, is_hidden};
pub use thread::{Pending, PendingKind, ThreadId, ThreadLife, thread_word};
