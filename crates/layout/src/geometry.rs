//! Where everything in a space lies: computed from the sizes in the header, in one way only.
//!
//! `sizes.rs` has the sizes that are chosen, `tables.rs` the offset of each table, and `check.rs` reads and writes the
//! header that holds the sizes. This file answers how many entries each table has, and where one of them lies.

mod check;
mod sizes;
mod tables;
#[cfg(test)]
mod tests;

pub use sizes::FormatOptions;
pub(crate) use tables::record_bytes;
#[cfg(test)]
pub(crate) use tables::{SHARE_ROW_ALIGN, TABLE_ALIGN};

use crate::{Damage, Extent, FormatError, Offset, PeerId, RegionId, ThreadId, limits};
use sizes::{Sizes, in_range};
use tables::TableOffsets;

/// The checked sizes of a space, and with them the offset of every table.
///
/// Its existence proves that all tables lie inside the first `capacity` bytes of the window, and
/// that every offset it hands out is aligned for the words found there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    sizes: Sizes,
    places: TableOffsets,
    lease_ms: u64,
    uuid: u128,
    created_ms: u64,
}

impl Geometry {
    /// Plans a space for a window.
    ///
    /// # Errors
    /// [`FormatError`] if a size is out of range or the tables do not fit.
    pub fn plan(options: &FormatOptions) -> Result<Self, FormatError> {
        let geometry = Self::compute(Sizes::planned(options))?;
        let &FormatOptions { lease_ms, uuid, created_ms, .. } = options;
        if lease_ms != 0 {
            let (least, most) = (limits::LEASE_LEAST_MS, limits::LEASE_MOST_MS);
            in_range("the lease in milliseconds", lease_ms, least, most)?;
        }
        Ok(Self { lease_ms, uuid, created_ms, ..geometry })
    }

    fn compute(sizes: Sizes) -> Result<Self, FormatError> {
        let sizes = sizes.checked()?;
        let capacity = sizes.capacity;
        let places = TableOffsets::new(&sizes)
            .ok_or(FormatError::TooSmall { capacity, needed: u64::MAX })?;
        // A space that could not hold one page of data is of no use.
        let needed = places.data.saturating_add(sizes.page);
        if needed > capacity {
            return Err(FormatError::TooSmall { capacity, needed });
        }
        Ok(Self { sizes, places, lease_ms: 0, uuid: 0, created_ms: 0 })
    }

    /// Bytes of the window that belong to the space.
    #[must_use]
    pub const fn capacity(&self) -> u64 {
        self.sizes.capacity
    }

    /// Alignment and granularity of extents, in bytes.
    #[inline]
    #[must_use]
    pub const fn page(&self) -> u64 {
        self.sizes.page
    }

