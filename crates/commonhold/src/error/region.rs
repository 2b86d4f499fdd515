//! Why an operation on a region, or on the table of regions, failed.

use std::{fmt, io};

use commonhold_host::LockHolder;
use commonhold_layout::{Damage, NameError, RecordTag};
use commonhold_space::Room;

use super::{DirectoryHolder, ErrorKind, FENCED, FORKED, READERS};

/// Why an operation on a region, or on the table of regions, failed.
///
/// # Examples
/// ```
/// use commonhold::{RegionError, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-region-error-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let log = space.map_or_create("log", 4096)?;
/// match space.resize("log", 1 << 20) {
///     Ok(()) => println!("it has {} bytes now", log.refresh()?),
///     Err(RegionError::BeyondReserve { reserve, .. }) => println!("it has {reserve} bytes at most"),
///     Err(error) => return Err(error.into()),
/// }
/// # drop(log);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum RegionError {
    /// The name is malformed.
    Name {
        /// What was given.
        name: String,
        /// What is wrong with it.
        why: NameError,
    },
    /// `create`: the name is taken, by a region that is active or still being destroyed.
    Exists {
        /// Which name.
        name: String,
    },
    /// No region of that name is active.
    NotFound {
        /// Which name.
        name: String,
    },
    /// `destroy`: this process still maps it. `resize`: a peer maps it, so it cannot shrink.
    Mapped {
        /// Which name.
        name: String,
        /// How many handles of this process keep it mapped: mappings, and what was opened in them.
        handles: usize,
    },
    /// `unmap`: other handles of this process use the mapping.
    InUseHere {
        /// Which region.
        name: String,
        /// How many other handles there are.
        handles: usize,
    },
    /// `destroy`: it was still mapped by others when the time was up, and is active again.
    TimedOut {
        /// Which name.
        name: String,
    },
    /// No free space in the window is large enough.
    NoSpace {
        /// Bytes asked for.
        asked: u64,
        /// Bytes of the largest free extent.
        largest: u64,
    },
    /// All region entries are taken.
    NoEntry {
        /// How many there are.
        regions: u32,
    },
    /// There seems to be less memory than was asked for; none of it was taken. [`CreateOptions::force`] and
    /// [`Space::resize_by_force`] try to take it nevertheless.
    ///
    /// [`CreateOptions::force`]: crate::CreateOptions::force
    /// [`Space::resize_by_force`]: crate::Space::resize_by_force
    NoRoom(Room),
    /// The operating system gave no memory: the file system is full.
    NoMemory {
        /// Its error.
        source: io::Error,
    },
    /// `resize` beyond the reserve given at creation; `create` with a reserve below the size.
    BeyondReserve {
        /// Bytes asked for.
        asked: u64,
        /// Bytes of the reserve.
        reserve: u64,
    },
    /// This process has as many mappings of the region as can be counted.
    TooManyMappings,
    /// This process has as many read locks of the region as can be counted.
    TooManyReaders,
    /// A living peer is in the middle of changing the table of regions, and did not finish in time: it may be
    /// stopped. Nothing has changed; try again.
    Busy(Box<DirectoryHolder>),
    /// Until the time was up, another process held the lock on the space's file that is needed to take memory.
    /// Nothing has changed; try again.
    Blocked {
        /// The process that holds it, if that could be seen.
        by: Option<LockHolder>,
    },
    /// Other threads were creating, destroying or changing the region until the time was up.
    Unsettled {
        /// Which name.
        name: String,
        /// The peer that was doing it when the time was up, if that is known.
        by: Option<Box<DirectoryHolder>>,
    },
    /// A silent peer that cannot be proved dead is changing the table of regions.
    Suspect {
        /// Its slot.
        slot: u16,
    },
    /// There is no peer in a slot.
    NoPeer {
        /// Which slot.
        slot: u16,
    },
    /// The peer to be declared dead lives.
    PeerLives {
        /// Its slot.
        slot: u16,
        /// Its process id in its own PID namespace.
        pid: u32,
    },
    /// All thread slots of this process are taken.
    TooManyThreads {
        /// How many there are.
        threads: u16,
    },
    /// Bytes outside a mapping.
    OutOfBounds {
        /// Where the access began.
        offset: u64,
        /// How many bytes it wanted.
        len: u64,
        /// How many bytes the mapping has.
        size: u64,
    },
    /// The mapping is read-only.
    ReadOnly,
    /// A word of a lock must lie at a multiple of 8 bytes.
    Misaligned {
        /// Where it was asked for.
        offset: u64,
    },
    /// A record of another kind, or with data of another size, lies there.
    OtherRecord {
        /// Where.
        offset: u64,
        /// What the caller asked for.
        wanted: RecordTag,
        /// What it is.
        found: RecordTag,
    },
    /// Other bytes lie where a record was to be opened: one that was never used is all zeros.
    NotARecord {
        /// Where.
        offset: u64,
        /// The word that should be its tag.
        found: u64,
    },
    /// No record begins where one was looked for.
    NoRecord {
        /// Where.
        offset: u64,
    },
    /// The record is of a kind that never needs a reset.
    NoReset {
        /// Where.
        offset: u64,
        /// What it is.
        found: RecordTag,
    },
    /// The record to be opened through a read-only mapping has not been made.
    NotMade {
        /// Where.
        offset: u64,
        /// What the caller asked for.
        wanted: RecordTag,
    },
    /// This thread reads under as many locks in the bytes of regions as it can.
    TooManyReadLocks {
        /// How many.
        most: usize,
    },
    /// A semaphore or a barrier with 0, or with too many, permits or participants.
    BadCount {
        /// How many were asked for.
        asked: usize,
        /// How many there may be.
        most: usize,
    },
    /// No permit of the semaphore has been spent, so none can be given.
    NothingSpent,
    /// Living participants have all slots of the barrier.
    BarrierFull {
        /// How many there are.
        parties: usize,
    },
    /// The mutex and the condition variable were opened through different [`Space`](crate::Space)s.
    OtherSpace,
    /// A signal handler called this in the middle of another operation of its thread on the space.
    Reentered,
    /// This process was made by `fork` after the space was opened: open it anew.
    Forked,
    /// Others have declared this process dead, and its share of the space is gone: open it anew.
    Fenced,
    /// The space is damaged.
    Damaged(Damage),
    /// The operating system refused.
    Os {
        /// Which call failed.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
}

