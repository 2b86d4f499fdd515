//! The memory behind a file: committed by `fallocate`, given back by punching holes.
//!
//! # What it owns
//! The blocks of the file. The bytes belong to the process that has committed them.
//!
//! # Invariants
//! 1. A commit changes no byte that was committed before.
//! 2. Nothing here touches the mapping where there may be a hole: such an access can end the process.
//!
//! Where `fallocate` does not exist, zeros are written over the holes. Between finding a hole and writing to it,
//! another process could commit the same bytes *and then use them*, and the zeros would overwrite its data. So
//! filling is done under a lock: a process that uses bytes has committed them before, and filled the hole under
//! that lock. A process that can only read the file can take the lock too, so the wait for it ends at a deadline.
//!
//! # What it does not do
//! If a file system has no `fallocate` and does not know its holes (`SEEK_HOLE`), a commit promises nothing.

use std::{
    os::fd::BorrowedFd,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use commonhold_layout::Extent;
use commonhold_space::{BackingMemoryError, Touch};
use commonhold_window::Window;
use rustix::{
    fs::{self, FallocateFlags, SeekFrom},
    io::{self, Errno, retry_on_intr},
};

use super::{
    kind::MemoryKind,
    resident,
    room::{Supply, Taken, supply_of},
};
use crate::{
    error::is_full,
    ofd_lock::{self, LockByte},
    own_fd::OwnFd,
};

/// Bytes in one `fallocate`. An interrupted call gives everything back, so a program with a fast timer would never
/// finish a large one.
const CHUNK: u64 = 16 << 20;
/// Bytes whose holes are filled in one go, with the lock held.
const PIECE: u64 = 1 << 20;
/// How long to wait for others that fill a piece: a hundred times what that takes on a slow disk.
const PATIENCE: Duration = Duration::from_secs(3);
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// A file as the medium of a window.
#[derive(Debug)]
pub(crate) struct FileMedium {
    file: OwnFd,
    kind: MemoryKind,
    /// Held while holes are filled: the file lock keeps other processes out, but not threads.
    fill: Mutex<()>,
    taken: Taken,
}

fn error(call: &'static str) -> impl Fn(Errno) -> BackingMemoryError {
    move |errno| {
        let number = errno.raw_os_error();
        if is_full(errno) {
            BackingMemoryError::Full { errno: number }
        } else {
            BackingMemoryError::Failed { call, errno: number }
        }
    }
}

fn is_unsupported(errno: Errno) -> bool {
    // `NOTSUP` is the same number as `OPNOTSUPP` here.
    matches!(errno, Errno::OPNOTSUPP | Errno::NOSYS)
}

/// Parts of an extent, small enough for one call, in order.
fn chunks(extent: Extent, chunk: u64) -> impl Iterator<Item = (u64, u64)> {
    let (start, end) = (extent.start().get(), extent.end());
    let mut at = start;
    std::iter::from_fn(move || {
        let len = chunk.min(end.checked_sub(at)?);
        let part = (at, len);
        at += len;
        (len > 0).then_some(part)
    })
}

impl FileMedium {
    pub(crate) const fn new(file: OwnFd, kind: MemoryKind) -> Self {
        Self { file, kind, fill: Mutex::new(()), taken: Taken::new() }
    }

    pub(crate) fn file(&self) -> Option<BorrowedFd<'_>> {
        self.file.checked()
    }

    pub(crate) const fn own_file(&self) -> &OwnFd {
        &self.file
    }

    fn checked(
        &self,
        call: &'static str,
        window: &Window,
        extent: Extent,
    ) -> Result<BorrowedFd<'_>, BackingMemoryError> {
        // An extent past the window's end would make the file grow.
        if extent.end() > window.len() {
            return Err(error(call)(Errno::INVAL));
        }
        // The descriptor is closed in a forked child. The program may also have closed it, and its number may be
        // another file's by now.
        self.file.checked().ok_or_else(|| error(call)(Errno::BADF))
    }

    pub(crate) fn commit(&self, window: &Window, extent: Extent) -> Result<(), BackingMemoryError> {
        let file = self.checked("fallocate", window, extent)?;
        for (at, len) in chunks(extent, CHUNK.max(self.kind.page_size())) {
            match retry_on_intr(|| fs::fallocate(file, FallocateFlags::empty(), at, len)) {
                Ok(()) => {}
                Err(errno) if is_unsupported(errno) => {
                    return self.fill_holes(file, extent, PATIENCE);
                }
                Err(errno) => return Err(error("fallocate")(errno)),
            }
        }
        Ok(())
    }

    pub(crate) fn release(
        &self,
        window: &Window,
        extent: Extent,
    ) -> Result<(), BackingMemoryError> {
        let file = self.checked("fallocate", window, extent)?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        for (at, len) in chunks(extent, u64::MAX) {
            match retry_on_intr(|| fs::fallocate(file, flags, at, len)) {
                Ok(()) => {}
                Err(errno) if is_unsupported(errno) => return zero_data(file, window, extent),
                Err(errno) => return Err(error("fallocate")(errno)),
            }
        }
        Ok(())
    }

    pub(crate) fn back(
        &self,
        window: &Window,
        extent: Extent,
        touch: Touch,
    ) -> Result<(), BackingMemoryError> {
        match (self.kind, touch) {
            // On a disk, a read of a hole takes no blocks, and cannot fail.
            (MemoryKind::File { .. }, Touch::Look) => Ok(()),
            (MemoryKind::Tmpfs, _) => {
                let file = self.checked("lseek", window, extent)?;
                match touch {
                    _ if resident::is_whole(file, extent) => Ok(()),
                    Touch::Look => Err(BackingMemoryError::Hole),
                    Touch::Use => self.commit(window, extent),
                }
            }
            // For huge pages, only `fallocate` tells which are there.
            _ => self.commit(window, extent),
        }
    }

    pub(crate) fn room_for(&self, bytes: u64) -> Result<(), BackingMemoryError> {
        // Without a descriptor, the commit that follows fails by itself.
        self.file.checked().map_or(Ok(()), |file| self.taken.room_for(bytes, file, self.kind))
    }

    pub(crate) fn supply(&self) -> Option<Supply> {
        Some(supply_of(self.file.checked()?, self.kind))
    }

    /// Bytes of an extent that have memory, or blocks of a disk.
    pub(crate) fn resident(&self, extent: Extent) -> Option<u64> {
        // For huge pages the kernel's answers are useless: every file looks as if it had no holes.
        let asks = !matches!(self.kind, MemoryKind::Hugetlbfs { .. });
        let file = self.file.checked().filter(|_| asks)?;
        Some(resident::bytes(file, extent, self.kind == MemoryKind::Tmpfs))
    }

    /// Copies bytes out of the file. Holes read as zeros, and get no memory.
    pub(crate) fn read(&self, from: u64, mut to: &mut [u8]) -> Result<(), Errno> {
        let file = self.file.checked().ok_or(Errno::BADF)?;
        let mut at = from;
        while !to.is_empty() {
            match retry_on_intr(|| io::pread(file, &mut *to, at))? {
                0 => return Err(Errno::NXIO),
                count => {
                    at += count as u64;
                    to = to.get_mut(count..).unwrap_or_default();
                }
            }
        }
        Ok(())
    }

    /// Writes zeros over the holes of an extent. Before each piece it waits at most `patience` for others that do so.
    fn fill_holes(
        &self,
        file: BorrowedFd<'_>,
        extent: Extent,
        patience: Duration,
    ) -> Result<(), BackingMemoryError> {
        let _threads = self.fill.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, len) in chunks(extent, PIECE) {
            let piece = Extent::new(at, len).ok_or_else(|| error("fallocate")(Errno::INVAL))?;
            let attempt = || ofd_lock::try_lock(file, LockByte::FILL).map_err(error("fcntl"));
            if !ofd_lock::patiently(patience, attempt)? {
                return Err(BackingMemoryError::Blocked { byte: LockByte::FILL.offset() });
            }
            let filled = for_each_run(file, piece, Run::Hole, |hole| {
                for (at, len) in chunks(hole, ZEROS.len() as u64) {
                    write_zeros(file, at, len)?;
                }
                Ok(())
            });
            let unlocked = ofd_lock::unlock(file, LockByte::FILL).map_err(error("fcntl"));
            filled.and(unlocked)?;
        }
        Ok(())
    }
}

