//! Reading bytes of a window without taking memory, for observers.
//!
//! A load from a hole of a file in memory takes memory for good. So an observer of bytes that may lie in a hole reads
//! the file instead, and first asks where it has data. Device memory is always there, and is read directly.

use commonhold_layout::{Extent, Offset};
use commonhold_space::BackingMemoryError;
use rustix::{
    fs::{self, SeekFrom},
    io::{Errno, pread, retry_on_intr},
};

use super::{kind::MemoryKind, mapped_window::MappedWindow};

impl MappedWindow {
    /// The first part of an extent that may hold bytes other than zeros; `None` if there is none.
    #[must_use]
    pub fn next_data(&self, within: Extent) -> Option<Extent> {
        let whole = (!within.is_empty()).then_some(within)?;
        if self.is_device() {
            return Some(whole);
        }
        let file = self.file()?;
        let (start, end) = (within.start().get(), within.end());
        let data = match retry_on_intr(|| fs::seek(file, SeekFrom::Data(start))) {
            Ok(data) => data.max(start),
            // There is no data up to the end of the file.
            Err(Errno::NXIO) => return None,
            // The file system does not know its holes.
            Err(_) => return Some(whole),
        };
        let len = end.checked_sub(data).filter(|len| *len > 0)?;
        let hole = retry_on_intr(|| fs::seek(file, SeekFrom::Hole(data))).unwrap_or(end);
        let len = hole.checked_sub(data).filter(|run| *run > 0).map_or(len, |run| run.min(len));
        Extent::new(data, len)
    }

    /// Copies bytes out. Holes get no memory.
    ///
    /// # Errors
    /// [`BackingMemoryError`] of reading the file.
    pub fn read_quietly(&self, at: Offset, to: &mut [u8]) -> Result<(), BackingMemoryError> {
        let failed = |errno: Errno| BackingMemoryError::Failed {
            call: "pread",
            errno: errno.raw_os_error(),
        };
        if self.is_device() {
            return self.window().read(at, to).map_err(|_| failed(Errno::INVAL));
        }
        let file = self.file().ok_or_else(|| failed(Errno::BADF))?;
        let mut done = 0;
        while let Some(rest) = to.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let from = at.get().saturating_add(done as u64);
            match retry_on_intr(|| pread(file, &mut *rest, from)).map_err(failed)? {
                0 => return Err(failed(Errno::IO)),
                count => done += count,
            }
        }
        Ok(())
    }

    /// Whether the window is device memory, where each load may be slow.
    #[must_use]
    pub const fn is_device(&self) -> bool {
        matches!(self.kind(), MemoryKind::Pci { .. } | MemoryKind::Physical { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use commonhold_space::BackingMemory;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn reading_holes_gives_zeros_and_takes_no_memory() {
        let scratch = Scratch::new();
        let mapped = scratch.window("holes", 64 * 4096);
        let all = Extent::new(0, 64 * 4096).unwrap();
        mapped.commit(Extent::new(8 * 4096, 4096).unwrap()).unwrap();
        mapped.window().write(Offset::new(8 * 4096 + 5).unwrap(), b"x").unwrap();
        let blocks = || std::fs::metadata(mapped.path()).unwrap().blocks();
        let before = blocks();

        let data = mapped.next_data(all).unwrap();
        assert!(data.start().get() <= 8 * 4096 && data.end() > 8 * 4096, "{data:?}");
        let rest = Extent::new(data.end(), all.end() - data.end()).unwrap();
        assert_eq!(mapped.next_data(rest), None);
        let mut bytes = vec![1; 64 * 4096];
        mapped.read_quietly(Offset::ZERO, &mut bytes).unwrap();
        let found: Vec<_> = bytes.iter().enumerate().filter(|(_, byte)| **byte != 0).collect();
        assert_eq!(found, [(8 * 4096 + 5, &b'x')]);
        assert_eq!(blocks(), before, "looking has taken memory");
    }
}
