//! The directory, driven by several peers of one process over a window on the heap.
#![allow(clippy::cast_possible_truncation, reason = "test sizes are small")]

mod backed;
mod bias;
mod busy;
mod damage;
mod deaths;
mod in_place;
mod kernels;
mod misuse;
mod regions;
mod threads;
mod waits;
mod world;

use std::{
    format,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    vec::Vec,
};

use commonhold_layout::{
    BootId, FormatOptions, Name, Offset, Owner, PeerId, PeerName, PeerRef, RegionPhase,
};
use commonhold_sync::{Liveness as _, LockError, Park, Taken, Verdict};

use crate::{
    AttachError, Attached, BackingMemoryError, CreateOptions, Demand, Destroy, DirectoryError,
    Identity, MakeError, Patience, Room, View, format,
};
use world::{Machine, PAGE, Peer, World};

/// What the next owner of a lock that `dead` held is told.
const fn told_of(dead: Owner) -> Result<Taken, LockError> {
    Ok(Taken::OwnerDied(Some(dead)))
}