fn write_zeros(file: BorrowedFd<'_>, mut at: u64, mut len: u64) -> Result<(), BackingMemoryError> {
    while len > 0 {
        let most = usize::try_from(len).unwrap_or(usize::MAX).min(ZEROS.len());
        let bytes = ZEROS.get(..most).unwrap_or(&ZEROS);
        match retry_on_intr(|| io::pwrite(file, bytes, at)).map_err(error("pwrite"))? {
            0 => return Err(error("pwrite")(Errno::NOSPC)),
            count => {
                at += count as u64;
                len = len.saturating_sub(count as u64);
            }
        }
    }
    Ok(())
}

/// Zeroes the bytes of an extent that are not in a hole.
fn zero_data(
    file: BorrowedFd<'_>,
    window: &Window,
    extent: Extent,
) -> Result<(), BackingMemoryError> {
    for_each_run(file, extent, Run::Data, |data| {
        window.zero(data).map_err(|_| error("fallocate")(Errno::INVAL))
    })
}

/// The two kinds of parts of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    Hole,
    Data,
}

/// Calls `found` for each part of the extent that is `wanted`.
fn for_each_run(
    file: BorrowedFd<'_>,
    extent: Extent,
    wanted: Run,
    mut found: impl FnMut(Extent) -> Result<(), BackingMemoryError>,
) -> Result<(), BackingMemoryError> {
    let next = |from, run| {
        let place = match run {
            Run::Hole => SeekFrom::Hole(from),
            Run::Data => SeekFrom::Data(from),
        };
        match retry_on_intr(|| fs::seek(file, place)) {
            // Some file systems may answer with a place before the search began.
            Ok(at) => Ok(at.max(from)),
            // There is none up to the end of the file.
            Err(Errno::NXIO) => Ok(u64::MAX),
            Err(errno) => Err(error("lseek")(errno)),
        }
    };
    let other = match wanted {
        Run::Hole => Run::Data,
        Run::Data => Run::Hole,
    };
    let mut at = extent.start().get();
    while at < extent.end() {
        let start = next(at, wanted)?;
        if start >= extent.end() {
            break;
        }
        let end = next(start, other)?.min(extent.end());
        if end <= start {
            return Err(error("lseek")(Errno::IO));
        }
        let run = Extent::new(start, end - start).ok_or_else(|| error("lseek")(Errno::IO))?;
        found(run)?;
        at = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{memory::MappedWindow, scratch::Scratch};
    use commonhold_layout::Offset;
    use commonhold_space::BackingMemory;
    use std::os::fd::AsFd;

    fn three_pages(scratch: &Scratch) -> MappedWindow {
        scratch.window("three", 3 * 4096)
    }

    fn byte(mapped: &MappedWindow, at: u64) -> u8 {
        let mut byte = [0];
        mapped.window().read(Offset::new(at).unwrap(), &mut byte).unwrap();
        byte[0]
    }

    #[test]
    fn a_commit_keeps_data_and_a_release_makes_it_zero() {
        let scratch = Scratch::new();
        let mapped = three_pages(&scratch);
        let all = Extent::new(0, 3 * 4096).unwrap();
        mapped.commit(all).unwrap();
        mapped.window().write(Offset::new(4096).unwrap(), b"x").unwrap();
        mapped.commit(all).unwrap();
        assert_eq!(byte(&mapped, 4096), b'x');
        mapped.release(all).unwrap();
        mapped.commit(all).unwrap();
        assert_eq!(byte(&mapped, 4096), 0);
    }

    #[test]
    fn an_extent_outside_the_window_is_refused_and_the_file_does_not_grow() {
        let scratch = Scratch::new();
        let mapped = three_pages(&scratch);
        let outside = Extent::new(8192, 8192).unwrap();
        assert!(matches!(mapped.commit(outside), Err(BackingMemoryError::Failed { .. })));
        assert!(matches!(mapped.release(outside), Err(BackingMemoryError::Failed { .. })));
        assert_eq!(mapped.peek().unwrap().size, 3 * 4096);
    }

    /// The code for file systems without `fallocate`, tested on one that has it.
    #[test]
    fn holes_are_filled_around_data_and_data_is_zeroed_around_holes() {
        let scratch = Scratch::new();
        let mapped = three_pages(&scratch);
        let file = mapped.file().unwrap();
        let middle = Extent::new(4096, 4096).unwrap();
        mapped.commit(middle).unwrap();
        mapped.window().write(Offset::new(5000).unwrap(), b"x").unwrap();

        let guard = mapped.guard();
        let own = OwnFd::new(mapped.reopen().unwrap(), guard).unwrap();
        let medium = FileMedium::new(own, mapped.kind());
        let all = Extent::new(100, 3 * 4096 - 200).unwrap();
        medium.fill_holes(medium.file().unwrap(), all, PATIENCE).unwrap();
        assert_eq!(byte(&mapped, 5000), b'x');
        for_each_run(file, all, Run::Hole, |hole| panic!("a hole is left: {hole:?}")).unwrap();

        mapped.release(Extent::new(0, 4096).unwrap()).unwrap();
        zero_data(file, mapped.window(), all).unwrap();
        assert_eq!(byte(&mapped, 5000), 0);
        let mut holes = 0;
        for_each_run(file, all, Run::Hole, |_| {
            holes += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(holes, 1, "zeroing must not touch a hole");
    }

    /// The bug: a process that could only read the file could lock the byte for ever, and every `create` waited for it.
    #[test]
    fn a_reader_of_the_file_does_not_block_the_filling_of_holes_for_ever() {
        let scratch = Scratch::new();
        let mapped = three_pages(&scratch);
        let reader = std::fs::File::open(mapped.path()).unwrap();
        assert!(ofd_lock::try_share(reader.as_fd(), LockByte::FILL).unwrap());
        let own = OwnFd::new(mapped.reopen().unwrap(), mapped.guard()).unwrap();
        let medium = FileMedium::new(own, mapped.kind());
        let all = Extent::new(0, 3 * 4096).unwrap();
        let fill = || medium.fill_holes(medium.file().unwrap(), all, Duration::from_millis(20));
        assert_eq!(fill(), Err(BackingMemoryError::Blocked { byte: LockByte::FILL.offset() }));
        drop(reader);
        assert_eq!(fill(), Ok(()));
    }
}
