use super::*;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::time::Duration;

/// How to format a space; `default()` gives defaults for everything.
#[derive(Debug, Clone, Default)]
pub struct FormatOptions {
    pub capacity: Option<u64>, // bytes; default: 64 GiB for shm:, the file's size for file:
    pub peers: Option<u64>,
    pub threads: Option<u64>,
    pub regions: Option<u64>,
    pub lease: Option<Duration>,
    pub mode: Option<u32>, // permission bits of the file; default 0o600
    pub force: bool,
}
#[derive(Debug, Clone, Copy, Default)]
pub struct CreateOptions {
    pub size: u64,
    pub reserve: Option<u64>,
    pub lazy: bool,
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    ReadOnly,
    ReadWrite,
}
#[derive(Debug, Clone, Copy)]
pub enum Destroy {
    Wait,
    Within(Duration),
    Deferred,
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    IfUnused,
    Forced,
}

/// An attached space. Clones share one attachment (one peer). Detaches when the last clone goes.
#[derive(Debug, Clone)]
pub struct Space;
impl Space {
    /// Attaches to an existing space. `url` as in DESIGN section 2 (`shm:NAME`, `file:PATH`).
    pub fn open(_url: &str) -> Result<Space, OpenError> {
        todo!()
    }
    /// As `open`, but a `shm:` space that does not exist is formatted with defaults first.
    pub fn open_or_format(_url: &str) -> Result<Space, OpenError> {
        todo!()
    }
    /// Formats a space; does not attach.
    pub fn format(_url: &str, _options: &FormatOptions) -> Result<(), OpenError> {
        todo!()
    }
    /// Removes a `shm:` or `file:` space.
    pub fn remove(_url: &str, _removal: Removal) -> Result<(), OpenError> {
        todo!()
    }
    /// Names this peer for `peers` (default: the command's name).
    pub fn set_name(&self, _name: &str) -> Result<(), RegionError> {
        todo!()
    }
    /// This peer's slot and generation.
    pub fn peer(&self) -> (u16, u32) {
        todo!()
    }
    pub fn create(&self, _name: &str, _size: u64) -> Result<Region, RegionError> {
        todo!()
    }
    pub fn create_with(
        &self,
        _name: &str,
        _options: &CreateOptions,
    ) -> Result<Region, RegionError> {
        todo!()
    }
    /// Finds an active region.
    pub fn region(&self, _name: &str) -> Result<Region, RegionError> {
        todo!()
    }
    /// Finds and maps an active region: the fast path.
    pub fn map(&self, _name: &str, _access: Access) -> Result<Mapping, RegionError> {
        todo!()
    }
    /// Returns which region was destroyed.
    pub fn destroy(&self, _name: &str, _how: Destroy) -> Result<RegionKey, RegionError> {
        todo!()
    }
    pub fn resize(&self, _name: &str, _size: u64) -> Result<(), RegionError> {
        todo!()
    }
    pub fn stat(&self, _name: &str) -> Result<RegionInfo, RegionError> {
        todo!()
    }
    pub fn info(&self) -> Result<SpaceInfo, RegionError> {
        todo!()
    }
    pub fn regions(&self) -> Result<Vec<RegionInfo>, RegionError> {
        todo!()
    }
    pub fn peers(&self) -> Result<Vec<PeerInfo>, RegionError> {
        todo!()
    }
    pub fn locks(&self) -> Result<Vec<LockInfo>, RegionError> {
        todo!()
    }
    /// Looks for dead peers now and frees what they left.
    pub fn reap(&self) -> Result<Reaped, RegionError> {
        todo!()
    }
    /// A descriptor of the space's file without this peer's evidence on it, fit to be inherited.
    pub fn duplicate_fd(&self) -> Result<OwnedFd, RegionError> {
        todo!()
    }
}

/// A region that was found or created: which one, not a mapping of it.
#[derive(Debug, Clone)]
pub struct Region;
impl Region {
    pub fn name(&self) -> &str {
        todo!()
    }
    pub fn key(&self) -> RegionKey {
        todo!()
    }
    pub fn size(&self) -> u64 {
        todo!()
    }
    pub fn map(&self, _access: Access) -> Result<Mapping, RegionError> {
        todo!()
    }
}

/// A region mapped by this process. `Send + Sync`. Unmaps when dropped.
#[derive(Debug)]
pub struct Mapping;
impl Mapping {
    pub fn name(&self) -> &str {
        todo!()
    }
    pub fn key(&self) -> RegionKey {
        todo!()
    }
    pub fn size(&self) -> u64 {
        todo!()
    }
    /// Where the region lies in the space's file, bytes.
    pub fn offset(&self) -> u64 {
        todo!()
    }
    /// Looks at the region's size again after a `resize`.
    pub fn refresh(&mut self) -> Result<u64, RegionError> {
        todo!()
    }
    pub fn read(&self, _offset: u64, _to: &mut [u8]) -> Result<(), RegionError> {
        todo!()
    }
    pub fn write(&self, _offset: u64, _from: &[u8]) -> Result<(), RegionError> {
        todo!()
    }
    /// Any plain type: `T: zerocopy::FromBytes + IntoBytes` as the operation needs.
    pub fn get<T: zerocopy::FromBytes + zerocopy::IntoBytes>(
        &self,
        _offset: u64,
    ) -> Result<T, RegionError> {
        todo!()
    }
    pub fn set<T: zerocopy::IntoBytes + zerocopy::Immutable>(
        &self,
        _offset: u64,
        _value: &T,
    ) -> Result<(), RegionError> {
        todo!()
    }
    pub fn as_ptr(&self) -> NonNull<u8> {
        todo!()
    }
    /// Unmaps; the result that dropping cannot give.
    pub fn unmap(self) -> Result<(), RegionError> {
        todo!()
    }

