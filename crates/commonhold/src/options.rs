//! What callers may choose.

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
///     lease: Some(Duration::from_secs(10)), // who is silent for so long is taken for dead
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
    /// Peers that can be attached at once.
    pub peers: Option<u64>,
    /// Threads of one peer that can use locks at once.
    pub threads: Option<u64>,
    /// Regions there can be.
    pub regions: Option<u64>,
    /// How long a peer without proof of life may be silent before its locks are taken over. Without
    /// it, they never are.
    pub lease: Option<Duration>,
    /// Permission bits of the file; default `0o600`. A device keeps its own.
    pub mode: Option<u32>,
    /// Replace a space, or other data, that is there already: refused while live peers are attached. And take memory
    /// for the tables even if it does not seem to be there.
    pub force: bool,
    /// Whose file may be looked at, and replaced.
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
    /// Whose spaces are used. A name in a directory that all may write, as `/dev/shm` is, belongs to whoever comes
    /// first.
    pub owners: Owners,
}

/// How large a region is to be.
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
    /// Bytes that a mapping sees. 0 makes a named lock.
    pub size: u64,
    /// Bytes that it can grow to; default: its size.
    pub reserve: Option<u64>,
    /// Take memory when it is first touched, not now. If there is none then, the toucher gets SIGBUS.
    pub lazy: bool,
    /// Take memory even if the file system, the machine or the memory cgroup does not seem to have it, which is
    /// [`RegionError::NoRoom`](crate::RegionError::NoRoom) otherwise. The kernel may end a process for it.
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
///     // Others still map it: whoever unmaps it last frees it.
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
    /// Wait until nobody does.
    Wait,
    /// Wait so long at most; then the region is active again.
    Within(Duration),
    /// Return at once; whoever unmaps it last frees it.
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
    /// In any case. Those who are attached keep what they have, but nobody will find it any more.
    Forced,
}
