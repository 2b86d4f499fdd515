//! Peers, living and dead.

use std::{fmt, time::SystemTime};

use commonhold_layout::BootId;
use commonhold_space::PeerRecord;
use commonhold_sync::Verdict;

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
    /// It is silent, and nothing proves that it lives or is dead.
    Suspect,
    /// It is dead, and has not been reaped.
    Dead,
}

impl PeerLife {
    pub(crate) const fn new(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Alive => Self::Live,
            Verdict::Suspect => Self::Suspect,
            Verdict::Dead => Self::Dead,
        }
    }
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
    /// Regions that dead peers were creating or destroying: the creations are undone, the destructions completed.
    pub settled: u32,
    /// Bytes of memory outside of all regions that were given back: a core dump of a program that maps the space
    /// may leave such memory.
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

impl PeerInfoBrief {
    pub(crate) fn new(record: &PeerRecord) -> Self {
        Self {
            slot: record.peer.get(),
            generation: record.generation,
            pid: record.identity.pid,
            name: record.identity.name.to_string(),
        }
    }
}

/// A boot id in its usual form; empty if there is none.
pub(crate) fn domain(boot: BootId) -> String {
    if boot.0 == 0 {
        return String::new();
    }
    let hex = format!("{:032x}", boot.0);
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| hex.get(range).unwrap_or(""));
    parts.join("-")
}
