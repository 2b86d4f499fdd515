//! Memory of objects: a memfd for each.
//!
//! A page has memory if the memfd has memory at its offset; a hole is a page without memory. Pages are filled and
//! copied through the descriptor, never through a mapping.
//!
//! The program can make holes of its own through its mappings. So after a copy and after a punch this file looks
//! (`SEEK_DATA`, less than the time to read the page) whether it is there.

use std::{os::fd::BorrowedFd, sync::Arc};

use commonhold_host::{ForkGuard, OwnFd, is_full};
use commonhold_mm::{MmuError, ObjectPage, Pages};
use rustix::{
    fs::{FallocateFlags, MemfdFlags, SeekFrom, fallocate, ftruncate, memfd_create, seek},
    io::{Errno, pread, pwrite, retry_on_intr},
};

/// The memory of an object: a memfd.
#[derive(Debug)]
pub struct UffdObject {
    number: u64,
    /// Shared with the frames that will be its pages.
    file: Arc<OwnFd>,
    page_size: usize,
}

impl UffdObject {
    pub(crate) fn new(
        number: u64,
        pages: Pages,
        page_size: usize,
        guard: ForkGuard,
    ) -> Result<Self, Errno> {
        owned(guard)?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::NOEXEC_SEAL;
        let file = Arc::new(OwnFd::new(memfd_create("commonhold-object", flags)?, guard)?);
        let object = Self { number, file, page_size };
        object.resize(pages)?;
        Ok(object)
    }

    /// Unique among the machine's objects.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// The memfd; an error in a forked child, and if the program has closed it: its number may name a file of the program.
    pub(crate) fn file(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.file.checked().ok_or(Errno::BADF)
    }

    pub(crate) fn resize(&self, pages: Pages) -> Result<(), Errno> {
        let size = pages.0.checked_mul(self.page_size as u64).ok_or(Errno::FBIG)?;
        retry_on_intr(|| ftruncate(self.file()?, size))
    }

    /// Copies `from` to the page's bytes from `offset` on.
    pub(crate) fn write(&self, page: ObjectPage, offset: usize, from: &[u8]) -> Result<(), Errno> {
        let (mut at, mut rest) = (self.offset(page)? + offset as u64, from);
        while !rest.is_empty() {
            let written = retry_on_intr(|| pwrite(self.file()?, rest, at))?;
            rest = rest.get(written..).unwrap_or_default();
            at += written as u64;
        }
        Ok(())
    }

    /// Copies the page's bytes from `offset` on to `into`; `false` if its memory had gone, and what was copied is not its
    /// contents.
    pub(crate) fn read(
        &self,
        page: ObjectPage,
        offset: usize,
        into: &mut [u8],
    ) -> Result<bool, Errno> {
        let (mut at, mut done) = (self.offset(page)? + offset as u64, 0);
        while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
            // 0 bytes: the memfd ends before this offset, so the page has no memory.
            let read = retry_on_intr(|| pread(self.file()?, &mut *rest, at))?;
            if read == 0 {
                return Err(Errno::NXIO);
            }
            done += read;
            at += read as u64;
        }
        // A hole reads as zeros. Nobody fills the page meanwhile, so if it is there now, it was there all the time.
        self.has_memory(page)
    }

    /// The page's bytes in the memfd.
    pub(crate) fn hole(&self, page: ObjectPage) -> Result<Hole, Errno> {
        let (at, len) = (self.offset(page)?, self.page_size as u64);
        Ok(Hole { file: Arc::clone(&self.file), at, len })
    }

    /// Takes the page's memory away, and with it every translation to it. Returns whether it has gone.
    pub(crate) fn punch(&self, page: ObjectPage) -> Result<bool, Errno> {
        punch(&self.file, self.offset(page)?, self.page_size as u64)?;
        // The kernel only zeros a part of a huge page that somebody else uses.
        Ok(!self.has_memory(page)?)
    }

    /// Whether the memfd has memory for the page, be it swapped out.
    pub(crate) fn has_memory(&self, page: ObjectPage) -> Result<bool, Errno> {
        let at = self.offset(page)?;
        match retry_on_intr(|| seek(self.file()?, SeekFrom::Data(at))) {
            Ok(found) => Ok(found == at),
            Err(Errno::NXIO) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    pub(crate) fn offset(&self, page: ObjectPage) -> Result<u64, Errno> {
        page.number().checked_mul(self.page_size as u64).ok_or(Errno::FBIG)
    }
}

/// Where a page has no memory yet.
#[derive(Debug)]
pub(crate) struct Hole {
    file: Arc<OwnFd>,
    at: u64,
    len: u64,
}

impl Hole {
    /// Makes it a hole again, whatever was written there.
    pub(crate) fn punch(&self) -> Result<(), Errno> {
        punch(&self.file, self.at, self.len)
    }
}

fn punch(file: &OwnFd, at: u64, len: u64) -> Result<(), Errno> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    retry_on_intr(|| fallocate(file.checked().ok_or(Errno::BADF)?, flags, at, len))
}

/// An error in a forked child, which has nothing of this machine.
pub(crate) fn owned(guard: ForkGuard) -> Result<(), Errno> {
    if guard.is_forked_child() { Err(Errno::OWNERDEAD) } else { Ok(()) }
}

/// The error as the memory manager gets it.
pub(crate) fn mmu_error(errno: Errno) -> MmuError {
    if is_full(errno) {
        return MmuError::NoMemory;
    }
    MmuError::Failed { code: errno.raw_os_error() }
}
