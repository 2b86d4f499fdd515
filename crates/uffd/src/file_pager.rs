//! A pager on a file: each page lies at its offset in the object.
//!
//! # What it owns
//! The bytes of the file, and its length.
//!
//! # Invariants
//! 1. The contents of the object are the file's bytes. Past the file's end they are zeros.
//! 2. A write lengthens the file only as far as its last byte that is not zero: a file of 6 bytes keeps its length when
//!    its page is written back, unless the program has written behind the 6 bytes. Nothing is cut off.
//! 3. What is discarded up to the file's end, or further, is cut off: `resize(0)` empties the file. What is discarded
//!    before its end becomes a hole, and the length stays.
//! 4. The length is looked at and changed under `length`: to write for writes that lengthen the file and for what
//!    cuts it, to read for the other writes. The program changes the length meanwhile only at its own risk.
//! 5. A forked child has the file's descriptor, but the object is its parent's: every call fails there.
//!
//! # How long written pages last
//! Written pages are with the kernel, as after any write to a file: they survive the end of this process. After
//! [`flush`](Pager::flush), which a `sync` ends with, they survive a crash of the machine: it is `fdatasync`. A device
//! that is full, or fails, may say so only there.

use std::{fmt, fs::File, io, os::unix::fs::FileExt};

use commonhold_host::{ForkGuard, is_full};
use commonhold_mm::{ObjectPage, ObjectSpan, Pager, PagerError};
use parking_lot::RwLock;
use rustix::{
    fs::{FallocateFlags, fallocate, fdatasync},
    io::{Errno, retry_on_intr},
};

/// Zeros to write where the file system cannot punch holes.
const ZEROS: [u8; 4096] = [0; 4096];

/// Keeps the pages of one object in a file, from its beginning on.
#[derive(Debug)]
pub struct FilePager {
    file: File,
    page_size: usize,
    guard: ForkGuard,
    length: RwLock<()>,
}

/// Why there is no pager on a file.
#[derive(Debug)]
#[non_exhaustive]
pub enum FilePagerError {
    /// A page size that is 0 or not a power of two.
    PageSize {
        /// The page size that was asked for, in bytes.
        page_size: usize,
    },
    /// There is no memory to notice a fork.
    Fork(io::Error),
}

impl fmt::Display for FilePagerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PageSize { page_size } => {
                write!(f, "a page size of {page_size} bytes: use a power of two")
            }
            Self::Fork(error) => write!(f, "a fork could not be noticed: {error}"),
        }
    }
}

impl std::error::Error for FilePagerError {}

impl FilePager {
    /// A pager on `file`, which must be open to read and to write. The file's bytes are the object's contents; past
    /// the file's end they are zeros.
    ///
    /// # Errors
    /// [`FilePagerError`].
    pub fn new(file: File, page_size: usize) -> Result<Self, FilePagerError> {
        if !page_size.is_power_of_two() {
            return Err(FilePagerError::PageSize { page_size });
        }
        let guard = ForkGuard::new().map_err(FilePagerError::Fork)?;
        Ok(Self { file, page_size, guard, length: RwLock::new(()) })
    }

    /// Where a page lies in the file; an error in a forked child.
    fn offset(&self, page: ObjectPage) -> Result<u64, PagerError> {
        self.refuse_child()?;
        let offset = page.number().checked_mul(self.page_size as u64);
        offset.ok_or(PagerError::PastEnd { page })
    }

    fn refuse_child(&self) -> Result<(), PagerError> {
        if self.guard.is_forked_child() {
            return Err(PagerError::Io { code: libc::EOWNERDEAD });
        }
        Ok(())
    }

    /// The length. A device has no end that a write could move, so it gets whole pages.
    fn length(&self) -> Result<u64, PagerError> {
        let file = self.file.metadata().map_err(|error| failed(&error))?;
        Ok(if file.is_file() { file.len() } else { u64::MAX })
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> Result<(), PagerError> {
        self.file.write_all_at(bytes, at).map_err(|error| failed(&error))
    }

    fn zero(&self, from: u64, to: u64) -> Result<(), PagerError> {
        let mut at = from;
        while at < to {
            let len = usize::try_from(to - at).unwrap_or(usize::MAX).min(ZEROS.len());
            let zeros = ZEROS.get(..len).unwrap_or(&ZEROS);
            self.write_at(zeros, at)?;
            at += zeros.len() as u64;
        }
        Ok(())
    }
}

impl Pager for FilePager {
    fn read(&self, page: ObjectPage, into: &mut [u8]) -> Result<(), PagerError> {
        let (at, mut done) = (self.offset(page)?, 0);
        while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, at + done as u64) {
                Ok(0) => rest.fill(0),
                Ok(read) => {
                    done += read;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(&error)),
            }
            break;
        }
        Ok(())
    }

    /// If it fails, a part of the page may be in the file. The manager then keeps the page in memory, and writes it
    /// again later.
    fn write(&self, page: ObjectPage, from: &[u8]) -> Result<(), PagerError> {
        let at = self.offset(page)?;
        let shared = self.length.read();
        let inside = usize::try_from(self.length()?.saturating_sub(at)).unwrap_or(usize::MAX);
        if inside >= from.len() {
            return self.write_at(from, at);
        }
        drop(shared);
        let _alone = self.length.write();
        let inside = usize::try_from(self.length()?.saturating_sub(at)).unwrap_or(usize::MAX);
        let needed = from.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        self.write_at(from.get(..inside.max(needed)).unwrap_or(from), at)
    }

    fn discard(&self, pages: ObjectSpan) -> Result<(), PagerError> {
        let from = self.offset(pages.first())?;
        let to = self.offset(pages.end())?;
        let _alone = self.length.write();
        let length = self.length()?;
        if from >= to || from >= length {
            return Ok(());
        }
        if to >= length {
            return self.file.set_len(from).map_err(|error| failed(&error));
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match retry_on_intr(|| fallocate(&self.file, flags, from, to - from)) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.zero(from, to),
            Err(errno) => Err(failed(&errno.into())),
        }
    }

    fn flush(&self) -> Result<(), PagerError> {
        self.refuse_child()?;
        retry_on_intr(|| fdatasync(&self.file)).map_err(|errno| failed(&errno.into()))
    }
}

