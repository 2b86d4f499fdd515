//! Address space in which a part of a space is mapped.
//!
//! # What it owns
//! The range of addresses: the only `mmap` of windows is here.
//!
//! # Invariants
//! 1. No child has a mapping of its parent's (`MADV_DONTFORK`). Its addresses may since hold
//!    something else there, so in a child nothing is unmapped.
//! 2. No core dump holds a window, unless that is asked for: the kernel would touch every page of it, holes
//!    included, so dumping a process that has mapped 64 GiB takes minutes, in which it holds its locks, and fills
//!    the file system.
//! 3. Every length given to the kernel is a multiple of the page size of the memory, as `munmap` of
//!    huge pages wants it: callers round it up by [`rounded`].

use std::{
    env,
    ffi::{OsStr, c_void},
    os::fd::BorrowedFd,
    ptr::{self, NonNull},
};

use commonhold_layout::align_up;
use rustix::{
    io::Errno,
    mm::{self, Advice, MapFlags, ProtFlags},
};

use super::kind::MemoryKind;
use crate::fork::ForkGuard;

/// Has core dumps hold the windows, too, if it is set to anything but `0`.
const DUMP: &str = "COMMONHOLD_DUMP";

/// Whether a core dump is to hold windows, by the value of [`DUMP`].
fn is_dumped(value: Option<&OsStr>) -> bool {
    value.is_some_and(|value| !value.is_empty() && value != "0")
}

/// Address space that is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<c_void>,
    len: usize,
    guard: ForkGuard,
}

// SAFETY: a mapping is an address and a length that belong to the process, not to a thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; through `&Mapping` nothing can be done but read the two.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(super) fn new(
        file: BorrowedFd<'_>,
        access: ProtFlags,
        at: u64,
        len: usize,
        guard: ForkGuard,
    ) -> Result<Self, Errno> {
        // Without NORESERVE a window of huge pages would reserve all of them at once, though most
        // of it is never used. What is used is committed first, by `fallocate`.
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: `mmap` wants no pointer into a range that it replaces: with a null hint and without
        // MAP_FIXED it replaces none.
        let base = unsafe { mm::mmap(ptr::null_mut(), len, access, flags, file, at) }?;
        let mapping = Self { base: NonNull::new(base).ok_or(Errno::NOMEM)?, len, guard };
        // SAFETY: `madvise` wants a range whose change of meaning hurts nobody: this one is ours and
        // new, and that a child lacks it is what invariant 1 says. Memory of devices takes the advice
        // as any other does; only its opposite, MADV_DOFORK, is refused there.
        unsafe { mm::madvise(base, len, Advice::LinuxDontFork) }?;
        if !is_dumped(env::var_os(DUMP).as_deref()) {
            // SAFETY: as above; it changes what a core dump holds, and nothing else.
            let _ = unsafe { mm::madvise(base, len, Advice::LinuxDontDump) };
        }
        Ok(mapping)
    }

    /// The address of its first byte.
    pub(super) const fn base(&self) -> NonNull<c_void> {
        self.base
    }

    pub(super) const fn guard(&self) -> ForkGuard {
        self.guard
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.guard.is_forked_child() {
            return;
        }
        // SAFETY: `munmap` wants a range that nobody uses any more: it is ours (invariant 1), and
        // all pointers into it were lent by the value that is being dropped.
        let _ = unsafe { mm::munmap(self.base.as_ptr(), self.len) };
    }
}

/// Bytes of whole pages that hold so many; `None` if that is more than there are addresses.
pub(super) fn rounded(len: usize, kind: MemoryKind) -> Option<usize> {
    usize::try_from(align_up(len as u64, kind.page_size())?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_dumped_only_if_somebody_says_so() {
        for (value, dumped) in
            [(None, false), (Some(""), false), (Some("0"), false), (Some("1"), true)]
        {
            assert_eq!(is_dumped(value.map(OsStr::new)), dumped, "{value:?}");
        }
    }
}
