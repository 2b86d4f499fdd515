//! Whether there is memory behind a region, before it is mapped.
//!
//! # What it owns
//! What this process knows about it: one word for each entry of the table of regions.
//!
//! # Invariants
//! 1. The size of a region is a number in the window: any peer may have raised it beyond what was committed. A
//!    space that was copied has holes where it had zeros, and touching a hole on a full file system is a signal. So
//!    this process hands out no bytes of a region before the kernel has said that they have memory; memory that is
//!    missing is taken.
//! 2. Asking costs a system call, and time for each page. This process asks once for each region, and again when
//!    the region has grown.
//! 3. For a lazy region this process does not ask: its memory is taken at first touch, at the risk of the thread
//!    that touches it.
//!
//! # What it does not do
//! It does not see a hole that is punched later.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use commonhold_host::LinuxPlatform;
use commonhold_space::{
    BackingMemory, BackingMemoryError, DirectoryError, Mapped, RegionHandle, Touch,
};

/// Unit of the sizes remembered: 32 bits of it are 16 TiB. For a larger region the kernel is asked each time.
const UNIT: u64 = 4096;

/// For each entry: the generation of a region, and how many units of that region are known to have memory.
#[derive(Debug)]
pub(crate) struct Backing {
    entries: u32,
    /// Made when the first region is mapped or created.
    words: OnceLock<Box<[AtomicU64]>>,
}

impl Backing {
    /// A table for `entries` regions.
    pub(crate) const fn new(entries: u32) -> Self {
        Self { entries, words: OnceLock::new() }
    }

    fn word(&self, handle: RegionHandle) -> Option<&AtomicU64> {
        let make = || (0..self.entries).map(|_| AtomicU64::new(0)).collect();
        self.words.get_or_init(make).get(usize::try_from(handle.region.get()).ok()?)
    }

    /// Remembers that the first `bytes` bytes of a region have memory.
    pub(crate) fn remember(&self, handle: RegionHandle, bytes: u64) {
        if let Ok(units) = u32::try_from(bytes.div_ceil(UNIT))
            && let Some(word) = self.word(handle)
        {
            // Relaxed: the word says that pages exist, and nothing about their contents.
            word.store(u64::from(handle.generation) << 32 | u64::from(units), Ordering::Relaxed);
        }
    }

    fn knows(&self, handle: RegionHandle, bytes: u64) -> bool {
        let known = self.word(handle).map_or(0, |word| word.load(Ordering::Relaxed));
        known >> 32 == u64::from(handle.generation) && bytes.div_ceil(UNIT) <= known & 0xFFFF_FFFF
    }

    /// Makes sure that a region has memory, after it was mapped or its size was read again.
    #[inline]
    pub(crate) fn ensure(
        &self,
        platform: &LinuxPlatform,
        mapped: &Mapped,
    ) -> Result<(), DirectoryError> {
        if mapped.lazy || self.knows(mapped.handle, mapped.size) {
            return Ok(());
        }
        self.ask(platform, mapped)
    }

    #[cold]
    fn ask(&self, platform: &LinuxPlatform, mapped: &Mapped) -> Result<(), DirectoryError> {
        let Some(bytes) = mapped.extent.part(0, mapped.size).filter(|bytes| !bytes.is_empty())
        else {
            return Ok(());
        };
        match platform.back(bytes, Touch::Use) {
            Ok(()) => self.remember(mapped.handle, mapped.size),
            Err(error @ (BackingMemoryError::Full { .. } | BackingMemoryError::NoRoom(_))) => {
                return Err(DirectoryError::BackingMemory(error));
            }
            // Without a file descriptor of its own, this process cannot ask.
            Err(_) => {}
        }
        Ok(())
    }
}