    /// Number of peer slots.
    #[inline]
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "at most limits::PEERS")]
    pub const fn peers(&self) -> u16 {
        self.sizes.peers as u16
    }

    /// Number of thread slots of each peer.
    #[inline]
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "at most limits::THREADS")]
    pub const fn threads(&self) -> u16 {
        self.sizes.threads as u16
    }

    /// Number of region entries.
    #[inline]
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "at most limits::REGIONS")]
    pub const fn regions(&self) -> u32 {
        self.sizes.regions as u32
    }

    /// Number of domain records.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "at most limits::DOMAINS")]
    pub const fn domains(&self) -> u16 {
        self.sizes.domains as u16
    }

    /// Milliseconds of silence after which a peer without proof is taken for dead; 0: never.
    #[must_use]
    pub const fn lease_ms(&self) -> u64 {
        self.lease_ms
    }

    /// Random identity of the space.
    #[must_use]
    pub const fn uuid(&self) -> u128 {
        self.uuid
    }

    /// When it was formatted, in milliseconds of Unix time.
    #[must_use]
    pub const fn created_ms(&self) -> u64 {
        self.created_ms
    }

    /// The bytes that regions may be placed in.
    #[inline]
    #[must_use]
    pub const fn data(&self) -> Extent {
        let end = self.sizes.capacity & !(self.sizes.page - 1);
        Self::known(self.places.data, end.saturating_sub(self.places.data))
    }

    /// All tables up to and including the name buckets: they must have memory before a peer attaches.
    #[must_use]
    pub const fn fixed_tables(&self) -> Extent {
        Self::known(0, self.places.regions)
    }

    /// The record of a domain.
    #[must_use]
    pub fn domain(&self, index: u16) -> Option<Offset> {
        Self::entry(self.places.domains, record_bytes::DOMAIN, u64::from(index), self.sizes.domains)
    }

    /// The record of a peer.
    #[inline]
    #[must_use]
    pub fn peer(&self, peer: PeerId) -> Option<Offset> {
        Self::entry(self.places.peers, record_bytes::PEER, u64::from(peer.get()), self.sizes.peers)
    }

    /// The slot of a thread of a peer.
    #[inline]
    #[must_use]
    pub fn thread(&self, peer: PeerId, thread: ThreadId) -> Option<Offset> {
        if u64::from(peer.get()) >= self.sizes.peers {
            return None;
        }
        let row =
            self.places.threads + u64::from(peer.get()) * self.sizes.threads * record_bytes::THREAD;
        Self::entry(row, record_bytes::THREAD, u64::from(thread.index()), self.sizes.threads)
    }

    /// The name bucket that `hash` falls into.
    #[inline]
    #[must_use]
    pub const fn bucket(&self, hash: u64) -> Offset {
        let index = hash & (self.places.bucket_count - 1);
        Self::known(self.places.buckets + index * record_bytes::BUCKET, 0).start()
    }

    /// All name buckets.
    #[must_use]
    pub const fn bucket_table(&self) -> Extent {
        Self::known(self.places.buckets, self.places.bucket_count * record_bytes::BUCKET)
    }

    /// The entry of a region.
    #[inline]
    #[must_use]
    pub fn region(&self, region: RegionId) -> Option<Offset> {
        Self::entry(
            self.places.regions,
            record_bytes::REGION,
            u64::from(region.get()),
            self.sizes.regions,
        )
    }

    /// The region `index`, if there is such an entry.
    #[inline]
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "checked against the number of regions")]
    pub const fn region_id(&self, index: u64) -> Option<RegionId> {
        if index < self.sizes.regions { Some(RegionId::new(index as u32)) } else { None }
    }

    /// The region that a link (id + 1, or 0 for none) names.
    ///
    /// # Errors
    /// [`Damage`] if it names none of this space's entries.
    #[inline]
    pub const fn link(&self, raw: u64, field: &'static str) -> Result<Option<RegionId>, Damage> {
        match raw.checked_sub(1) {
            None => Ok(None),
            Some(index) => match self.region_id(index) {
                Some(id) => Ok(Some(id)),
                None => Err(Damage::new(field, raw)),
            },
        }
    }

    /// The share word of a peer in a region.
    #[inline]
    #[must_use]
    pub fn share(&self, peer: PeerId, region: RegionId) -> Option<Offset> {
        if u64::from(peer.get()) >= self.sizes.peers {
            return None;
        }
        let row = self.places.shares + u64::from(peer.get()) * self.places.share_row;
        Self::entry(row, record_bytes::SHARE, u64::from(region.get()), self.sizes.regions)
    }

    /// All share words.
    #[inline]
    #[must_use]
    pub const fn share_table(&self) -> Extent {
        Self::known(self.places.shares, self.sizes.peers * self.places.share_row)
    }

    /// The share words of a peer for the regions below `regions`.
    #[must_use]
    pub fn share_row(&self, peer: PeerId, regions: u64) -> Option<Extent> {
        if u64::from(peer.get()) >= self.sizes.peers || regions > self.sizes.regions {
            return None;
        }
        Extent::new(
            self.places.shares + u64::from(peer.get()) * self.places.share_row,
            regions.saturating_mul(record_bytes::SHARE),
        )
    }

    /// The entries of the regions `from .. to`.
    #[must_use]
    pub fn region_entries(&self, from: u64, to: u64) -> Option<Extent> {
        if from > to || to > self.sizes.regions {
            return None;
        }
        Extent::new(
            self.places.regions + from * record_bytes::REGION,
            (to - from) * record_bytes::REGION,
        )
    }

    /// The thread slots of a peer.
    #[must_use]
    pub fn thread_row(&self, peer: PeerId) -> Option<Extent> {
        let first = self.thread(peer, ThreadId::FIRST)?;
        Extent::new(first.get(), self.sizes.threads * record_bytes::THREAD)
    }

    const fn entry(table: u64, bytes: u64, index: u64, count: u64) -> Option<Offset> {
        if index >= count {
            return None;
        }
        Some(Self::known(table + index * bytes, 0).start())
    }

    /// An extent that the checks in `compute` have shown to lie inside the capacity.
    const fn known(start: u64, len: u64) -> Extent {
        match Extent::new(start, len) {
            Some(extent) => extent,
            None => Extent::EMPTY,
        }
    }
}
