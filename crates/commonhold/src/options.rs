//! Options of opening, formatting, creating, mapping, destroying and removing.

use std::time::Duration;

use commonhold_host::Owners;

/// How to format a space. The default chooses everything by the size of the window.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use commonhold::{FormatOptions, OpenError, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-format-options-{}", std::process::id());
/// let options = FormatOptions {
///     capacity: Some(16 << 20),
///     lease: Some(Duration::from_secs(10)), // a peer that is silent for so long is declared dead
///     ..FormatOptions::default()
/// };
/// match Space::format(&url, &options) {
///     Ok(()) | Err(OpenError::Exists { .. }) => {} // an earlier run, or another process, made it
///     Err(error) => return Err(error.into()),
/// }
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct FormatOptions {
    /// Bytes of the window. Default: 64 GiB for `shm:` (which costs nothing until it is used), the
    /// present size of the file for `file:`, or 64 GiB for one that does not exist; the whole memory
    /// for `pci:` and `mem:`, which is also the most.
    pub capacity: Option<u64>,
    /// How many peers can be attached at once.
    pub peers: Option<u64>,
    /// How many threads of one peer can use locks at once.
    pub threads: Option<u64>,
    /// How many regions there can be.
    pub regions: Option<u64>,
    /// How long a peer without proof of life may be silent before others take over its locks. Without a lease, they
    /// never do.
    pub lease: Option<Duration>,
    /// Permission bits of the file; default `0o600`. A device keeps its own.
    pub mode: Option<u32>,
    /// Replace a space or other data that is there already; that is refused while live peers are attached. Also
    /// take memory for the tables even if there does not seem to be enough.
    pub force: bool,
    /// Which users' files may be read and replaced.
    pub owners: Owners,
}

/// How to open a space.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use commonhold::{OpenOptions, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-open-options-{}", std::process::id());
/// let options = OpenOptions { patience: Some(Duration::from_secs(10)), ..OpenOptions::default() };
/// let space = Space::open_or_format_with(&url, &options)?;
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions {
    /// How long to wait for others who remove or replace the space; default: 2 s.
    pub patience: Option<Duration>,
    /// Which users' spaces may be used. In a directory that all may write, such as `/dev/shm`, any user can take a
    /// name first.
    pub owners: Owners,
}

/// How to create a region.
///
/// # Examples
/// ```
/// use commonhold::{Access, CreateOptions, RegionError, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-create-options-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let options = CreateOptions { size: 4096, reserve: Some(1 << 20), ..CreateOptions::default() };
/// match space.create_with("log", &options) {
///     Ok(_) | Err(RegionError::Exists { .. }) => {} // an earlier run, or another process, made it
///     Err(error) => return Err(error.into()),
/// }
/// let log = space.map("log", Access::ReadWrite)?;
/// # drop(log);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct CreateOptions {
    /// Bytes that a mapping sees. A region of 0 bytes is a named lock.
    pub size: u64,
    /// Bytes that the region can grow to; default: its size.
    pub reserve: Option<u64>,
    /// Take memory when it is first touched, not now. If there is none then, the thread that touches it gets
    /// SIGBUS.
    pub lazy: bool,
    /// Take memory even if the file system, the machine or the memory cgroup does not seem to have enough;
    /// otherwise that is [`RegionError::NoRoom`](crate::RegionError::NoRoom). The kernel may kill a process for it.
    pub force: bool,
}

/// What a mapping is for.
///
/// # Examples
/// ```
/// use commonhold::{Access, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-access-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let table = space.map_or_create("table", 4096)?;
/// let onlooker = space.map("table", Access::ReadOnly)?;
/// table.set(0, &7_u64)?;
/// assert_eq!(onlooker.get::<u64>(0)?, 7);
/// assert!(onlooker.set(0, &8_u64).is_err());
/// # drop((table, onlooker));
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading only: its pointer leads to pages that cannot be written.
    ReadOnly,
    /// Reading and writing.
    ReadWrite,
}

/// How to destroy a region that others still map.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use commonhold::{Destroy, RegionError, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-destroy-how-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// # drop(space.map_or_create("scratch", 4096)?);
/// match space.destroy("scratch", Destroy::Within(Duration::from_secs(1))) {
///     // Others still map it: the last peer to unmap it frees it.
///     Err(RegionError::TimedOut { .. }) => drop(space.destroy("scratch", Destroy::Deferred)?),
///     result => drop(result?),
/// }
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destroy {
    /// Wait until no other peer maps it.
    Wait,
    /// Wait for so long at most; then the region is active again.
    Within(Duration),
    /// Return at once; the last peer to unmap it frees it.
    Deferred,
}

/// When to remove a space.
///
/// # Examples
/// ```
/// use commonhold::{OpenError, Removal, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-removal-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// drop(space);
/// match Space::remove(&url, Removal::IfUnused) {
///     Err(OpenError::InUse { peers, .. }) => println!("{peers} others still use it"),
///     result => result?,
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Only if no live peer is attached.
    IfUnused,
    /// In any case. Attached peers keep the space, but no process can open it any more.
    Forced,
}
