//! Why an operation on a space failed.

use core::fmt;

use commonhold_layout::{Damage, OpenError, PeerId, ShareError};
use commonhold_sync::LockError;
use commonhold_window::OutOfWindow;

use crate::BackingMemoryError;

/// Why attaching failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttachError {
    /// The window is not a space that this version can use.
    Open(OpenError),
    /// Every slot has a living peer.
    NoSlot {
        /// How many slots there are.
        peers: u16,
        /// A free slot whose evidence byte is locked by a process that is not a peer, if there is one.
        locked: Option<PeerId>,
    },
    /// Every domain record belongs to a kernel with living peers.
    NoDomain {
        /// How many records there are.
        domains: u16,
    },
    /// The backing memory failed.
    BackingMemory(BackingMemoryError),
    /// The directory could not be used.
    Directory(DirectoryError),
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => error.fmt(f),
            Self::NoSlot { peers, locked: None } => {
                write!(f, "all {peers} peer slots have living peers")
            }
            Self::NoSlot { locked: Some(peer), .. } => {
                write!(f, "a process that is not a peer has slot {} locked", peer.get())
            }
            Self::NoDomain { domains } => write!(f, "all {domains} domain records are in use"),
            Self::BackingMemory(error) => error.fmt(f),
            Self::Directory(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for AttachError {}

impl AttachError {
    /// Damage that was found after the header had been accepted.
    pub(crate) const fn damaged(damage: Damage) -> Self {
        Self::Directory(DirectoryError::Damaged(damage))
    }
}

impl From<BackingMemoryError> for AttachError {
    fn from(error: BackingMemoryError) -> Self {
        Self::BackingMemory(error)
    }
}

impl From<DirectoryError> for AttachError {
    fn from(error: DirectoryError) -> Self {
        Self::Directory(error)
    }
}

/// Why an operation on the directory failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectoryError {
    /// The name is taken by a region that is being created, active, or still being destroyed.
    Exists,
    /// No region of that name is active.
    NotFound,
    /// `destroy`: the caller maps the region. `resize`: it was to shrink, and a peer maps it.
    Mapped,
    /// The caller does not map it.
    NotMapped,
    /// It was still mapped when the time was up.
    TimedOut,
    /// No free extent is large enough.
    NoSpace {
        /// Bytes asked for.
        asked: u64,
        /// Bytes of the largest free extent.
        largest: u64,
    },
    /// All entries are taken.
    NoEntry {
        /// How many there are.
        regions: u32,
    },
    /// The size does not fit the reserve.
    BeyondReserve {
        /// Bytes asked for.
        asked: u64,
        /// Bytes of the reserve.
        reserve: u64,
    },
    /// The caller maps it as often as can be counted.
    TooManyMappings,
    /// All thread slots of the peer are taken.
    TooManyThreads {
        /// How many there are.
        threads: u16,
    },
    /// The caller's peer was declared dead.
    Fenced,
    /// A living peer, which may be stopped, was still changing the directory or the size of this region when the time
    /// was up. The directory is not taken from a living peer.
    Busy {
        /// Its slot.
        slot: u16,
        /// The slot of its thread.
        thread: u16,
    },
    /// Other threads kept changing the region until the time was up.
    Unsettled,
    /// A peer that is silent, and cannot be proved dead, holds the directory mutex.
    HeldBySuspect {
        /// Its slot.
        slot: u16,
    },
    /// A thread used the directory while it was using it already: a bug in this library.
    Reentered,
    /// The backing memory failed.
    BackingMemory(BackingMemoryError),
    /// The bytes of the space are damaged.
    Damaged(Damage),
}

impl fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists => {
                f.write_str("a region of that name exists, or is still being destroyed")
            }
            Self::NotFound => f.write_str("no region of that name is active"),
            Self::Mapped => f.write_str("the region is still mapped"),
            Self::NotMapped => f.write_str("the region is not mapped by this peer"),
            Self::TimedOut => f.write_str("the region was still mapped when the time was up"),
            Self::NoSpace { asked, largest } => {
                write!(
                    f,
                    "no {asked} bytes in a row are free; the largest free extent has {largest}"
                )
            }
            Self::NoEntry { regions } => write!(f, "all {regions} region entries are taken"),
            Self::BeyondReserve { asked, reserve } => {
                write!(f, "{asked} bytes do not fit the reserve of {reserve}")
            }
            Self::TooManyMappings => f.write_str("this peer maps the region 65535 times already"),
            Self::TooManyThreads { threads } => write!(f, "all {threads} thread slots are taken"),
            Self::Fenced => f.write_str("this peer was declared dead by others"),
            Self::Busy { slot, thread } => write!(
                f,
                "thread {thread} of the peer in slot {slot} is in the middle of changing the directory, and \
                 did not end in time"
            ),
            Self::Unsettled => f.write_str("other threads kept changing the region"),
            Self::HeldBySuspect { slot } => write!(
                f,
                "the directory is held by the peer in slot {slot}, which is silent and cannot be proved dead"
            ),
            Self::Reentered => f.write_str("the thread was using the directory already"),
            Self::BackingMemory(error) => error.fmt(f),
            Self::Damaged(damage) => damage.fmt(f),
        }
    }
}

impl core::error::Error for DirectoryError {}

impl DirectoryError {
    /// Whether another peer holds the directory: a later attempt may succeed.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::HeldBySuspect { .. })
    }

    /// Whether there is no room, so that reaping the dead may help.
    pub(crate) const fn is_full(&self) -> bool {
        match self {
            Self::NoSpace { .. } | Self::NoEntry { .. } => true,
            Self::BackingMemory(error) => error.is_full(),
            _ => false,
        }
    }
}

impl From<Damage> for DirectoryError {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}

/// Offsets come from a checked geometry, so this happens only if a region's extent was damaged.
impl From<OutOfWindow> for DirectoryError {
    fn from(error: OutOfWindow) -> Self {
        Self::Damaged(Damage::new("an offset", error.offset))
    }
}

impl From<BackingMemoryError> for DirectoryError {
    fn from(error: BackingMemoryError) -> Self {
        Self::BackingMemory(error)
    }
}

impl From<ShareError> for DirectoryError {
    fn from(error: ShareError) -> Self {
        match error {
            ShareError::TooMany => Self::TooManyMappings,
            ShareError::None => Self::NotMapped,
            _ => Self::Fenced,
        }
    }
}

impl From<LockError> for DirectoryError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::TimedOut => Self::TimedOut,
            LockError::Deadlock => Self::Reentered,
            LockError::Fenced => Self::Fenced,
            // The directory mutex never returns these, and no peer counts so many readers: the bytes are damaged.
            LockError::WriterDied
            | LockError::Unrecoverable
            | LockError::TooManyReaders
            | LockError::NothingSpent
            | LockError::BarrierFull
            | LockError::ParticipantDied => Self::Damaged(Damage::new("the word of a lock", 0)),
        }
    }
}
