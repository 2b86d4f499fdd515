//! What callers may choose.

use std::time::Duration;

/// How to format a space. The default chooses everything by the size of the window.
///
/// ```
/// let options = commonhold::FormatOptions { capacity: Some(1 << 20), ..Default::default() };
/// # let _ = options;
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
}

/// How large a region is to be.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading only: its pointer leads to pages that cannot be written.
    ReadOnly,
    /// Reading and writing.
    ReadWrite,
}

/// How to destroy a region that others still map.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Only if no live peer is attached.
    IfUnused,
    /// In any case. Those who are attached keep what they have, but nobody will find it any more.
    Forced,
}
