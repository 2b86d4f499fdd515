//! A region mapped by this process. All handles to it share it.
//!
//! # What it owns
//! One mapping, counted once for this peer. It ends with the last handle.
//!
//! # Invariants
//! 1. Its bytes never move while it lives, so an address found in it once stays valid as long as the mapping is
//!    kept. Its size may grow.
//! 2. All access is through the window's own operations; in a forked child there is none.

use std::{
    fmt,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use commonhold_host::ReadOnlyMap;
use commonhold_layout::{Extent, Offset};
use commonhold_space::{Mapped, RegionHandle};
use commonhold_window::{Bytes, Run};
use yoke::{Yoke, Yokeable};

use crate::{
    Access, RegionError, RegionKey,
    attachment::{Attachment, HandleCount},
    error::causes::region_error,
};

/// What was found in a region, together with what keeps it there.
pub(crate) type Handle<Y> = Yoke<Y, Arc<MappedRegion>>;

/// A mapping; see the head of this file.
pub(crate) struct MappedRegion {
    attachment: Arc<Attachment>,
    name: Box<str>,
    /// As it was when it was mapped, with the size of that time.
    mapped: Mapped,
    /// Bytes that can be reached now.
    size: AtomicU64,
    read_only: Option<ReadOnlyMap>,
    access: Access,
    unmapped: bool,
}

impl fmt::Debug for MappedRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping")
            .field("name", &self.name)
            .field("size", &self.size())
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

impl MappedRegion {
    pub(crate) fn new(
        attachment: &Arc<Attachment>,
        name: &str,
        mapped: Mapped,
        access: Access,
    ) -> Result<Arc<Self>, RegionError> {
        let mut region = Self {
            attachment: Arc::clone(attachment),
            name: name.into(),
            mapped,
            size: AtomicU64::new(mapped.size),
            read_only: None,
            access,
            unmapped: false,
        };
        // If this fails, dropping `region` unmaps it.
        region.ensure_memory(&mapped)?;
        if access == Access::ReadOnly && !mapped.extent.is_empty() {
            // The whole reserve: the region may grow into it.
            let map = attachment.platform().mapped().map_read_only(mapped.extent);
            region.read_only = Some(map.map_err(|error| RegionError::Os {
                call: "mmap",
                source: std::io::Error::from_raw_os_error(error.errno().unwrap_or(0)),
            })?);
        }
        let region = Arc::new(region);
        attachment.enter(region.handle_count());
        Ok(region)
    }

    /// What `find` finds in the region, as a handle that keeps the region mapped.
    pub(crate) fn find<Y: for<'a> Yokeable<'a>>(
        this: &Arc<Self>,
        find: impl for<'a> FnOnce(&'a Self) -> Result<<Y as Yokeable<'a>>::Output, RegionError>,
    ) -> Result<Handle<Y>, RegionError> {
        Yoke::try_attach_to_cart(Arc::clone(this), find)
    }

    /// A function that counts the handles of this mapping, without being one.
    fn handle_count(self: &Arc<Self>) -> HandleCount {
        let (this, name) = (Arc::downgrade(self), self.name.clone());
        Box::new(move |asked| match this.strong_count() {
            0 => None,
            handles => Some(if *name == *asked { handles } else { 0 }),
        })
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

    pub(crate) const fn key(&self) -> RegionKey {
        RegionKey::new(self.mapped.handle)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) const fn access(&self) -> Access {
        self.access
    }

    /// Bytes that can be reached.
    #[inline]
    pub(crate) fn size(&self) -> u64 {
        // Relaxed: it says nothing about other words, and the memory was there before this process saw the size.
        self.size.load(Ordering::Relaxed)
    }

    /// Where the bytes that can be reached end, in the window.
    pub(crate) fn end(&self) -> u64 {
        self.mapped.extent.start().get().saturating_add(self.size())
    }

    /// The offset in the region of an offset in the window, in bytes.
    pub(crate) const fn offset_of(&self, at: Offset) -> u64 {
        at.get().saturating_sub(self.mapped.extent.start().get())
    }

    /// Where the region begins in the file behind the window, in bytes.
    pub(crate) fn file_offset(&self) -> u64 {
        let window = self.attachment.platform().mapped().file_offset();
        window.saturating_add(self.mapped.extent.start().get())
    }

    fn ensure_memory(&self, mapped: &Mapped) -> Result<(), RegionError> {
        let ensured = self.attachment.backing.ensure(self.attachment.platform(), mapped);
        ensured.map_err(|error| region_error(error, &self.name))
    }

    pub(crate) fn refresh(&self) -> Result<u64, RegionError> {
        let core = self.attachment.core()?;
        let now =
            core.look_again(self.handle()).map_err(|error| region_error(error, &self.name))?;
        self.ensure_memory(&now)?;
        self.size.store(now.size, Ordering::Relaxed);
        Ok(now.size)
    }

    #[inline]
    pub(crate) fn bytes(&self, offset: u64, len: u64) -> Result<Extent, RegionError> {
        let size = self.size();
        let out = RegionError::OutOfBounds { offset, len, size };
        if offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(out);
        }
        self.mapped.extent.part(offset, len).ok_or(out)
    }

    #[cold]
    pub(crate) fn outside(&self, offset: u64, len: u64) -> RegionError {
        RegionError::OutOfBounds { offset, len, size: self.size() }
    }

    #[inline]
    pub(crate) fn writable(&self) -> Result<(), RegionError> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => Err(RegionError::ReadOnly),
        }
    }

    /// Where `len` bytes lie, checked to be readable as words.
    pub(crate) fn words(&self, offset: u64, len: u64) -> Result<Offset, RegionError> {
        if !offset.is_multiple_of(8) {
            return Err(RegionError::Misaligned { offset });
        }
        Ok(self.bytes(offset, len)?.start())
    }

    /// Where `len` bytes lie, checked to be fit for words of locks.
    pub(crate) fn writable_words(&self, offset: u64, len: u64) -> Result<Offset, RegionError> {
        self.writable()?;
        self.words(offset, len)
    }

    /// The word at `offset` of a mapping that may be written, and where it lies.
    pub(crate) fn word(
        &self,
        offset: u64,
    ) -> Result<(&std::sync::atomic::AtomicU64, Offset), RegionError> {
        let at = self.writable_words(offset, 8)?;
        let word = self.attachment.view()?.window().word(at);
        Ok((word.map_err(|_| self.outside(offset, 8))?, at))
    }

    /// The words that hold `len` bytes at `offset`, a multiple of 8.
    pub(crate) fn run(&self, offset: u64, len: u64) -> Result<Run<'_>, RegionError> {
        let out = |_| self.outside(offset, len);
        let words = len.div_ceil(8);
        let at = self.words(offset, len)?;
        let count = usize::try_from(words).map_err(|_| self.outside(offset, len))?;
        self.attachment.view()?.window().run(at, count).map_err(out)
    }

    /// All bytes that the region may grow to. Its [size](Self::size) says how many of them can be reached.
    pub(crate) fn reserve(&self) -> Result<Bytes<'_>, RegionError> {
        let bytes = self.attachment.view()?.window().bytes(self.mapped.extent);
        bytes.map_err(|_| self.outside(0, self.mapped.extent.len()))
    }

    #[inline]
    pub(crate) const fn is_lazy(&self) -> bool {
        self.mapped.lazy
    }

    /// Reads a lazy region without taking memory. `false` if this process has no file descriptor of its own: then
    /// it reads as in other regions.
    #[cold]
    pub(crate) fn read_past_holes(&self, offset: u64, to: &mut [u8]) -> bool {
        let at = self.mapped.extent.start().plus(offset);
        at.is_some_and(|at| self.attachment.platform().mapped().read_past_holes(at, to).is_ok())
    }

    /// Copies bytes in that may not be whole words.
    pub(crate) fn write(&self, offset: u64, from: &[u8]) -> Result<(), RegionError> {
        let written = self.reserve()?.write(offset, from);
        written.map_err(|_| self.outside(offset, from.len() as u64))
    }

    pub(crate) fn as_ptr(&self) -> NonNull<u8> {
        match &self.read_only {
            Some(map) => map.as_ptr(),
            None => {
                let window = self.attachment.platform().mapped().window();
                window.pointer(self.mapped.extent).unwrap_or(NonNull::dangling())
            }
        }
    }

    /// Unmaps now, and says whether that went well; dropping cannot.
    pub(crate) fn unmap(mut self) -> Result<(), RegionError> {
        self.unmapped = true;
        self.unmap_now()
    }

    fn unmap_now(&self) -> Result<(), RegionError> {
        let core = self.attachment.core()?;
        let unmapped = match self.attachment.me() {
            Ok(me) => core.unmap(&me, self.handle()),
            // No thread slot is left for this thread; what it drops must go all the same.
            Err(RegionError::TooManyThreads { .. }) => core.unmap_in_silence(self.handle()),
            Err(error) => return Err(error),
        };
        unmapped.map_err(|error| region_error(error, &self.name))
    }
}

impl Drop for MappedRegion {
    fn drop(&mut self) {
        if !self.unmapped {
            // Fails only if others have taken this peer for dead, and dropped the mapping already.
            let _ = self.unmap_now();
        }
    }
}
