//! A read-only mapping of a part of a window.
//!
//! # Invariants
//! 1. Its address is given out only as a raw pointer: others may write the bytes at any time, so there must never be a
//!    reference to them.

use std::ptr::NonNull;

use commonhold_layout::Extent;
use rustix::{io::Errno, mm::ProtFlags};

use super::{
    mapped_window::MappedWindow,
    mapping::{Mapping, rounded},
};
use crate::error::HostError;

impl MappedWindow {
    /// Maps an extent once more, read-only.
    ///
    /// # Errors
    /// [`HostError`] of `mmap`, or `EINVAL` if the extent does not lie in the window.
    pub fn map_read_only(&self, extent: Extent) -> Result<ReadOnlyMap, HostError> {
        let failed = |errno| HostError::call("mmap", self.path(), errno);
        if extent.end() > self.window().len() {
            return Err(failed(Errno::INVAL));
        }
        let file = self.file().ok_or(HostError::Forked)?;
        let len = usize::try_from(extent.len()).map_err(|_| failed(Errno::NOMEM))?;
        if len == 0 {
            return Ok(ReadOnlyMap { mapping: None, first: NonNull::dangling(), len });
        }
        let start = extent.start().get();
        let page_start = start & !(self.mapped_page() - 1);
        let skipped = usize::try_from(start - page_start).map_err(|_| failed(Errno::NOMEM))?;
        let mapped = len.checked_add(skipped).and_then(|whole| rounded(whole, self.kind()));
        let mapped = mapped.ok_or_else(|| failed(Errno::NOMEM))?;
        let at = self.file_offset().checked_add(page_start).ok_or_else(|| failed(Errno::INVAL))?;
        let mapping =
            Mapping::new(file, ProtFlags::READ, at, mapped, self.guard()).map_err(failed)?;
        // SAFETY: `add` wants the result inside the allocation: `skipped` is less than a page, and at
        // least one page was mapped.
        let first = unsafe { mapping.base().cast::<u8>().add(skipped) };
        Ok(ReadOnlyMap { mapping: Some(mapping), first, len })
    }
}

/// An extent mapped for reading; unmapped when dropped.
#[derive(Debug)]
pub struct ReadOnlyMap {
    /// `None` if the extent is empty.
    mapping: Option<Mapping>,
    first: NonNull<u8>,
    len: usize,
}

// SAFETY: as for `Mapping`; the address is given out only as a raw pointer.
unsafe impl Send for ReadOnlyMap {}
// SAFETY: as above.
unsafe impl Sync for ReadOnlyMap {}

impl ReadOnlyMap {
    /// The address of its first byte, valid until the value is dropped. Others may write the bytes at any time. In a
    /// forked child they are not mapped.
    #[must_use]
    pub const fn as_ptr(&self) -> NonNull<u8> {
        self.first
    }

    /// Its length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it was mapped by another process, of which this one is a forked child.
    #[inline]
    #[must_use]
    pub fn is_forked_child(&self) -> bool {
        self.mapping.as_ref().is_some_and(|mapping| mapping.guard().is_forked_child())
    }
}
