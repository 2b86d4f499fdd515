//! What a space tells about itself: plain values, taken at one moment.

use std::{fmt, time::SystemTime};

use commonhold_host::Supply;
use commonhold_space::RegionHandle;

/// What a space is and what is in it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SpaceInfo {
    /// Its URL.
    pub url: String,
    /// Version of the format.
    pub version: u64,
    /// Random identity.
    pub uuid: u128,
    /// When it was formatted.
    pub created: SystemTime,
    /// Bytes of the window.
    pub capacity: u64,
    /// Bytes taken by tables.
    pub tables: u64,
    /// Bytes of the extents of all regions.
    pub used: u64,
    /// Bytes that regions could still get.
    pub free: u64,
    /// Bytes of the largest free extent.
    pub largest_free: u64,
    /// Bytes that extents are aligned to.
    pub page: u64,
    /// Peers attached now, and slots for them.
    pub peers: (usize, u16),
    /// Regions there are now, and entries for them.
    pub regions: (usize, u32),
    /// Milliseconds of the lease; 0: none.
    pub lease_ms: u64,
    /// What kind of memory it is.
    pub memory: MemoryInfo,
    /// Bytes of the window that have memory now, or blocks of a disk; `None` where that cannot be told.
    pub resident: Option<u64>,
    /// What limits how many of them can have memory; `None` of a device, whose memory is all there.
    pub supply: Option<Supply>,
    /// How waiters wait now: "futex" (the kernel wakes them), "poll" (they look again, where no kernel
    /// can wake everybody), or "futex and poll" (kernels that share the space cannot wake each other).
    pub waiting: &'static str,
    /// Whether its name means another space by now, or none.
    pub orphaned: bool,
}

/// What a window is made of, and what was measured there.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MemoryInfo {
    /// What kind of memory it is, in words ("tmpfs", "PCI device 0000:00:04.0").
    pub kind: String,
    /// Bytes of the window.
    pub size: u64,
    /// "page cache" for a file, and for memory of a device "write-back" or "uncached"; `None` if it
    /// holds no space and was not measured.
    pub cache: Option<&'static str>,
    /// Whether a lock costs there what it does in any memory, as far as is known.
    pub cached: bool,
    /// Nanoseconds of an atomic operation, if it was measured: for memory of a device.
    pub atomic_ns: Option<f64>,
    /// Nanoseconds of a load, likewise.
    pub plain_ns: Option<f64>,
}

impl fmt::Display for MemoryInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        if let Some(cache) = self.cache {
            write!(f, ", {cache}")?;
        }
        if let (Some(atomic), Some(plain)) = (self.atomic_ns, self.plain_ns) {
            write!(f, ": an atomic operation takes {atomic:.1} ns, a load {plain:.1} ns")?;
        }
        if !self.cached {
            f.write_str(
                "; locks and copies are as slow as that; if it is a PCI device, its memory may be cached \
                 as mem:BASE+SIZE (line 3 of `resource` in sysfs)",
            )?;
        }
        Ok(())
    }
}

/// In which part of its life a region is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Its memory is being taken.
    Creating,
    /// It can be mapped.
    Active,
    /// It waits for its last mapping to go, or its memory is being given back.
    Destroying,
    /// Its entry makes no sense: it cannot be used, and only its entry is known.
    Damaged,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Creating => "creating",
            Self::Active => "active",
            Self::Destroying => "destroying",
            Self::Damaged => "damaged",
        })
    }
}

/// A region, as `ls` and `stat` show it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RegionInfo {
    /// Its name; empty if it is damaged.
    pub name: String,
    /// Entry and generation: together they name this region for ever, whatever comes later under
    /// the same name.
    pub id: RegionKey,
    /// Bytes that a mapping sees.
    pub size: u64,
    /// Bytes that it can grow to.
    pub reserve: u64,
    /// Whether its memory is taken at first touch.
    pub lazy: bool,
    /// In which part of its life it is.
    pub state: State,
    /// Mappings of all live peers.
    pub maps: u64,
    /// Where its extent begins, in bytes from the start of the window.
    pub offset: u64,
    /// Bytes of its extent that have memory now, or blocks of a disk; `None` where that cannot be told, and in lists,
    /// where it is not asked.
    pub resident: Option<u64>,
    /// When it was created.
    pub created: SystemTime,
    /// Its lock, if it is held, waited for or not consistent.
    pub lock: Option<LockInfo>,
}

