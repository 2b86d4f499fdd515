//! A region.

use std::{fmt, time::SystemTime};

use commonhold_space::RegionHandle;

use super::LockInfo;

/// The stage of life of a region.
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
    /// It waits for its last mapping to end, or its memory is being given back.
    Destroying,
    /// Its entry makes no sense: the region cannot be used, and only the index of the entry is known.
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
    /// The stage of its life.
    pub state: State,
    /// Mappings of all live peers.
    pub maps: u64,
    /// Where its extent begins, in bytes from the start of the window.
    pub offset: u64,
    /// Bytes of its extent that have memory, or blocks of a disk, now. `None` where that cannot be told, and in
    /// lists, which do not ask.
    pub resident: Option<u64>,
    /// When it was created.
    pub created: SystemTime,
    /// Its lock, if it is held, waited for or not consistent.
    pub lock: Option<LockInfo>,
}

/// The identity of a region: no other region of its space ever has the same.
///
/// # Examples
/// ```
/// use commonhold::{RegionKey, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-region-key-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let table = space.map_or_create("table", 4096)?;
/// let seen: RegionKey = table.key();
/// // Later: is the region of that name still the same?
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
    /// How many regions have had the entry, including this one.
    pub generation: u32,
}

impl RegionKey {
    pub(crate) const fn new(handle: RegionHandle) -> Self {
        Self { entry: handle.region.get(), generation: handle.generation }
    }
}
