//! Where each table of a space begins, for given sizes.
//!
//! The tables follow the header one after the other: domains, peers, thread slots, name buckets, regions, share
//! words. The data area comes last.

use super::sizes::Sizes;
use crate::{HEADER_BYTES, align_up};

/// Bytes of one entry of each table.
pub(crate) mod record_bytes {
    pub(crate) const DOMAIN: u64 = 64;
    pub(crate) const PEER: u64 = 256;
    pub(crate) const THREAD: u64 = 128;
    pub(crate) const BUCKET: u64 = 8;
    pub(crate) const REGION: u64 = 256;
    pub(crate) const SHARE: u64 = 8;
}

/// Every table begins on a boundary of this many bytes.
pub(crate) const TABLE_ALIGN: u64 = 4096;
/// Every row of the share table begins on a boundary of this many bytes: a cache line.
pub(crate) const SHARE_ROW_ALIGN: u64 = 64;

/// Where each table begins, in bytes from the start of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TableOffsets {
    pub(super) domains: u64,
    pub(super) peers: u64,
    pub(super) threads: u64,
    pub(super) buckets: u64,
    /// How many name buckets there are: a power of two.
    pub(super) bucket_count: u64,
    pub(super) regions: u64,
    pub(super) shares: u64,
    /// Bytes from one peer's row of share words to the next.
    pub(super) share_row: u64,
    pub(super) data: u64,
}

impl TableOffsets {
    /// The offsets for checked sizes: with the limits of the format no product here
    /// reaches 2^44, so nothing wraps.
    pub(super) fn new(sizes: &Sizes) -> Option<Self> {
        let &Sizes { page, peers: peer_count, threads: per_peer, regions: region_count, .. } =
            sizes;
        let after = |table: u64, bytes: u64| align_up(table.checked_add(bytes)?, TABLE_ALIGN);
        // At least twice as many buckets as entries, so that a chain is seldom longer than one.
        let bucket_count = (2 * region_count).next_power_of_two();
        let share_row = align_up(region_count * record_bytes::SHARE, SHARE_ROW_ALIGN)?;

        let domains = HEADER_BYTES;
        let peers = after(domains, sizes.domains * record_bytes::DOMAIN)?;
        let threads = after(peers, peer_count * record_bytes::PEER)?;
        let buckets = after(threads, peer_count * per_peer * record_bytes::THREAD)?;
        let regions = after(buckets, bucket_count * record_bytes::BUCKET)?;
        let shares = after(regions, region_count * record_bytes::REGION)?;
        let data = align_up(shares.checked_add(peer_count * share_row)?, page)?;
        Some(Self {
            domains,
            peers,
            threads,
            buckets,
            bucket_count,
            regions,
            shares,
            share_row,
            data,
        })
    }
}