impl RegionError {
    /// What it means for the caller.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Name { .. }
            | Self::BeyondReserve { .. }
            | Self::OutOfBounds { .. }
            | Self::Misaligned { .. }
            | Self::BadCount { .. }
            | Self::NothingSpent
            | Self::OtherSpace
            | Self::OtherRecord { .. }
            | Self::NotARecord { .. }
            | Self::NoReset { .. } => ErrorKind::Invalid,
            Self::Exists { .. } => ErrorKind::Exists,
            Self::NotFound { .. }
            | Self::NoPeer { .. }
            | Self::NoRecord { .. }
            | Self::NotMade { .. } => ErrorKind::NotFound,
            Self::Mapped { .. }
            | Self::InUseHere { .. }
            | Self::PeerLives { .. }
            | Self::BarrierFull { .. } => ErrorKind::InUse,
            Self::TimedOut { .. }
            | Self::Busy(_)
            | Self::Blocked { .. }
            | Self::Unsettled { .. }
            | Self::Suspect { .. } => ErrorKind::TimedOut,
            Self::NoSpace { .. }
            | Self::NoEntry { .. }
            | Self::NoMemory { .. }
            | Self::NoRoom(_)
            | Self::TooManyMappings
            | Self::TooManyReaders
            | Self::TooManyReadLocks { .. }
            | Self::TooManyThreads { .. } => ErrorKind::NoMemory,
            Self::Damaged(_) => ErrorKind::NotASpace,
            Self::ReadOnly | Self::Reentered | Self::Forked | Self::Fenced | Self::Os { .. } => {
                ErrorKind::Other
            }
        }
    }
}

