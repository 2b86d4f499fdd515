//! What a space tells about itself: plain values, taken at one moment.

use std::{fmt, time::SystemTime};

use commonhold_host::Supply;
use commonhold_layout::RecordKind;
use commonhold_space::RegionHandle;

/// What a space is and what is in it.
///
/// # Examples
/// ```
/// use commonhold::{Space, SpaceInfo};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-space-info-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let SpaceInfo { url, used, free, peers: (live, slots), .. } = space.info()?;
/// println!("{url}: {used} bytes used, {free} free; {live} peers, at most {slots}");
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
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
///
/// # Examples
/// ```
/// use commonhold::{MemoryInfo, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-memory-info-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let memory: MemoryInfo = space.info()?.memory;
/// println!("{memory}"); // "tmpfs, page cache"
/// if !memory.cached {
///     println!("a lock takes as long as the device");
/// }
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
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
///
/// # Examples
/// ```
/// use commonhold::{Space, State};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-state-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// # drop(space.map_or_create("table", 4096)?);
/// match space.stat("table")?.state {
///     State::Active => println!("it can be mapped"),
///     State::Destroying => println!("it goes when nobody maps it any more"),
///     state => println!("it is {state}"),
/// }
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
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
///
/// # Examples
/// ```
/// use commonhold::{RegionInfo, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-region-info-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// # drop(space.map_or_create("table", 4096)?);
/// for RegionInfo { name, size, maps, .. } in space.regions()? {
///     println!("{name}: {size} bytes, mapped {maps} times");
/// }
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
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
///
/// # Examples
/// ```
/// use commonhold::{RegionKey, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-region-key-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let table = space.map_or_create("table", 4096)?;
/// let seen: RegionKey = table.key();
/// // Later: is the region of that name still this one?
/// assert_eq!(space.stat("table")?.id, seen);
/// # drop(table);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegionKey {
    /// Index of its entry.
    pub entry: u32,
    /// How many regions have had the entry, this one included.
    pub generation: u32,
}

impl RegionKey {
    pub(crate) const fn new(handle: RegionHandle) -> Self {
        Self { entry: handle.region.get(), generation: handle.generation }
    }
}

/// Whether a peer lives.
///
/// # Examples
/// ```
/// use commonhold::{PeerLife, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-peer-life-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// for peer in space.peers()? {
///     match peer.state {
///         PeerLife::Suspect => println!("peer {} is silent: does its machine live?", peer.slot),
///         state => println!("peer {} is {state}", peer.slot),
///     }
/// }
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
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
///
/// # Examples
/// ```
/// use commonhold::{PeerInfo, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-peer-info-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// space.set_name("worker")?;
/// for PeerInfo { slot, generation, pid, name, .. } in space.peers()? {
///     let mine = if (slot, generation) == space.peer() { ", this process" } else { "" };
///     println!("slot {slot}: process {pid} ({name}){mine}");
/// }
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
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
    /// When it attached, by the clock of its kernel.
    pub attached: SystemTime,
    /// Its name.
    pub name: String,
}

/// How a lock is held.
///
/// # Examples
/// ```
/// use commonhold::{LockKind, Mutex, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-lock-kind-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let count = space.record::<Mutex<u64>>("count")?;
/// let guard = count.lock_repairing(|_| Ok(()))?; // one number is never half changed
/// assert!(space.locks()?.iter().all(|lock| lock.kind == LockKind::Exclusive));
/// guard.leave_inconsistent()?;
/// assert!(space.locks()?.iter().all(|lock| lock.kind == LockKind::Inconsistent));
/// # drop(count);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LockKind {
    /// One owner.
    Exclusive,
    /// One or more readers.
    Shared,
    /// One owner that lets readers in, and may become their writer.
    Upgradable,
    /// One permit of a semaphore.
    Permit,
    /// Nobody holds it; its last owner died or left in the middle of a change, and nobody has repaired it.
    Inconsistent,
    /// An owner gave it up: nobody can take it until it is reset.
    Unrecoverable,
}

