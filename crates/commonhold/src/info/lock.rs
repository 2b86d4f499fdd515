//! Locks and their holders.

use std::{fmt, time::SystemTime};

use commonhold_layout::RecordKind;

use super::PeerLife;

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
    /// One owner that lets readers in, and may become the writer.
    Upgradable,
    /// One permit of a semaphore.
    Permit,
    /// No thread holds it; an owner died, or left, in the middle of a change, and nobody has repaired the data.
    Inconsistent,
    /// An owner gave it up: no thread can take it until it is reset.
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
    /// The kind of record that its tag says, if it has a tag.
    pub record: Option<RecordKind>,
    /// How it is held.
    pub kind: LockKind,
    /// The holder.
    pub holder: Option<Holder>,
    /// The owner that left it inconsistent, or gave it up, if that is known and no thread holds it.
    pub left_by: Option<Holder>,
    /// Since when it is held, if the holder has recorded that (`commonhold lock` does).
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
    /// The locks that are held, waited for, or not consistent, by region and offset.
    pub locks: Vec<LockInfo>,
    /// Regions that were too large to be searched to the end. Behind that place, only locks that a thread waits for
    /// are listed.
    pub unsearched: Vec<Unsearched>,
}

/// A region that was not searched for locks to its end.
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

/// The peer that holds a lock, or held it.
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
    /// Whether it lives, is suspect or is dead: no thread takes over the lock of a suspect.
    pub state: PeerLife,
}