fn failed(error: &io::Error) -> PagerError {
    let code = error.raw_os_error().unwrap_or(0);
    if is_full(Errno::from_raw_os_error(code)) { PagerError::Full } else { PagerError::Io { code } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonhold_mm::{Pages, Span};

    #[test]
    fn pages_lie_at_their_offsets_and_the_rest_reads_as_zeros() {
        let file = crate::tests::file_in_memory();
        let pager = FilePager::new(file.try_clone().unwrap(), 4096).unwrap();
        let page = ObjectPage::new;
        pager.write(page(2), &[7; 4096]).unwrap();
        // A file whose last page is incomplete.
        file.set_len(3 * 4096 - 96).unwrap();
        let mut read = [1; 4096];
        pager.read(page(2), &mut read).unwrap();
        assert_eq!((&read[..4000], &read[4000..]), (&[7; 4000][..], &[0; 96][..]));
        pager.read(page(9), &mut read).unwrap();
        assert_eq!(read, [0; 4096]);
        pager.write(page(1), &[5; 4096]).unwrap();
        pager.discard(Span::new(page(2), Pages(1000)).unwrap()).unwrap();
        pager.read(page(2), &mut read).unwrap();
        assert_eq!(read, [0; 4096]);
        pager.read(page(1), &mut read).unwrap();
        assert_eq!(read, [5; 4096]);
        pager.zero(4100, 8192).unwrap();
        pager.read(page(1), &mut read).unwrap();
        assert_eq!((&read[..4], &read[4..]), (&[5; 4][..], &[0; 4092][..]));
    }

    #[test]
    fn the_error_of_the_file_reaches_the_caller() {
        let full = FilePager::new(File::options().write(true).open("/dev/full").unwrap(), 4096);
        let full = full.unwrap();
        assert_eq!(full.write(ObjectPage::new(0), &[1; 4096]), Err(PagerError::Full));
        let bad = PagerError::Io { code: libc::EBADF };
        assert_eq!(full.read(ObjectPage::new(0), &mut [0; 4096]), Err(bad));
    }

    fn pager_on(file: &File) -> FilePager {
        FilePager::new(file.try_clone().unwrap(), 4096).unwrap()
    }

    fn length(file: &File) -> u64 {
        file.metadata().unwrap().len()
    }

    /// A file of 6 bytes had 4,096 after its page was written back.
    #[test]
    fn a_file_becomes_no_longer_than_its_contents() {
        let file = crate::tests::file_in_memory();
        file.write_all_at(b"6bytes", 0).unwrap();
        let (pager, first) = (pager_on(&file), ObjectPage::new(0));
        let mut page = [1; 4096];
        pager.read(first, &mut page).unwrap();
        page[..6].copy_from_slice(b"6BYTES");
        pager.write(first, &page).unwrap();
        assert_eq!(length(&file), 6);
        // Shorter contents are zeros at the end, and the length stays.
        page[5] = 0;
        pager.write(first, &page).unwrap();
        assert_eq!(length(&file), 6);
        // What was written behind the end is kept, and needs no more than its bytes.
        page[99] = 7;
        pager.write(first, &page).unwrap();
        assert_eq!(length(&file), 100);
        pager.write(ObjectPage::new(5), &[0; 4096]).unwrap();
        assert_eq!(length(&file), 100);
        pager.write(ObjectPage::new(3), &[9; 4096]).unwrap();
        assert_eq!(length(&file), 4 * 4096);
        let mut read = [1; 4096];
        pager.read(first, &mut read).unwrap();
        assert_eq!(read, page);
        pager.read(ObjectPage::new(1), &mut read).unwrap();
        assert_eq!(read, [0; 4096]);
    }

    /// After `resize(0)` the file had its old length, and zeros in it.
    #[test]
    fn a_file_is_cut_where_its_end_is_discarded() {
        let file = crate::tests::file_in_memory();
        let pager = pager_on(&file);
        file.write_all_at(&[5; 3 * 4096], 0).unwrap();
        pager.discard(Span::new(ObjectPage::new(0), Pages(1)).unwrap()).unwrap();
        assert_eq!(length(&file), 3 * 4096);
        pager.discard(Span::new(ObjectPage::new(2), Pages(1)).unwrap()).unwrap();
        assert_eq!(length(&file), 2 * 4096);
        pager.discard(Span::new(ObjectPage::new(0), Pages(100)).unwrap()).unwrap();
        assert_eq!(length(&file), 0);
    }

    #[test]
    fn a_page_size_that_is_no_power_of_two_is_refused() {
        for page_size in [0, 3, 4095, 6000] {
            let refused = FilePager::new(crate::tests::file_in_memory(), page_size);
            let expected =
                matches!(refused, Err(FilePagerError::PageSize { page_size: p }) if p == page_size);
            assert!(expected, "{refused:?}");
        }
    }

    /// `/dev/full` is no file that could be flushed, so its error shows that the kernel was asked.
    #[test]
    fn a_flush_asks_the_kernel_and_returns_its_error() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let refused = PagerError::Io { code: libc::EINVAL };
        assert_eq!(pager_on(&full).flush(), Err(refused));
        assert_eq!(pager_on(&crate::tests::file_in_memory()).flush(), Ok(()));
    }
}
