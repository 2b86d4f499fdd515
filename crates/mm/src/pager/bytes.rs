//! A vector of bytes, paged like a file.

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use lock_api::{Mutex, RawMutex};

use super::{Pager, PagerError};
use crate::{NoMemory, ObjectPage, ObjectSpan};

/// Pages in a vector of bytes. As in a file, the last page may be incomplete: its rest reads as zeros, and writes to
/// the rest are lost. Pages behind it are [`PagerError::PastEnd`].
///
/// `R` is a raw lock of the user's choice.
///
/// # Examples
/// ```
/// use commonhold_mm::{BytesPager, ObjectPage, Pager};
///
/// let pager = BytesPager::<parking_lot::RawMutex>::new(b"some text", 4)?;
/// let mut page = [0; 4];
/// pager.read(ObjectPage::new(2), &mut page)?;
/// assert_eq!(&page, b"t\0\0\0");
/// pager.write(ObjectPage::new(0), b"that")?;
/// assert_eq!(pager.into_bytes(), b"that text");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct BytesPager<R> {
    page: usize,
    bytes: Mutex<R, Vec<u8>>,
}

impl<R: RawMutex> BytesPager<R> {
    /// A pager with these contents, in pages of `page` bytes.
    ///
    /// # Errors
    /// [`NoMemory`] for the copy.
    pub fn new(contents: &[u8], page: usize) -> Result<Self, NoMemory> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(contents.len()).map_err(|_| NoMemory)?;
        bytes.extend_from_slice(contents);
        Ok(Self { page, bytes: Mutex::new(bytes) })
    }

    /// Cuts the end off, or adds zeros to it.
    ///
    /// # Errors
    /// [`NoMemory`]; then nothing has changed.
    pub fn resize(&self, len: usize) -> Result<(), NoMemory> {
        let mut bytes = self.bytes.lock();
        let more = len.saturating_sub(bytes.len());
        bytes.try_reserve(more).map_err(|_| NoMemory)?;
        bytes.resize(len, 0);
        Ok(())
    }

    /// Calls `look` with the contents. Dirty pages in memory may be newer.
    pub fn with<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        look(&self.bytes.lock())
    }

    /// The contents.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes.into_inner()
    }

    /// The bytes of a page, of `len` bytes in all; `None` if it begins at their end or later.
    fn place(&self, page: ObjectPage, len: usize) -> Option<Range<usize>> {
        let first = usize::try_from(page.number()).ok()?.checked_mul(self.page)?;
        (first < len).then(|| first..len.min(first.saturating_add(self.page)))
    }
}

impl<R: RawMutex + Send + Sync> Pager for BytesPager<R> {
    fn read(&self, page: ObjectPage, into: &mut [u8]) -> Result<(), PagerError> {
        let bytes = self.bytes.lock();
        let place = self.place(page, bytes.len());
        let from = place.and_then(|place| bytes.get(place)).ok_or(PagerError::PastEnd { page })?;
        let there = from.len().min(into.len());
        let (head, rest) = into.split_at_mut(there);
        head.iter_mut().zip(from).for_each(|(to, byte)| *to = *byte);
        rest.fill(0);
        Ok(())
    }

    fn write(&self, page: ObjectPage, from: &[u8]) -> Result<(), PagerError> {
        let mut bytes = self.bytes.lock();
        let place = self.place(page, bytes.len());
        let to = place.and_then(|place| bytes.get_mut(place));
        let to = to.ok_or(PagerError::PastEnd { page })?;
        to.iter_mut().zip(from).for_each(|(to, byte)| *to = *byte);
        Ok(())
    }

    fn discard(&self, pages: ObjectSpan) -> Result<(), PagerError> {
        let mut bytes = self.bytes.lock();
        let len = bytes.len();
        let start = |page: ObjectPage| self.place(page, len).map_or(len, |place| place.start);
        let range = start(pages.first())..start(pages.end());
        if let Some(there) = bytes.get_mut(range) {
            there.fill(0);
        }
        Ok(())
    }
}

impl<R: RawMutex> fmt::Debug for BytesPager<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BytesPager").field("page", &self.page).finish_non_exhaustive()
    }
}
