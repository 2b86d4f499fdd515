//! Which pages of the tables have memory behind them, as this process has made sure.
//!
//! # What it owns
//! Two marks of this process: up to where it knows the entries of regions to have memory, and which parts of the
//! table of shares. They answer with one load, and never go back.
//!
//! # Invariants
//! 1. How many entries or shares are in use is a number in the window, and so a claim: anybody may have raised it over
//!    holes, and touching a hole of a full file system is a signal. Nothing behind the fixed tables is touched
//!    until the medium has shown, or taken, the memory behind it.
//! 2. The fixed tables are made sure of when the space is opened, and not looked at again.
//! 3. Who only looks takes no memory: what has none is damage then.
//!
//! # What it does not do
//! Whoever may write the file can punch a hole into it later; nothing here sees that. What lies beyond the tables is not
//! remembered: the view asks the medium each time ([`View::may_look`](crate::View::may_look)).

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use commonhold_layout::{Damage, Extent, Geometry, HEADER_BYTES, Offset, RegionId};

use crate::{AttachError, BackingMemory, Touch};

/// Words of the map of the table of shares: enough for a bit for each page of the table, up to 128 MiB.
const WORDS: usize = 512;
const PAGE_BITS: u32 = 12;

/// What this process knows of the tables that grow.
#[derive(Debug)]
pub(crate) struct Backed {
    touch: Touch,
    /// Entries below this have memory.
    entries: AtomicU32,
    /// Each bit is for `1 << share_bits` bytes of the table of shares.
    share_bits: u32,
    shares: [AtomicU64; WORDS],
}

impl Backed {
    /// Makes sure of the first page, which says where everything lies.
    pub(crate) fn header(
        medium: &impl BackingMemory,
        window: u64,
        touch: Touch,
    ) -> Result<(), AttachError> {
        let page = Extent::new(0, window.min(HEADER_BYTES));
        page.map_or(Ok(()), |page| back(medium, page, touch))
    }

    /// Makes sure of the fixed tables.
    pub(crate) fn tables(
        medium: &impl BackingMemory,
        geometry: &Geometry,
        touch: Touch,
    ) -> Result<Self, AttachError> {
        back(medium, geometry.fixed_tables(), touch)?;
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
        // Relaxed: what the entry says is ordered by what led to it.
        region.get() < self.entries.load(Ordering::Relaxed)
    }

    /// Makes sure of all entries below `used`, a claim of the window's.
    pub(crate) fn back_entries(
        &self,
        medium: &impl BackingMemory,
        geometry: &Geometry,
        used: u32,
    ) -> Result<(), Damage> {
        let known = self.entries.load(Ordering::Relaxed);
        if used <= known { Ok(()) } else { self.back_more_entries(medium, geometry, known, used) }
    }

    #[cold]
    fn back_more_entries(
        &self,
        medium: &impl BackingMemory,
        geometry: &Geometry,
        known: u32,
        used: u32,
    ) -> Result<(), Damage> {
        let damage = Damage::new("the number of used regions", used.into());
        let entries = geometry.region_entries(known.into(), used.into()).ok_or(damage)?;
        medium.back(entries, self.touch).map_err(|_| damage)?;
        self.entries.fetch_max(used, Ordering::Relaxed);
        Ok(())
    }

    /// Whether there is memory behind the share word at `at`, whose row is said to reach that far.
    #[inline]
    pub(crate) fn has_share(
        &self,
        medium: &impl BackingMemory,
        geometry: &Geometry,
        at: Offset,
    ) -> bool {
        self.share(geometry.share_table(), at).is_some_and(|(word, bit, part)| {
            // Relaxed: as in `has_entry`.
            word.load(Ordering::Relaxed) & bit != 0 || self.back_shares(medium, word, bit, part)
        })
    }

    #[cold]
    fn back_shares(
        &self,
        medium: &impl BackingMemory,
        word: &AtomicU64,
        bit: u64,
        part: Extent,
    ) -> bool {
        let backed = medium.back(part, self.touch).is_ok();
        if backed {
            word.fetch_or(bit, Ordering::Relaxed);
        }
        backed
    }

    /// The word of the map and the bit in it for a share word, and the part of the table that they stand for.
    fn share(&self, table: Extent, at: Offset) -> Option<(&AtomicU64, u64, Extent)> {
        let part = at.get().checked_sub(table.start().get())? >> self.share_bits;
        let word = self.shares.get(usize::try_from(part / 64).ok()?)?;
        let begin = part << self.share_bits;
        let len = table.len().checked_sub(begin)?.min(1 << self.share_bits);
        Some((word, 1 << (part % 64), table.part(begin, len)?))
    }
}

fn back(medium: &impl BackingMemory, extent: Extent, touch: Touch) -> Result<(), AttachError> {
    medium.back(extent, touch).map_err(|error| match touch {
        Touch::Look => {
            let damage = Damage::new("memory of a table", extent.start().get());
            AttachError::Open(damage.into())
        }
        Touch::Use => AttachError::BackingMemory(error),
    })
}
