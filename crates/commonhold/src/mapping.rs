//! A mapped region: its bytes, and the locks in it.

use std::{fmt, ptr::NonNull, sync::Arc, time::Duration};

use commonhold_host::ReadOnlyMap;
use commonhold_layout::{Extent, Offset};
use commonhold_space::{Mapped, RegionHandle};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{
    Access, Event, LockError, LockGuard, RawMutex, ReadGuard, Record, RegionError, RegionKey,
    RegionLock,
    attachment::{Attachment, region_error},
};

/// A region mapped by this process; dropping it unmaps.
///
/// Its bytes are shared with everybody else who maps it. Reads and writes through it are copies, so
/// a neighbour can tear what is read, but not the program; whoever needs bytes whole takes a lock.
pub struct Mapping {
    attachment: Arc<Attachment>,
    name: Box<str>,
    mapped: Mapped,
    read_only: Option<ReadOnlyMap>,
    access: Access,
    unmapped: bool,
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping")
            .field("name", &self.name)
            .field("size", &self.mapped.size)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

impl Mapping {
    pub(crate) fn of(
        attachment: &Arc<Attachment>,
        name: &str,
        mapped: Mapped,
        access: Access,
    ) -> Result<Self, RegionError> {
        let mut mapping = Self {
            attachment: Arc::clone(attachment),
            name: name.into(),
            mapped,
            read_only: None,
            access,
            unmapped: false,
        };
        // If this fails, dropping what there is unmaps.
        mapping.ensure_memory()?;
        mapping.map_pages()?;
        Ok(mapping)
    }

    fn ensure_memory(&self) -> Result<(), RegionError> {
        let ensured = self.attachment.backing.ensure(self.attachment.platform(), &self.mapped);
        ensured.map_err(|error| region_error(error, &self.name))
    }

    fn map_pages(&mut self) -> Result<(), RegionError> {
        self.read_only = match (self.access, self.mapped.extent.part(0, self.mapped.size)) {
            (Access::ReadOnly, Some(bytes)) if !bytes.is_empty() => {
                let mapped = self.attachment.platform().mapped();
                Some(mapped.map_read_only(bytes).map_err(|error| RegionError::Os {
                    call: "mmap",
                    source: std::io::Error::from_raw_os_error(error.errno().unwrap_or(0)),
                })?)
            }
            _ => None,
        };
        Ok(())
    }

    #[inline]
    pub(crate) const fn attachment(&self) -> &Arc<Attachment> {
        &self.attachment
    }

    #[inline]
    pub(crate) const fn mapped(&self) -> &Mapped {
        &self.mapped
    }

    #[inline]
    pub(crate) const fn handle(&self) -> RegionHandle {
        self.mapped.handle
    }

    /// The region's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What tells the region from every other that had, or will have, its name.
    #[must_use]
    pub const fn key(&self) -> RegionKey {
        RegionKey::of(self.mapped.handle)
    }

    /// Bytes that this mapping sees.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.mapped.size
    }

    /// Where what this mapping sees ends in the window.
    pub(crate) const fn end(&self) -> u64 {
        self.mapped.extent.start().get().saturating_add(self.mapped.size)
    }

    /// Where the region begins in the file that [`Space::duplicate_fd`](crate::Space::duplicate_fd)
    /// hands over, in bytes.
    #[must_use]
    pub fn offset(&self) -> u64 {
        let window = self.attachment.platform().mapped().file_offset();
        window.saturating_add(self.mapped.extent.start().get())
    }

    /// Sees the region's present size, after somebody resized it, and returns it.
    ///
    /// # Errors
    /// [`RegionError::Forked`]; [`RegionError::NoMemory`] if there is no memory behind that size, whatever says so: it
    /// sees the size that it saw before then; or the operating system's for a read-only mapping.
    pub fn refresh(&mut self) -> Result<u64, RegionError> {
        let core = self.attachment.core()?;
        let handle = self.mapped.handle;
        let before = self.mapped;
        self.mapped = core.look_again(handle).map_err(|error| region_error(error, &self.name))?;
        if let Err(error) = self.ensure_memory() {
            self.mapped = before;
            return Err(error);
        }
        self.map_pages()?;
        Ok(self.mapped.size)
    }