    // The region's own lock. Guards borrow the mapping.
    pub fn lock(&self) -> Result<LockGuard<'_>, LockError<LockGuard<'_>>> {
        todo!()
    }
    pub fn try_lock(&self) -> Result<LockGuard<'_>, LockError<LockGuard<'_>>> {
        todo!()
    } // TimedOut if held
    pub fn lock_for(&self, _timeout: Duration) -> Result<LockGuard<'_>, LockError<LockGuard<'_>>> {
        todo!()
    }
    pub fn read_lock(&self) -> Result<ReadGuard<'_>, LockError<ReadGuard<'_>>> {
        todo!()
    }
    pub fn try_read_lock(&self) -> Result<ReadGuard<'_>, LockError<ReadGuard<'_>>> {
        todo!()
    }
    pub fn read_lock_for(
        &self,
        _timeout: Duration,
    ) -> Result<ReadGuard<'_>, LockError<ReadGuard<'_>>> {
        todo!()
    }
    /// Makes an unrecoverable region lock usable again (the caller has repaired the data).
    pub fn reset_lock(&self) -> Result<(), RegionError> {
        todo!()
    }

    // Locks that lie in the region's data: 8 bytes each at a multiple of 8; zero bytes are a free lock.
    pub fn mutex(&self, _offset: u64) -> Result<Mutex<'_>, RegionError> {
        todo!()
    }
    pub fn event(&self, _offset: u64) -> Result<Event<'_>, RegionError> {
        todo!()
    }
}

/// Exclusive hold of a region's lock. Dropping unlocks; if it was obtained as `OwnerDied` and neither
/// marked consistent nor left, dropping makes the lock unrecoverable; dropping in a panic leaves it inconsistent.
#[derive(Debug)]
pub struct LockGuard<'a>(std::marker::PhantomData<&'a ()>);
impl LockGuard<'_> {
    pub fn mark_consistent(&self) -> Result<(), RegionError> {
        todo!()
    }
    pub fn is_inconsistent(&self) -> bool {
        todo!()
    }
    /// Records for `locks` since when the lock is held (costs a clock reading, so it is not automatic).
    pub fn stamp(&self) {
        todo!()
    }
    /// Unlocks and leaves the lock inconsistent for the next.
    pub fn leave(self) -> Result<(), RegionError> {
        todo!()
    }
    /// Unlocks; `Fenced` if this process was declared dead meanwhile.
    pub fn unlock(self) -> Result<(), RegionError> {
        todo!()
    }
}
/// Shared hold of a region's lock.
#[derive(Debug)]
pub struct ReadGuard<'a>(std::marker::PhantomData<&'a ()>);
impl ReadGuard<'_> {
    pub fn unlock(self) -> Result<(), RegionError> {
        todo!()
    }
}
/// A mutex in a region's data.
#[derive(Debug, Clone, Copy)]
pub struct Mutex<'a>(std::marker::PhantomData<&'a ()>);
impl<'a> Mutex<'a> {
    pub fn lock(&self) -> Result<MutexGuard<'a>, LockError<MutexGuard<'a>>> {
        todo!()
    }
    pub fn try_lock(&self) -> Result<MutexGuard<'a>, LockError<MutexGuard<'a>>> {
        todo!()
    }
    pub fn lock_for(
        &self,
        _timeout: Duration,
    ) -> Result<MutexGuard<'a>, LockError<MutexGuard<'a>>> {
        todo!()
    }
    pub fn reset(&self) -> Result<(), RegionError> {
        todo!()
    }
}
/// As `LockGuard`.
#[derive(Debug)]
pub struct MutexGuard<'a>(std::marker::PhantomData<&'a ()>);
impl MutexGuard<'_> {
    pub fn mark_consistent(&self) -> Result<(), RegionError> {
        todo!()
    }
    pub fn is_inconsistent(&self) -> bool {
        todo!()
    }
    pub fn leave(self) -> Result<(), RegionError> {
        todo!()
    }
    pub fn unlock(self) -> Result<(), RegionError> {
        todo!()
    }
}
/// An event in a region's data: a sequence number that can be waited for.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a>(std::marker::PhantomData<&'a ()>);
impl Event<'_> {
    /// The number now; pass it to `wait`.
    pub fn sequence(&self) -> u64 {
        todo!()
    }
    pub fn signal(&self) -> Result<(), RegionError> {
        todo!()
    }
    pub fn broadcast(&self) -> Result<(), RegionError> {
        todo!()
    }
    /// Waits until the number is no longer `seen`; returns the new one, or `None` when the time is up.
    pub fn wait(&self, _seen: u64, _timeout: Option<Duration>) -> Result<Option<u64>, RegionError> {
        todo!()
    }
}
