//! A mapped region: its bytes, and the locks in it.

use std::{
    fmt,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use commonhold_space::Mapped;
use commonhold_window::Bytes;
use yoke::Yokeable;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{
    Access, BoxError, Event, LockGuard, LockResult, Plain, RawMutex, ReadGuard, Recovered,
    RegionError, RegionKey, RegionLock, Value,
    attachment::Attachment,
    lock::RegionWords,
    region::{Handle, MappedRegion},
};

/// A region mapped by this process. Clones share the mapping, and so does everything that is opened in it. It is
/// unmapped when the last of them is dropped.
///
/// All peers that map the region share its bytes. Reads and writes are copies: a neighbour's write can tear a copy,
/// but it cannot harm the program. To get bytes whole, take a lock.
///
/// # Examples
/// ```
/// use commonhold::{Mapping, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-mapping-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let frame: Mapping = space.map_or_create("frame", 4096)?;
/// let guard = frame.lock_repairing(|_| Ok(frame.write_at(0, b"nobody")?))?;
/// frame.write_at(0, b"a name")?;
/// guard.unlock()?;
///
/// let mut name = [0; 6];
/// let guard = frame.read_lock()?; // an error if a writer died half way
/// frame.read_at(0, &mut name)?;
/// # drop(guard);
/// # assert_eq!(&name, b"a name");
/// # drop(frame);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Mapping {
    reach: Handle<Reach<'static>>,
}

/// The addresses that are found once, when a region is mapped.
#[derive(Debug, Clone, Copy, Yokeable)]
struct Reach<'a> {
    lock: RegionWords<'a>,
    /// All bytes that the region may grow to.
    bytes: Bytes<'a>,
    /// Whether the region is not lazy: then reading takes no memory.
    is_plain: bool,
}

impl<'a> Reach<'a> {
    fn new(region: &'a MappedRegion) -> Result<Self, RegionError> {
        let (lock, bytes) = (RegionWords::new(region)?, region.reserve()?);
        Ok(Self { lock, bytes, is_plain: !region.is_lazy() })
    }

    /// Whether `len` bytes that begin at `offset` can be reached now.
    #[inline]
    fn has(&self, offset: u64, len: usize) -> bool {
        let (size, len) = (self.lock.region().size(), len as u64);
        len <= size && offset <= size - len && !self.lock.context().is_forked()
    }

    /// The word that begins at `offset`, if it can be read with one load.
    #[inline]
    fn word(&self, offset: u64) -> Option<&'a AtomicU64> {
        if self.is_plain && self.has(offset, 8) { self.bytes.word(offset) } else { None }
    }

    /// Why `len` bytes at `offset` cannot be reached.
    #[cold]
    fn unreachable(&self, offset: u64, len: usize) -> RegionError {
        let outside = self.lock.region().outside(offset, len as u64);
        if self.lock.context().is_forked() { RegionError::Forked } else { outside }
    }

    #[inline]
    fn read(&self, offset: u64, to: &mut [u8]) -> Result<(), RegionError> {
        if self.is_plain && self.has(offset, to.len()) && self.bytes.read(offset, to).is_ok() {
            return Ok(());
        }
        self.read_slowly(offset, to)
    }

    #[cold]
    fn read_slowly(&self, offset: u64, to: &mut [u8]) -> Result<(), RegionError> {
        let read = self.has(offset, to.len())
            && (self.lock.region().read_past_holes(offset, to)
                || self.bytes.read(offset, to).is_ok());
        if read { Ok(()) } else { Err(self.unreachable(offset, to.len())) }
    }

    #[inline]
    fn write(&self, offset: u64, from: &[u8]) -> Result<(), RegionError> {
        let region = self.lock.region();
        let written = region.access() == Access::ReadWrite
            && self.has(offset, from.len())
            && self.bytes.write(offset, from).is_ok();
        if written { Ok(()) } else { Err(self.unwritable(offset, from.len())) }
    }

    #[cold]
    fn unwritable(&self, offset: u64, len: usize) -> RegionError {
        let writable = self.lock.region().writable();
        writable.err().unwrap_or_else(|| self.unreachable(offset, len))
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.region().fmt(f)
    }
}

impl Mapping {
    pub(crate) fn new(
        attachment: &Arc<Attachment>,
        name: &str,
        mapped: Mapped,
        access: Access,
    ) -> Result<Self, RegionError> {
        let region = MappedRegion::new(attachment, name, mapped, access)?;
        let reach = MappedRegion::find::<Reach<'static>>(&region, |region| Reach::new(region))?;
        Ok(Self { reach })
    }

    #[inline]
    pub(crate) fn region(&self) -> &Arc<MappedRegion> {
        self.reach.backing_cart()
    }

