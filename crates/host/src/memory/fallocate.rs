//! The memory behind a file: committed by `fallocate`, given back by punching holes.
//!
//! # What it owns
//! The blocks of the file. The bytes belong to whoever has committed them.
//!
//! # Invariants
//! 1. Committing changes no byte that anybody has committed before.
//! 2. Nothing here touches the mapping where there may be a hole: that is what ends processes.
//!
//! Where `fallocate` does not exist, zeros are written over the holes. Between finding a hole and
//! writing to it, somebody else could commit the same bytes *and then use them*, and the zeros would
//! fall on data. So filling happens under a lock of its own: whoever uses bytes has committed them,
//! and so filled the hole, under that lock before. Whoever can read the file can have that lock, too, so it is not
//! waited for without an end.
//!
//! # What it does not do
//! On a file system that has neither `fallocate` nor knows its holes (`SEEK_HOLE`), a commit promises
//! nothing.

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

/// `fallocate` that is interrupted gives back what it took, so a program with a fast timer would
/// never finish a large one.
const CHUNK: u64 = 16 << 20;
/// Bytes in which holes are looked for and filled without letting others do so.
const PIECE: u64 = 1 << 20;
/// How long to wait for others to fill a piece: a hundred times what that takes on a slow disk.
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
        // Behind the window the file would grow.
        if extent.end() > window.len() {
            return Err(error(call)(Errno::INVAL));
        }
        // In a child the descriptor is closed; and the program may have closed it, and opened another file there.
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
            // A read of a hole there takes nothing of the file system, and cannot fail.
            (MemoryKind::File { .. }, Touch::Look) => Ok(()),
            (MemoryKind::Tmpfs, _) => {
                let file = self.checked("lseek", window, extent)?;
                match touch {
                    _ if resident::is_whole(file, extent) => Ok(()),
                    Touch::Look => Err(BackingMemoryError::Hole),
                    Touch::Use => self.commit(window, extent),
                }
            }
            // Of huge pages, nothing but `fallocate` tells which are there.
            _ => self.commit(window, extent),
        }
    }

    pub(crate) fn room_for(&self, bytes: u64) -> Result<(), BackingMemoryError> {
        // Without a descriptor, taking memory fails by itself.
        self.file.checked().map_or(Ok(()), |file| self.taken.room_for(bytes, file, self.kind))
    }

    pub(crate) fn supply(&self) -> Option<Supply> {
        Some(supply_of(self.file.checked()?, self.kind))
    }

    /// Bytes of an extent that have memory, or blocks of a disk.
    pub(crate) fn resident(&self, extent: Extent) -> Option<u64> {
        // The answers for huge pages are those of files that have no holes.
        let asks = !matches!(self.kind, MemoryKind::Hugetlbfs { .. });
        let file = self.file.checked().filter(|_| asks)?;
        Some(resident::bytes(file, extent, self.kind == MemoryKind::Tmpfs))
    }

    /// Copies bytes out of the file: of a hole, zeros, and it takes no memory.
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

    /// Writes zeros over the holes of an extent, waiting so long at most, before each piece, for others who do so.
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

/// Makes the bytes of an extent zero that are not zero by being in a hole.
fn zero_data(
    file: BorrowedFd<'_>,
    window: &Window,
    extent: Extent,
) -> Result<(), BackingMemoryError> {
    for_each_run(file, extent, Run::Data, |data| {
        window.zero(data).map_err(|_| error("fallocate")(Errno::INVAL))
    })
}

/// What a part of a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    Hole,
    Data,
}

/// Calls `found` for each part of the extent that is a hole, or is not.
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
            // Never before where the search began, whatever a file system says.
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
    fn committing_keeps_what_is_there_and_releasing_makes_it_zero() {
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

    /// The stand-in for file systems without `fallocate`, which no test machine need have.
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

    /// Whoever could read the file could lock the byte for ever, and every `create` waited for it for ever.
    #[test]
    fn who_reads_the_file_does_not_hold_up_the_filling_of_holes_for_ever() {
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