impl RegionError {
    /// Says what is wrong with a lock in the bytes of a region, or with the bytes.
    fn fmt_about_bytes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfBounds { offset, len, size } => {
                write!(f, "{len} bytes at offset {offset} do not lie in a mapping of {size} bytes")
            }
            Self::Misaligned { offset } => {
                write!(f, "offset {offset} is not a multiple of 8, as the word of a lock must be")
            }
            Self::OtherRecord { offset, wanted, found } => {
                write!(f, "at offset {offset} lies a {found}, not a {wanted}")
            }
            Self::NotARecord { offset, found } => write!(
                f,
                "the bytes at offset {offset} are no lock with a tag (its word holds {found:#x}), and not \
                 zeros either; begin one elsewhere, or with zeros"
            ),
            Self::NoRecord { offset } => write!(
                f,
                "no lock with a tag begins at offset {offset} (`commonhold locks` says where those are that are \
                 held, or not consistent)"
            ),
            Self::NoReset { offset, found } => write!(
                f,
                "at offset {offset} lies a {found}, which needs no reset: the next thread that uses it \
                 takes care of what dead owners left"
            ),
            Self::NotMade { offset, wanted } => write!(
                f,
                "nothing has been made at offset {offset} yet; open the {wanted} through a mapping that can \
                 be written first"
            ),
            Self::TooManyReadLocks { most } => write!(
                f,
                "this thread reads under {most} locks already, and can do so under no more that lie in \
                 the bytes of a region; free one first"
            ),
            Self::TooManyReaders => {
                f.write_str("this process holds 65535 read locks of it already")
            }
            Self::BadCount { asked, most } => {
                write!(f, "a semaphore or a barrier is for 1 to {most}, not for {asked}")
            }
            Self::NothingSpent => f.write_str("no permit has been spent, so none can be given"),
            Self::BarrierFull { parties } => {
                write!(
                    f,
                    "{parties} living participants have joined the barrier, and it is for no more"
                )
            }
            Self::OtherSpace => f.write_str(
                "the mutex was opened through another space than the condition variable; open both \
                 through the same",
            ),
            Self::ReadOnly => f.write_str("the mapping is read-only"),
            // `fmt` names each variant, and hands on no other.
            _ => Ok(()),
        }
    }

    /// Says what is wrong with this peer, or with another.
    fn fmt_about_peers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy(holder) => write!(f, "{holder}"),
            Self::Blocked { by } => {
                match by {
                    Some(by) => write!(f, "{by} has")?,
                    None => f.write_str("somebody has")?,
                }
                write!(
                    f,
                    " the lock on the space's file under which memory is taken, and does not give it up; {}",
                    READERS
                )
            }
            Self::Unsettled { name, by } => {
                write!(
                    f,
                    "others were creating, destroying or changing the region {name:?} until the time was up \
                     (`commonhold ls` shows it); if it is being destroyed, it goes when nobody maps it any \
                     more"
                )?;
                by.as_ref().map_or(Ok(()), |by| by.fmt_at_work(f))
            }
            Self::Suspect { slot } => write!(
                f,
                "the table of regions is held by the peer in slot {slot}, which is silent and cannot be \
                 proved dead (`commonhold peers` shows it); if it is gone for good, \
                 `commonhold reap --assume-dead {slot}` takes it over"
            ),
            Self::NoPeer { slot } => {
                write!(f, "there is no peer in slot {slot} (`commonhold peers` lists them)")
            }
            Self::PeerLives { slot, pid } => write!(
                f,
                "the peer in slot {slot} (pid {pid}) lives: stop it before it is assumed dead"
            ),
            Self::TooManyThreads { threads } => {
                write!(f, "all {threads} thread slots of this process are taken")
            }
            Self::Reentered => f.write_str(
                "this thread is in the middle of another operation on the space; do not use the space in a signal \
                 handler",
            ),
            Self::Forked => f.write_str(FORKED),
            Self::Fenced => f.write_str(FENCED),
            // As above.
            _ => Ok(()),
        }
    }
}

impl fmt::Display for RegionError {
    #[allow(clippy::too_many_lines, reason = "one arm for each variant, and none for others")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { name, why } => write!(f, "{name:?} cannot name a region: {why}"),
            Self::Exists { name } => {
                write!(f, "a region {name:?} exists, or is still being destroyed")
            }
            Self::NotFound { name } => write!(f, "there is no active region {name:?}"),
            Self::Mapped { name, handles: 0 } => {
                write!(f, "the region {name:?} is still mapped; unmap it first")
            }
            Self::Mapped { name, handles } => write!(
                f,
                "the region {name:?} is still mapped by this process; drop what keeps it mapped first \
                 (handles: {handles}; mappings, and the locks opened in them)"
            ),
            Self::InUseHere { name, handles } => write!(
                f,
                "{handles} other handles of this process use the mapping of the region {name:?}; it is unmapped \
                 when the last of them is dropped"
            ),
            Self::TimedOut { name } => {
                write!(
                    f,
                    "the region {name:?} was still mapped when the time was up; it is active again"
                )
            }
            Self::NoSpace { asked, largest } => write!(
                f,
                "no {asked} bytes in a row are free in the space; the largest free extent has {largest}"
            ),
            Self::NoEntry { regions } => {
                write!(f, "all {regions} region entries are taken; format with more (--regions)")
            }
            Self::NoRoom(room) => {
                write!(f, "{room}; make room, ask for less, or take it nevertheless (--force)")
            }
            Self::NoMemory { source } => {
                write!(
                    f,
                    "no memory for the region: {source}; make room on the space's file system"
                )
            }
            Self::BeyondReserve { asked, reserve } => write!(
                f,
                "{asked} bytes do not fit the reserve of {reserve} bytes given at creation"
            ),
            Self::Damaged(damage) => damage.fmt(f),
            Self::Os { call, source } => write!(f, "{call}: {source}"),
            Self::TooManyMappings => {
                f.write_str("this process maps the region 65535 times already")
            }
            Self::OutOfBounds { .. }
            | Self::Misaligned { .. }
            | Self::OtherRecord { .. }
            | Self::NotARecord { .. }
            | Self::NoRecord { .. }
            | Self::NoReset { .. }
            | Self::NotMade { .. }
            | Self::TooManyReadLocks { .. }
            | Self::TooManyReaders
            | Self::BadCount { .. }
            | Self::NothingSpent
            | Self::BarrierFull { .. }
            | Self::OtherSpace
            | Self::ReadOnly => self.fmt_about_bytes(f),
            Self::Busy(_)
            | Self::Blocked { .. }
            | Self::Unsettled { .. }
            | Self::Suspect { .. }
            | Self::NoPeer { .. }
            | Self::PeerLives { .. }
            | Self::TooManyThreads { .. }
            | Self::Reentered
            | Self::Forked
            | Self::Fenced => self.fmt_about_peers(f),
        }
    }
}

impl std::error::Error for RegionError {}
