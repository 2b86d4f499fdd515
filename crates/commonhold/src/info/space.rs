//! A space, and the memory it lies in.

use std::{fmt, time::SystemTime};

use commonhold_host::{Cache, MappedWindow, Supply};

/// A space and what is in it.
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
    /// Bytes of the window that have memory, or blocks of a disk, now. `None` where that cannot be told.
    pub resident: Option<u64>,
    /// What limits how many bytes can have memory. `None` for a device, whose memory is all there.
    pub supply: Option<Supply>,
    /// How waiters wait now: "futex" (the kernel wakes them), "poll" (they look again and again, because no kernel
    /// can wake all of them), or "futex and poll" (several kernels share the space, and cannot wake each other's
    /// threads).
    pub waiting: &'static str,
    /// Whether its name now means another space, or none.
    pub orphaned: bool,
}

/// The memory of a window, and its measured speed.
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
    /// Whether a lock there is as fast as in ordinary memory, as far as is known.
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

impl MemoryInfo {
    pub(crate) fn new(mapped: &MappedWindow) -> Self {
        let memory = mapped.memory();
        let cost = memory.and_then(|memory| memory.cost);
        Self {
            kind: mapped.kind().to_string(),
            size: mapped.window().len(),
            cache: memory.map(|memory| memory.cache.name()),
            cached: memory.is_none_or(|memory| memory.cache != Cache::Uncached),
            atomic_ns: cost.map(|cost| cost.atomic_ns),
            plain_ns: cost.map(|cost| cost.plain_ns),
        }
    }
}