/// What tells a region from every other that ever was in its space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegionKey {
    /// Index of its entry.
    pub entry: u32,
    /// How many regions have had the entry, this one included.
    pub generation: u32,
}

impl RegionKey {
    pub(crate) const fn of(handle: RegionHandle) -> Self {
        Self { entry: handle.region.get(), generation: handle.generation }
    }
}

/// Whether a peer lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerLife {
    /// There is evidence that it lives.
    Live,
    /// It is silent, and nothing proves anything.
    Suspect,
    /// It is dead, and has not been reaped.
    Dead,
}

impl fmt::Display for PeerLife {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Live => "live",
            Self::Suspect => "suspect",
            Self::Dead => "dead",
        })
    }
}

/// A peer.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PeerInfo {
    /// Its slot.
    pub slot: u16,
    /// Which of the slot's peers it is.
    pub generation: u32,
    /// Its process id in its own PID namespace.
    pub pid: u32,
    /// The boot id of its kernel, in the usual form with dashes.
    pub domain: String,
    /// Whether it lives.
    pub state: PeerLife,
    /// Its name.
    pub name: String,
}

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LockKind {
    /// One owner.
    Exclusive,
    /// One or more readers.
    Shared,
    /// One owner that lets readers in, and may become their writer.
    Upgradable,
    /// Nobody holds it; its last owner died or gave up, and nobody has repaired it.
    Inconsistent,
    /// Nobody can take it until it is re-initialised.
    Unrecoverable,
}

impl fmt::Display for LockKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Exclusive => "exclusive",
            Self::Shared => "shared",
            Self::Upgradable => "upgradable",
            Self::Inconsistent => "inconsistent",
            Self::Unrecoverable => "unrecoverable",
        })
    }
}

/// A lock that is held, waited for, or not consistent. A lock with several readers is listed once
/// for each peer that reads.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LockInfo {
    /// The region's name.
    pub region: String,
    /// Offset of the lock's word in the region, in bytes; `None`: the region's own lock. (A lock in the
    /// bytes of a region is known only while somebody waits for it.)
    pub offset: Option<u64>,
    /// How it is held.
    pub kind: LockKind,
    /// Who holds it.
    pub holder: Option<Holder>,
    /// Since when, where the holder says so (`commonhold lock` does).
    pub since: Option<SystemTime>,
    /// Threads that wait for it.
    pub waiters: usize,
}

/// Who holds a lock.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Holder {
    /// Peer slot.
    pub slot: u16,
    /// Which of the slot's peers.
    pub generation: u32,
    /// Its process id in its own PID namespace; 0 if the peer is gone.
    pub pid: u32,
    /// The boot id of its kernel; empty if the peer is gone.
    pub domain: String,
    /// Whether it is known to live.
    pub alive: bool,
    /// If not, whether it is known to be dead: nobody takes the lock of a suspect.
    pub state: PeerLife,
}

/// What reaping found and freed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reaped {
    /// Dead peers whose slots are free now.
    pub peers: Vec<PeerInfoBrief>,
    /// Regions that the dead were creating or destroying: undone or completed.
    pub settled: u32,
    /// Bytes of memory that were given back, which lay where no region is: a core dump of a program that maps the
    /// space may leave such memory.
    pub given_back: u64,
}

/// A dead peer that was reaped.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerInfoBrief {
    /// Its slot.
    pub slot: u16,
    /// Which of the slot's peers it was.
    pub generation: u32,
    /// Its process id in its own PID namespace.
    pub pid: u32,
    /// Its name.
    pub name: String,
}