    /// The region's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.region().name()
    }

    /// The key that tells the region from every other that had, or will have, its name.
    #[must_use]
    pub fn key(&self) -> RegionKey {
        self.region().key()
    }

    /// Bytes that can be reached.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.region().size()
    }

    /// Where the region begins in the file of [`Space::duplicate_fd`](crate::Space::duplicate_fd), in bytes.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.region().file_offset()
    }

    /// Reads the region's current size, and returns it: a peer may have resized it. All clones see the new size.
    ///
    /// # Errors
    /// [`RegionError::Forked`]; [`RegionError::NoMemory`] if there is no memory behind the new size: then the
    /// mapping keeps the old one; [`RegionError::Damaged`].
    pub fn refresh(&self) -> Result<u64, RegionError> {
        self.region().refresh()
    }

    /// Copies bytes out, from `offset` on. For a lazy region this is a system call, so that reading takes no
    /// memory: bytes that were never touched are zero.
    ///
    /// # Errors
    /// [`RegionError::OutOfBounds`]; nothing has been copied then.
    #[inline]
    pub fn read_at(&self, offset: u64, to: &mut [u8]) -> Result<(), RegionError> {
        self.reach.get().read(offset, to)
    }

    /// Copies bytes in, from `offset` on.
    ///
    /// # Errors
    /// [`RegionError::OutOfBounds`], [`RegionError::ReadOnly`]; nothing has been written then.
    #[inline]
    pub fn write_at(&self, offset: u64, from: &[u8]) -> Result<(), RegionError> {
        self.reach.get().write(offset, from)
    }

    /// Copies a value out, of any plain type: one for which every bit pattern is valid.
    ///
    /// # Errors
    /// As for [`read_at`](Self::read_at).
    #[inline]
    pub fn get<T: FromBytes + IntoBytes>(&self, offset: u64) -> Result<T, RegionError> {
        if size_of::<T>() == 8
            && let Some(word) = self.reach.get().word(offset)
            && let Ok(value) = T::read_from_bytes(&word.load(Ordering::Relaxed).to_le_bytes())
        {
            return Ok(value);
        }
        let mut value: T = zerocopy::FromZeros::new_zeroed();
        self.read_at(offset, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Copies a value in.
    ///
    /// # Errors
    /// As for [`write_at`](Self::write_at).
    #[inline]
    pub fn set<T: IntoBytes + Immutable>(&self, offset: u64, value: &T) -> Result<(), RegionError> {
        self.write_at(offset, value.as_bytes())
    }

    /// A handle of the value at `offset`, a multiple of 8: faster than [`get`](Self::get) and [`set`](Self::set)
    /// for a value that is used often.
    ///
    /// # Errors
    /// [`RegionError::Misaligned`], [`RegionError::OutOfBounds`], [`RegionError::Forked`].
    pub fn value<T: Plain>(&self, offset: u64) -> Result<Value<T>, RegionError> {
        Value::new(self.region(), offset)
    }

    /// The address of the first byte, for callers with `unsafe` code of their own. The bytes stay mapped as long as
    /// this value, or a clone of it, lives. Others write them at any time. Writing through the pointer of a
    /// read-only mapping, or using it in a forked child, ends the process.
    #[must_use]
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.region().as_ptr()
    }

    /// Unmaps the region, if this is the only handle of the mapping. Unlike dropping it, this reports errors.
    ///
    /// # Errors
    /// [`RegionError::InUseHere`] if there is a clone, or something opened in the mapping: then dropping the last
    /// of them unmaps. [`RegionError::Fenced`] if this process was declared dead, [`RegionError::Forked`].
    pub fn unmap(self) -> Result<(), RegionError> {
        match Arc::try_unwrap(self.reach.into_backing_cart()) {
            Ok(region) => region.unmap(),
            Err(shared) => Err(RegionError::InUseHere {
                name: shared.name().to_owned(),
                handles: Arc::strong_count(&shared).saturating_sub(1),
            }),
        }
    }

    /// A handle of the region's own lock: faster than [`lock`](Self::lock) if it is used often.
    ///
    /// # Errors
    /// [`RegionError::Forked`].
    pub fn region_lock(&self) -> Result<RegionLock, RegionError> {
        RegionLock::new(self.region())
    }

    #[inline(always)]
    fn words(&self) -> &RegionWords<'_> {
        &self.reach.get().lock
    }

    /// Takes the region's own lock alone, and waits for it without a limit.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`](crate::LockError::OwnerDied) if an owner died, or left, in the middle of a change:
    /// the lock is free, and stays inconsistent until a thread [repairs](Self::lock_repairing) the data.
    /// [`Deadlock`](crate::LockError::Deadlock) if this thread holds it already;
    /// [`Unrecoverable`](crate::LockError::Unrecoverable).
    #[inline(always)]
    pub fn lock(&self) -> LockResult<LockGuard<'_>> {
        self.words().lock()
    }

    /// As [`lock`](Self::lock), but does not wait; `None` if a living owner holds it.
    ///
    /// # Errors
    /// As for [`lock`](Self::lock).
    pub fn try_lock(&self) -> LockResult<Option<LockGuard<'_>>> {
        self.words().try_lock()
    }

    /// As [`lock`](Self::lock), but waits for `timeout` at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`](crate::LockError::TimedOut) names the owner; and as for [`lock`](Self::lock).
    pub fn lock_for(&self, timeout: Duration) -> LockResult<LockGuard<'_>> {
        self.words().lock_for(timeout)
    }

    /// Takes the region's own lock alone. If the last owner died in the middle of a change, `repair` makes the data
    /// consistent first.
    ///
    /// # Errors
    /// [`LockError::RepairFailed`](crate::LockError::RepairFailed), after which the lock is free, and as
    /// inconsistent as before; [`Deadlock`](crate::LockError::Deadlock);
    /// [`Unrecoverable`](crate::LockError::Unrecoverable).
    ///
    /// # Examples
    /// The data here are a pair of equal numbers:
    /// ```
    /// use commonhold::{Access, Space};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let url = format!("shm:doc-lock-{}", std::process::id());
    /// # let space = Space::open_or_format(&url)?;
    /// let pair = space.map_or_create("pair", 16)?;
    /// # let neighbour = Space::open(&url)?;
    /// # let theirs = neighbour.map("pair", Access::ReadWrite)?;
    /// # std::mem::forget(theirs.lock_repairing(|_| Ok(()))?);
    /// # theirs.set(0, &7_u64)?;
    /// # drop((theirs, neighbour));
    /// let guard = pair.lock_repairing(|_| {
    ///     // A neighbour has written the first number, and was killed before it wrote the second.
    ///     let first: u64 = pair.get(0)?;
    ///     Ok(pair.set(8, &first)?)
    /// })?;
    /// assert_eq!(pair.get::<u64>(0)?, pair.get::<u64>(8)?);
    /// guard.unlock()?;
    /// # drop(pair);
    /// # drop(space);
    /// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn lock_repairing<'a>(
        &'a self,
        repair: impl FnOnce(&LockGuard<'a>) -> Result<(), BoxError>,
    ) -> LockResult<LockGuard<'a>> {
        self.words().lock_repairing(repair)
    }

    /// Takes the region's own lock alone, in any state: the caller decides what to do with the data.
    ///
    /// # Errors
    /// [`Deadlock`](crate::LockError::Deadlock); [`Unrecoverable`](crate::LockError::Unrecoverable).
    pub fn lock_recover(&self) -> LockResult<Recovered<LockGuard<'_>>> {
        self.words().lock_recover(None)
    }

    /// As [`lock_recover`](Self::lock_recover), but waits for `timeout` at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`](crate::LockError::TimedOut), and as for [`lock_recover`](Self::lock_recover).
    pub fn lock_recover_for(&self, timeout: Duration) -> LockResult<Recovered<LockGuard<'_>>> {
        self.words().lock_recover(Some(timeout))
    }

    /// Takes the region's own lock together with other readers.
    ///
    /// A thread may take it several times, as long as no writer waits in between: the writer and the thread would
    /// wait for each other.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`](crate::LockError::OwnerDied) if a writer died, or left, in the middle of a change;
    /// [`Deadlock`](crate::LockError::Deadlock) if this thread holds the lock alone; or if it reads already, and a
    /// writer that waits for it does not give up within a tenth of a second.
    #[inline(always)]
    pub fn read_lock(&self) -> LockResult<ReadGuard<'_>> {
        self.words().read_lock()
    }

    /// As [`read_lock`](Self::read_lock), but does not wait; `None` if a living thread writes.
    ///
    /// # Errors
    /// As for [`read_lock`](Self::read_lock).
    pub fn try_read_lock(&self) -> LockResult<Option<ReadGuard<'_>>> {
        self.words().try_read_lock()
    }

    /// As [`read_lock`](Self::read_lock), but waits for `timeout` at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`](crate::LockError::TimedOut), and as for [`read_lock`](Self::read_lock).
    pub fn read_lock_for(&self, timeout: Duration) -> LockResult<ReadGuard<'_>> {
        self.words().read_lock_for(timeout)
    }

    /// Makes the region's lock as good as new, after the caller has made the data anew.
    ///
    /// # Errors
    /// [`LockError::TimedOut`](crate::LockError::TimedOut) if an owner holds it.
    pub fn reset_lock(&self) -> LockResult<()> {
        self.words().reset()
    }

    /// The mutex whose word lies at `offset`, a multiple of 8. Eight zero bytes are a free mutex.
    ///
    /// # Errors
    /// [`RegionError::Misaligned`], [`RegionError::OutOfBounds`], [`RegionError::ReadOnly`],
    /// [`RegionError::Forked`].
    pub fn mutex(&self, offset: u64) -> Result<RawMutex, RegionError> {
        RawMutex::new(self.region(), offset)
    }

    /// The event whose word lies at `offset`, a multiple of 8. Eight zero bytes are a new event.
    ///
    /// # Errors
    /// As for [`mutex`](Self::mutex).
    pub fn event(&self, offset: u64) -> Result<Event, RegionError> {
        Event::new(self.region(), |region| {
            let (word, at) = region.word(offset)?;
            Ok(commonhold_sync::Event::new(word, at))
        })
    }

    /// For [`records!`](crate::records): checks that `len` bytes lie in the mapping.
    #[doc(hidden)]
    pub fn check(&self, offset: u64, len: u64) -> Result<(), RegionError> {
        self.region().bytes(offset, len).map(drop)
    }
}
