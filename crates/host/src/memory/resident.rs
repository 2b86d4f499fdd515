//! Which bytes of a file have memory.
//!
//! # What it owns
//! `cachestat`, which counts the pages of a range, and `lseek`, where the kernel has no `cachestat` (Linux before 6.5).
//!
//! # Invariants
//! 1. Asking takes no memory and touches no mapping.
//! 2. In a tmpfs, memory that `fallocate` took and that was never touched is a hole to `lseek`, and memory to
//!    `cachestat`. So `lseek` alone can prove that memory is there, and never that there is none.

use std::os::fd::{AsRawFd, BorrowedFd};

use commonhold_layout::{Extent, align_up};
use rustix::{
    fs::{self, SeekFrom},
    io::{Errno, retry_on_intr},
};

use super::kind::PAGE;

/// `libc` does not have it for every target; new system calls have the same number on all of them.
const SYS_CACHESTAT: libc::c_long = 451;

/// The result of `cachestat`.
#[repr(C)]
#[derive(Default)]
struct Counts {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Bytes of an extent of a file on a tmpfs that have memory, or are in swap. `None` if the kernel has no `cachestat`.
pub(crate) fn in_memory(file: BorrowedFd<'_>, extent: Extent) -> Option<u64> {
    if extent.is_empty() {
        // For the kernel, a length of 0 means up to the end of the file.
        return Some(0);
    }
    let range = [extent.start().get(), extent.len()];
    let mut counts = Counts::default();
    // SAFETY: the call wants two numbers to read and five to write: `range` and `counts`. It keeps no pointer to them.
    let called = unsafe {
        libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), range.as_ptr(), &raw mut counts, 0)
    };
    (called == 0).then(|| counts.cached.saturating_add(counts.evicted).saturating_mul(PAGE))
}

/// Whether every page that an extent of a file on a tmpfs touches has memory. `false` also if that is not known.
pub(crate) fn is_whole(file: BorrowedFd<'_>, extent: Extent) -> bool {
    let Some(pages) = pages_of(extent) else { return false };
    match in_memory(file, pages) {
        Some(bytes) => bytes >= pages.len(),
        None => next(file, SeekFrom::Hole(pages.start().get())).is_ok_and(|at| at >= pages.end()),
    }
}

/// Bytes of an extent that have memory, or blocks of a disk, as far as is known.
pub(crate) fn bytes(file: BorrowedFd<'_>, extent: Extent, is_tmpfs: bool) -> u64 {
    if is_tmpfs && let Some(bytes) = in_memory(file, extent) {
        return bytes.min(align_up(extent.len(), PAGE).unwrap_or(u64::MAX));
    }
    let (mut at, mut sum) = (extent.start().get(), 0_u64);
    while at < extent.end() {
        let Ok(data) = next(file, SeekFrom::Data(at)) else { break };
        let Ok(hole) = next(file, SeekFrom::Hole(data)) else { break };
        if data >= extent.end() || hole <= data {
            break;
        }
        sum = sum.saturating_add(hole.min(extent.end()) - data);
        at = hole;
    }
    sum
}

/// The next hole or the next data; `u64::MAX` if there is none.
pub(crate) fn next(file: BorrowedFd<'_>, place: SeekFrom) -> Result<u64, Errno> {
    match retry_on_intr(|| fs::seek(file, place)) {
        Err(Errno::NXIO) => Ok(u64::MAX),
        found => found,
    }
}

fn pages_of(extent: Extent) -> Option<Extent> {
    let start = extent.start().get() & !(PAGE - 1);
    Extent::new(start, align_up(extent.end(), PAGE)?.checked_sub(start)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use commonhold_space::BackingMemory;

    #[test]
    fn committed_pages_have_memory_before_and_after_they_are_touched() {
        let scratch = Scratch::new();
        let mapped = scratch.window("a", 1 << 30);
        let (file, all) = (mapped.file().unwrap(), Extent::new(0, 1 << 30).unwrap());
        let committed = Extent::new(PAGE, 2 * PAGE).unwrap();
        assert_eq!(bytes(file, all, true), 0);
        mapped.commit(committed).unwrap();
        let one = Extent::new(PAGE + 8, 8).unwrap();
        mapped.window().write(one.start(), b"x").unwrap();
        assert!(is_whole(file, one));
        assert!(!is_whole(file, Extent::new(0, PAGE + 1).unwrap()));
        assert!(!is_whole(file, Extent::new(PAGE, 3 * PAGE).unwrap()));
        if in_memory(file, all).is_none() {
            eprintln!("note: not tested: this kernel has no cachestat");
            return;
        }
        assert!(is_whole(file, committed));
        assert_eq!(bytes(file, all, true), 2 * PAGE);
        assert_eq!(bytes(file, one, true), PAGE.min(8_u64.next_multiple_of(PAGE)));
    }

    #[test]
    fn without_cachestat_runs_of_data_are_added_up() {
        let scratch = Scratch::new();
        let mapped = scratch.window("a", 16 * PAGE);
        for page in [2, 3, 7] {
            let at = commonhold_layout::Offset::new(page * PAGE).unwrap();
            mapped.commit(Extent::new(at.get(), PAGE).unwrap()).unwrap();
            mapped.window().write(at, b"x").unwrap();
        }
        let file = mapped.file().unwrap();
        assert_eq!(bytes(file, Extent::new(0, 16 * PAGE).unwrap(), false), 3 * PAGE);
        assert_eq!(bytes(file, Extent::new(3 * PAGE, PAGE).unwrap(), false), PAGE);
    }
}
