//! Which parts of the tables this process has verified to have memory behind them.
//!
//! # What it owns
//! Two records of this process: the number of region entries that it has verified, and a bit map of the verified
//! parts of the share table. Each answers with one load, and only grows.
//!
//! # Invariants
//! 1. The window says how many region entries and share words are in use. That number is only a claim: any process
//!    that may write the file can raise it beyond the parts that have memory. A part without memory is a *hole* of
//!    the file, and touching a hole while the file system is full raises a signal. So this process touches no entry
//!    and no share before the backing memory has confirmed that there is memory, or has committed it.
//! 2. The fixed tables are verified when the space is opened, and not again.
//! 3. A view has one of two modes. With [`Touch::Use`], a hole gets memory. With [`Touch::Look`], the view must not
//!    make the file larger, so it commits nothing: a hole in a table is reported as damage.
//! 4. Each part is verified once, by a system call, at the first use in this process. The holder of the directory
//!    mutex may be the one that needs it first: see `directory`.
//!
//! # What it does not do
//! It does not notice if a process that may write the file punches a hole into it later. What lies beyond the tables
//! is not remembered: the view asks the backing memory each time ([`View::may_look`](crate::View::may_look)).

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use commonhold_layout::{Damage, Extent, Geometry, HEADER_BYTES, Offset, RegionId};

use crate::{AttachError, BackingMemory, Touch};

/// Words of the bit map for the share table: a bit for each page, for tables up to 128 MiB.
const WORDS: usize = 512;
const PAGE_BITS: u32 = 12;

/// What this process has verified of the tables that grow.
#[derive(Debug)]
pub(crate) struct Backed {
    touch: Touch,
    /// Entries below this have memory.
    entries: AtomicU32,
    /// Each bit of `shares` stands for `1 << share_bits` bytes of the share table.
    share_bits: u32,
    shares: [AtomicU64; WORDS],
}

impl Backed {
    /// Verifies the first page, which says where everything lies.
    pub(crate) fn header(
        memory: &impl BackingMemory,
        window: u64,
        touch: Touch,
    ) -> Result<(), AttachError> {
        let page = Extent::new(0, window.min(HEADER_BYTES));
        page.map_or(Ok(()), |page| back(memory, page, touch))
    }

    /// Verifies the fixed tables.
    pub(crate) fn tables(
        memory: &impl BackingMemory,
        geometry: &Geometry,
        touch: Touch,
    ) -> Result<Self, AttachError> {
        back(memory, geometry.fixed_tables(), touch)?;
        let mut share_bits = PAGE_BITS;
        while geometry.share_table().len() >> share_bits >= 64 * WORDS as u64 {
            share_bits += 1;
        }
        let shares = [const { AtomicU64::new(0) }; WORDS];
        Ok(Self { touch, entries: AtomicU32::new(0), share_bits, shares })
    }

    /// Whether an entry is known to have memory.
    #[inline]
    pub(crate) fn has_entry(&self, region: RegionId) -> bool {
        // Relaxed: the number only says that there is memory. The words that led to the entry order its contents.
        region.get() < self.entries.load(Ordering::Relaxed)
    }

    /// Verifies all entries below `used`, which is a claim of the window.
    pub(crate) fn back_entries(
        &self,
        memory: &impl BackingMemory,
        geometry: &Geometry,
        used: u32,
    ) -> Result<(), Damage> {
        let known = self.entries.load(Ordering::Relaxed);
        if used <= known { Ok(()) } else { self.back_more_entries(memory, geometry, known, used) }
    }

    #[cold]
    fn back_more_entries(
        &self,
        memory: &impl BackingMemory,
        geometry: &Geometry,
        known: u32,
        used: u32,
    ) -> Result<(), Damage> {
        let damage = Damage::new("the number of used regions", used.into());
        let entries = geometry.region_entries(known.into(), used.into()).ok_or(damage)?;
        memory.back(entries, self.touch).map_err(|_| damage)?;
        self.entries.fetch_max(used, Ordering::Relaxed);
        Ok(())
    }

    /// Whether there is memory behind the share word at `at`. The number of used shares, a claim, includes it.
    #[inline]
    pub(crate) fn has_share(
        &self,
        memory: &impl BackingMemory,
        geometry: &Geometry,
        at: Offset,
    ) -> bool {
        self.share(geometry.share_table(), at).is_some_and(|(word, bit, part)| {
            // Relaxed: as in `has_entry`.
            word.load(Ordering::Relaxed) & bit != 0 || self.back_shares(memory, word, bit, part)
        })
    }

    #[cold]
    fn back_shares(
        &self,
        memory: &impl BackingMemory,
        word: &AtomicU64,
        bit: u64,
        part: Extent,
    ) -> bool {
        let backed = memory.back(part, self.touch).is_ok();
        if backed {
            word.fetch_or(bit, Ordering::Relaxed);
        }
        backed
    }

    /// For a share word: the word of the bit map, the bit in it, and the part of the table that the bit stands for.
    fn share(&self, table: Extent, at: Offset) -> Option<(&AtomicU64, u64, Extent)> {
        let part = at.get().checked_sub(table.start().get())? >> self.share_bits;
        let word = self.shares.get(usize::try_from(part / 64).ok()?)?;
        let begin = part << self.share_bits;
        let len = table.len().checked_sub(begin)?.min(1 << self.share_bits);
        Some((word, 1 << (part % 64), table.part(begin, len)?))
    }
}

fn back(memory: &impl BackingMemory, extent: Extent, touch: Touch) -> Result<(), AttachError> {
    memory.back(extent, touch).map_err(|error| match touch {
        Touch::Look => {
            let damage = Damage::new("memory of a table", extent.start().get());
            AttachError::Open(damage.into())
        }
        Touch::Use => AttachError::BackingMemory(error),
    })
}
