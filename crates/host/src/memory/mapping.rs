//! The addresses at which a window, or a part of one, is mapped.
//!
//! # What it owns
//! The range of addresses: the only `mmap` of windows is here.
//!
//! # Invariants
//! 1. A forked child does not have its parent's mappings (`MADV_DONTFORK`). Their addresses may have another use in
//!    the child, so a child unmaps nothing.
//! 2. No core dump holds a window, unless the user asks for it. To dump one, the kernel touches every page, holes
//!    included: for a process that has mapped 64 GiB this takes minutes, in which the process holds its locks, and
//!    fills the file system.
//! 3. Every length given to the kernel is a multiple of the memory's page size, as `munmap` of huge pages requires:
//!    callers round it up with [`rounded`].

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

/// If this variable is set to anything but `0`, core dumps hold windows too.
const DUMP: &str = "COMMONHOLD_DUMP";

/// Whether core dumps hold windows, by the value of [`DUMP`].
fn is_dumped(value: Option<&OsStr>) -> bool {
    value.is_some_and(|value| !value.is_empty() && value != "0")
}

/// A mapping, which is unmapped when this is dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<c_void>,
    len: usize,
    guard: ForkGuard,
}

// SAFETY: a mapping is an address and a length that belong to the process, not to a thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; `&Mapping` permits only to read the two.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(super) fn new(
        file: BorrowedFd<'_>,
        access: ProtFlags,
        at: u64,
        len: usize,
        guard: ForkGuard,
    ) -> Result<Self, Errno> {
        // Without NORESERVE a window of huge pages would reserve all of them at once, though most are never used.
        // Pages that are used are committed before, by `fallocate`.
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: `mmap` wants no pointer into a range that it replaces: with a null hint and without
        // MAP_FIXED it replaces none.
        let base = unsafe { mm::mmap(ptr::null_mut(), len, access, flags, file, at) }?;
        let mapping = Self { base: NonNull::new(base).ok_or(Errno::NOMEM)?, len, guard };
        // SAFETY: `madvise` wants a range that no code relies on in a way that the advice breaks: this range is ours
        // and new, and a child is meant to lack it (invariant 1). Device memory takes this advice too; only its
        // opposite, MADV_DOFORK, is refused there.
        unsafe { mm::madvise(base, len, Advice::LinuxDontFork) }?;
        if !is_dumped(env::var_os(DUMP).as_deref()) {
            // SAFETY: as above; this advice changes only the contents of core dumps.
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
        // SAFETY: `munmap` wants a range without users: it is ours (invariant 1), and no pointer into it may be used
        // after the value that gave it out, which is being dropped.
        let _ = unsafe { mm::munmap(self.base.as_ptr(), self.len) };
    }
}

/// `len` rounded up to whole pages; `None` if a `usize` cannot hold that.
pub(super) fn rounded(len: usize, kind: MemoryKind) -> Option<usize> {
    usize::try_from(align_up(len as u64, kind.page_size())?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_dumped_only_if_the_environment_says_so() {
        for (value, dumped) in
            [(None, false), (Some(""), false), (Some("0"), false), (Some("1"), true)]
        {
            assert_eq!(is_dumped(value.map(OsStr::new)), dumped, "{value:?}");
        }
    }
}