impl fmt::Display for LockKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Exclusive => "exclusive",
            Self::Shared => "shared",
            Self::Upgradable => "upgradable",
            Self::Permit => "permit",
            Self::Inconsistent => "inconsistent",
            Self::Unrecoverable => "unrecoverable",
        })
    }
}

/// A lock that is held, waited for, or not consistent. A lock with several readers is listed once
/// for each peer that reads, and a semaphore once for each permit.
///
/// # Examples
/// ```
/// use commonhold::{LockInfo, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-lock-info-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// for LockInfo { region, offset, kind, waiters, .. } in space.locks()? {
///     let place = offset.map_or("own lock".to_owned(), |offset| format!("lock at offset {offset}"));
///     println!("{region}, {place}: {kind}, {waiters} threads wait");
/// }
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LockInfo {
    /// The region's name.
    pub region: String,
    /// Where in the region the lock lies, in bytes; `None`: the region's own lock. (A
    /// [`RawMutex`](crate::RawMutex), which has no tag, is known only while somebody waits for it.)
    pub offset: Option<u64>,
    /// What its tag says that it is, if it has one.
    pub record: Option<RecordKind>,
    /// How it is held.
    pub kind: LockKind,
    /// Who holds it.
    pub holder: Option<Holder>,
    /// Who left it inconsistent, or gave it up, if that is known, and nobody holds it.
    pub left_by: Option<Holder>,
    /// Since when, where the holder says so (`commonhold lock` does).
    pub since: Option<SystemTime>,
    /// Threads that wait for it.
    pub waiters: usize,
}

/// The locks of a space, or of one of its regions.
///
/// # Examples
/// ```
/// use commonhold::{LockKind, LockSurvey, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-lock-survey-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let LockSurvey { locks, unsearched, .. } = space.survey_locks(None)?;
/// let to_repair = locks.iter().filter(|lock| lock.kind == LockKind::Inconsistent).count();
/// println!("{to_repair} locks are to be repaired; {} regions were too large to search", unsearched.len());
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LockSurvey {
    /// Those that are held, waited for, or not consistent, by region and offset.
    pub locks: Vec<LockInfo>,
    /// Regions that have more bytes than were looked at: of locks that nobody waits for, it knows only those that begin in
    /// the bytes before.
    pub unsearched: Vec<Unsearched>,
}

/// A region that was searched for locks up to some place only.
///
/// # Examples
/// ```
/// use commonhold::{Space, Unsearched};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-unsearched-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// for Unsearched { region, from, .. } in space.survey_locks(None)?.unsearched {
///     println!("{region}: locks from byte {from} on were not looked for");
/// }
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unsearched {
    /// Its name.
    pub region: String,
    /// Where the search ended, in bytes from the region's start.
    pub from: u64,
}

/// Who holds a lock, or held it.
///
/// # Examples
/// ```
/// use commonhold::{Holder, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-holder-of-a-lock-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let table = space.map_or_create("table", 4096)?;
/// let guard = table.lock_repairing(|_| Ok(table.write_at(0, &[0; 4096])?))?;
/// for lock in space.region_locks()? {
///     if let Some(Holder { pid, alive: true, .. }) = lock.holder {
///         println!("process {pid} has the lock of {}", lock.region);
///     }
/// }
/// guard.unlock()?;
/// # drop(table);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
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
///
/// # Examples
/// ```
/// use commonhold::{Reaped, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-reaped-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let Reaped { peers, settled, .. } = space.reap()?;
/// println!("{} dead peers; {settled} regions that they were creating or destroying", peers.len());
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
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
///
/// # Examples
/// ```
/// use commonhold::{PeerInfoBrief, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-peer-info-brief-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// for PeerInfoBrief { slot, pid, name, .. } in space.reap()?.peers {
///     println!("process {pid} ({name}) is dead, and slot {slot} is free");
/// }
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
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