    fn bytes(&self, offset: u64, len: u64) -> Result<Extent, RegionError> {
        let size = self.mapped.size;
        let out = RegionError::OutOfBounds { offset, len, size };
        if offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(out);
        }
        self.mapped.extent.part(offset, len).ok_or(out)
    }

    pub(crate) const fn access(&self) -> Access {
        self.access
    }

    pub(crate) fn writable(&self) -> Result<(), RegionError> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => Err(RegionError::ReadOnly),
        }
    }

    /// Copies bytes out, from `offset` on. Of a lazy region, this is a system call, and takes no memory where nobody
    /// has touched it: such bytes are zero.
    ///
    /// # Errors
    /// [`RegionError::OutOfBounds`]; nothing has been copied then.
    pub fn read(&self, offset: u64, to: &mut [u8]) -> Result<(), RegionError> {
        let at = self.bytes(offset, to.len() as u64)?.start();
        // Without a descriptor of its own, a process reads as it does elsewhere.
        if self.mapped.lazy
            && self.attachment.core()?.view().platform().mapped().read_past_holes(at, to).is_ok()
        {
            return Ok(());
        }
        let window = self.attachment.view()?.window();
        window.read(at, to).map_err(|_| self.out_of_bounds(offset, to.len()))
    }

    /// Copies bytes in, from `offset` on.
    ///
    /// # Errors
    /// [`RegionError::OutOfBounds`], [`RegionError::ReadOnly`]; nothing has been written then.
    pub fn write(&self, offset: u64, from: &[u8]) -> Result<(), RegionError> {
        self.writable()?;
        let at = self.bytes(offset, from.len() as u64)?.start();
        let window = self.attachment.view()?.window();
        window.write(at, from).map_err(|_| self.out_of_bounds(offset, from.len()))
    }

    const fn out_of_bounds(&self, offset: u64, len: usize) -> RegionError {
        RegionError::OutOfBounds { offset, len: len as u64, size: self.mapped.size }
    }

    /// Copies a value out. Any plain type will do: one that every bit pattern may inhabit.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn get<T: FromBytes + IntoBytes>(&self, offset: u64) -> Result<T, RegionError> {
        let mut value: T = zerocopy::FromZeros::new_zeroed();
        self.read(offset, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Copies a value in.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub fn set<T: IntoBytes + Immutable>(&self, offset: u64, value: &T) -> Result<(), RegionError> {
        self.write(offset, value.as_bytes())
    }

    /// The address of the first byte, for those who want to reach the bytes on their own. The bytes
    /// stay mapped as long as this value lives (of a read-only mapping: until it is
    /// [refreshed](Self::refresh)); others write them at any time; writing through the
    /// pointer of a read-only mapping, or using it in a forked child, ends the process.
    #[must_use]
    pub fn as_ptr(&self) -> NonNull<u8> {
        match &self.read_only {
            Some(map) => map.as_ptr(),
            None => self
                .attachment
                .platform()
                .mapped()
                .window()
                .pointer(self.mapped.extent)
                .unwrap_or(NonNull::dangling()),
        }
    }

    /// Unmaps, and says whether that went well; dropping cannot.
    ///
    /// # Errors
    /// [`RegionError::Fenced`] if this process was declared dead, [`RegionError::Forked`].
    pub fn unmap(mut self) -> Result<(), RegionError> {
        self.unmapped = true;
        self.unmap_now()
    }

    fn unmap_now(&self) -> Result<(), RegionError> {
        let core = self.attachment.core()?;
        let unmapped = match self.attachment.me() {
            Ok(me) => core.unmap(&me, self.mapped.handle),
            // No thread slot is left for this thread; what it drops must go all the same.
            Err(RegionError::TooManyThreads { .. }) => core.unmap_in_silence(self.mapped.handle),
            Err(error) => return Err(error),
        };
        unmapped.map_err(|error| region_error(error, &self.name))
    }

    /// The region's own lock. To use it often, keep what this returns: it has found the words.
    ///
    /// # Errors
    /// [`RegionError::Forked`].
    #[inline]
    pub fn region_lock(&self) -> Result<RegionLock<'_>, RegionError> {
        RegionLock::of(self)
    }

    /// Takes the region's own lock, alone, waiting as long as it takes.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`] hands over the guard of a lock whose owner died;
    /// [`LockError::Unrecoverable`]; [`LockError::Deadlock`] if this thread holds it already.
    ///
    /// # Examples
    /// What is protected here is a pair of numbers that are always the same:
    /// ```
    /// use commonhold::{Access, LockError, Space};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let url = format!("shm:doc-lock-{}", std::process::id());
    /// # let space = Space::open_or_format(&url)?;
    /// space.create("pair", 16)?;
    /// # let neighbour = Space::open(&url)?;
    /// # let theirs = neighbour.map("pair", Access::ReadWrite)?;
    /// # std::mem::forget(theirs.lock().map_err(|error| error.to_string())?);
    /// # theirs.set(0, &7_u64)?;
    /// # drop((theirs, neighbour));
    /// let pair = space.map("pair", Access::ReadWrite)?;
    /// // A neighbour has written the first number, and was killed before it wrote the second.
    /// match pair.lock() {
    ///     Err(LockError::OwnerDied(guard)) => {
    ///         let first: u64 = pair.get(0)?;
    ///         pair.set(8, &first)?;
    ///         guard.mark_consistent()?;
    ///     }
    ///     other => panic!("{other:?}"),
    /// }
    /// // It is repaired, and nobody will hear of it again.
    /// let guard = pair.lock().map_err(|error| error.to_string())?;
    /// assert_eq!(pair.get::<u64>(0)?, pair.get::<u64>(8)?);
    /// guard.unlock()?;
    /// # drop(pair);
    /// # drop(space);
    /// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
    /// # Ok(())
    /// # }
    /// ```
    #[inline(always)]
    pub fn lock(&self) -> Result<LockGuard<'_>, LockError<LockGuard<'_>>> {
        self.region_lock()?.lock()
    }

    /// As [`lock`](Self::lock), but does not wait.
    ///
    /// # Errors
    /// [`LockError::TimedOut`] if somebody living holds it.
    pub fn try_lock(&self) -> Result<LockGuard<'_>, LockError<LockGuard<'_>>> {
        self.region_lock()?.try_lock()
    }

    /// As [`lock`](Self::lock), but waits so long at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`].
    pub fn lock_for(&self, timeout: Duration) -> Result<LockGuard<'_>, LockError<LockGuard<'_>>> {
        self.region_lock()?.lock_for(timeout)
    }

    /// Takes the region's own lock together with other readers.
    ///
    /// A thread may take it several times, as long as no writer waits in between: that would wait for
    /// the thread, and the thread for it.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`] hands over a guard under which the bytes may be half changed;
    /// [`LockError::Deadlock`] if this thread holds it alone, or reads already, and a writer that waits
    /// for it did not give up for a tenth of a second.
    #[inline(always)]
    pub fn read_lock(&self) -> Result<ReadGuard<'_>, LockError<ReadGuard<'_>>> {
        self.region_lock()?.read_lock()
    }

    /// As [`read_lock`](Self::read_lock), but does not wait.
    ///
    /// # Errors
    /// [`LockError::TimedOut`] if somebody living writes.
    pub fn try_read_lock(&self) -> Result<ReadGuard<'_>, LockError<ReadGuard<'_>>> {
        self.region_lock()?.try_read_lock()
    }

    /// As [`read_lock`](Self::read_lock), but waits so long at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`].
    pub fn read_lock_for(
        &self,
        timeout: Duration,
    ) -> Result<ReadGuard<'_>, LockError<ReadGuard<'_>>> {
        self.region_lock()?.read_lock_for(timeout)
    }

    /// Makes the region's lock as good as new, after the caller has repaired what it protects.
    ///
    /// # Errors
    /// [`RegionError::TimedOut`] if somebody holds it.
    pub fn reset_lock(&self) -> Result<(), RegionError> {
        self.region_lock()?.reset()
    }

    /// The mutex whose word lies at `offset`, a multiple of 8. Eight zero bytes are a free mutex.
    ///
    /// # Errors
    /// [`RegionError::Misaligned`], [`RegionError::OutOfBounds`], [`RegionError::ReadOnly`],
    /// [`RegionError::Forked`].
    ///
    /// # Examples
    /// A row of accounts, each with a mutex of its own before its balance:
    /// ```
    /// use commonhold::{Access, Space};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let url = format!("shm:doc-mutex-{}", std::process::id());
    /// # let space = Space::open_or_format(&url)?;
    /// space.create("accounts", 100 * 16)?;
    /// let accounts = space.map("accounts", Access::ReadWrite)?;
    /// let account = 42;
    /// let guard = accounts.mutex(16 * account)?.lock().map_err(|error| error.to_string())?;
    /// let balance: u64 = accounts.get(16 * account + 8)?;
    /// accounts.set(16 * account + 8, &(balance + 10))?;
    /// guard.unlock()?;
    /// # drop(accounts);
    /// # drop(space);
    /// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn mutex(&self, offset: u64) -> Result<RawMutex<'_>, RegionError> {
        let (word, at) = self.word(offset)?;
        RawMutex::of(self, commonhold_sync::Mutex::new(word, at))
    }

    /// The event whose word lies at `offset`, a multiple of 8. Eight zero bytes are a new event.
    ///
    /// # Errors
    /// As for [`mutex`](Self::mutex).
    pub fn event(&self, offset: u64) -> Result<Event<'_>, RegionError> {
        let (word, at) = self.word(offset)?;
        Ok(Event::of(self, commonhold_sync::Event::new(word, at)))
    }

    fn word(&self, offset: u64) -> Result<(&std::sync::atomic::AtomicU64, Offset), RegionError> {
        let at = self.writable_words(offset, 8)?;
        let word = self.attachment.view()?.window().word(at);
        Ok((word.map_err(|_| self.outside(offset, 8))?, at))
    }

    /// Where `len` bytes lie that may hold words of locks.
    pub(crate) fn writable_words(&self, offset: u64, len: u64) -> Result<Offset, RegionError> {
        self.writable()?;
        self.words(offset, len)
    }

    /// Where `len` bytes lie that may be read as words.
    pub(crate) fn words(&self, offset: u64, len: u64) -> Result<Offset, RegionError> {
        if !offset.is_multiple_of(8) {
            return Err(RegionError::Misaligned { offset });
        }
        Ok(self.bytes(offset, len)?.start())
    }

    pub(crate) const fn outside(&self, offset: u64, len: u64) -> RegionError {
        RegionError::OutOfBounds { offset, len, size: self.mapped.size }
    }

    /// For [`records!`](crate::records): whether so many bytes lie in the mapping.
    #[doc(hidden)]
    pub fn check(&self, offset: u64, len: u64) -> Result<(), RegionError> {
        self.bytes(offset, len).map(drop)
    }

    /// Opens a record at `offset`, a multiple of 8: a lock with its data, such as a
    /// [`Mutex`](crate::Mutex) or a [`RwLock`](crate::RwLock), or several of them that
    /// [`records!`](crate::records) has put together.
    ///
    /// All zeros are a free lock of any kind, with zeros as its data. Whoever opens it first makes it the
    /// kind that it asks for, and from then on it is that: a tag beside the lock says which kind it is, and
    /// how large its data are. (Of two types of the same size it does not know which is meant.)
    ///
    /// A mapping keeps its region: while somebody has a record open, its region can be told to go, but does
    /// not go, and its locks work as before. After that there is nothing left to use, since a record does
    /// not outlive its mapping; and a new region, of whatever name, begins with zeros.
    ///
    /// A [`SeqLock`](crate::SeqLock) can be opened through a read-only mapping, to be read; but not made.
    ///
    /// # Errors
    /// [`RegionError::OtherRecord`] if it is of another kind, or its data are of another size;
    /// [`RegionError::NotARecord`] if other bytes lie there; [`RegionError::NotMade`] if nothing has been opened
    /// there and the mapping is read-only; [`RegionError::Misaligned`],
    /// [`RegionError::OutOfBounds`], [`RegionError::ReadOnly`], [`RegionError::Forked`]. Nothing has been
    /// written then, but that of several records those before the refused one may have become what they
    /// were opened as.
    ///
    /// # Examples
    /// ```
    /// use commonhold::{Access, Mutex, RwLock, Space};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let url = format!("shm:doc-open-{}", std::process::id());
    /// # let space = Space::open_or_format(&url)?;
    /// space.create("two", Mutex::<u64>::SIZE + RwLock::<[f64; 8]>::SIZE)?;
    /// let two = space.map("two", Access::ReadWrite)?;
    /// let count = two.open::<Mutex<u64>>(0)?;
    /// let table = two.open::<RwLock<[f64; 8]>>(Mutex::<u64>::SIZE)?;
    /// count.lock().map_err(|error| error.to_string())?.update(|count| *count += 1)?;
    /// table.write().map_err(|error| error.to_string())?.set(&[0.5; 8])?;
    /// let wrong = two.open::<RwLock<u64>>(0).unwrap_err();
    /// assert_eq!(
    ///     wrong.to_string(),
    ///     "at offset 0 lies a mutex with 8 bytes of data, not a reader/writer lock with 8 bytes of data"
    /// );
    /// # drop(two);
    /// # drop(space);
    /// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn open<'a, R: Record<'a>>(&'a self, offset: u64) -> Result<R, RegionError> {
        R::open(self, offset)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if !self.unmapped {
            // Fails only if others have taken this peer for dead, and dropped the mapping already.
            let _ = self.unmap_now();
        }
    }
}
