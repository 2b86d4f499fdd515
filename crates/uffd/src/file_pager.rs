//! A pager on a file: each page lies at its offset in the object.
//!
//! Written pages are with the kernel, as after any write to a file: they survive the end of this process, and not a
//! crash of the machine. A program that needs the latter calls `sync_data` on the file.

use std::{fs::File, io, os::unix::fs::FileExt};

use commonhold_host::is_full;
use commonhold_mm::{ObjectPage, ObjectSpan, Pager, PagerError};
use rustix::{
    fs::{FallocateFlags, fallocate},
    io::{Errno, retry_on_intr},
};

/// Zeros to write where the file system cannot punch holes.
const ZEROS: [u8; 4096] = [0; 4096];

/// Keeps the pages of one object in a file, from its beginning on.
#[derive(Debug)]
pub struct FilePager {
    file: File,
    page_size: usize,
}

impl FilePager {
    /// A pager on `file`, which must be open to read and to write. The file's bytes are the object's contents; past
    /// the file's end they are zeros.
    #[must_use]
    pub const fn new(file: File, page_size: usize) -> Self {
        Self { file, page_size }
    }

    fn offset(&self, page: ObjectPage) -> Result<u64, PagerError> {
        let offset = page.number().checked_mul(self.page_size as u64);
        offset.ok_or(PagerError::PastEnd { page })
    }

    fn zero(&self, from: u64, to: u64) -> Result<(), PagerError> {
        let mut at = from;
        while at < to {
            let len = usize::try_from(to - at).unwrap_or(usize::MAX).min(ZEROS.len());
            let zeros = ZEROS.get(..len).unwrap_or(&ZEROS);
            self.file.write_all_at(zeros, at).map_err(|error| failed(&error))?;
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
        self.file.write_all_at(from, self.offset(page)?).map_err(|error| failed(&error))
    }

    fn discard(&self, pages: ObjectSpan) -> Result<(), PagerError> {
        let from = self.offset(pages.first())?;
        let size = self.file.metadata().map_err(|error| failed(&error))?.len();
        let to = self.offset(pages.end())?.min(size);
        if from >= to {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match retry_on_intr(|| fallocate(&self.file, flags, from, to - from)) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.zero(from, to),
            Err(errno) => Err(failed(&errno.into())),
        }
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
        let pager = FilePager::new(file.try_clone().unwrap(), 4096);
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
        assert_eq!(full.write(ObjectPage::new(0), &[1; 4096]), Err(PagerError::Full));
        let bad = PagerError::Io { code: libc::EBADF };
        assert_eq!(full.read(ObjectPage::new(0), &mut [0; 4096]), Err(bad));
    }
}
