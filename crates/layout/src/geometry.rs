//! Where the tables of a space lie: computed from the sizes in the header, in one way only.

use crate::{
    Damage, Extent, FormatError, HEADER_BYTES, MAGIC, OFFSET_LIMIT, Offset, OpenError, PeerId,
    RegionId, ThreadId, VERSION, align_up, header,
    header_word::{
        CAPACITY, CHECKSUM, CREATED_MS, DOMAINS, FEATURES, LEASE_MS, PAGE, PEERS, REGIONS, THREADS,
        UUID_HIGH, UUID_LOW, VERSION as VERSION_WORD,
    },
};

/// What the format allows.
pub mod limits {
    /// Most peers: slots are named in 16 bits, and tables stay within reason.
    pub const PEERS: u64 = 4096;
    /// Most thread slots of a peer: they are named in 12 bits.
    pub const THREADS: u64 = 4095;
    /// Most regions.
    pub const REGIONS: u64 = 1 << 20;
    /// Most domains.
    pub const DOMAINS: u64 = 256;
    /// Smallest page.
    pub const PAGE_LEAST: u64 = 4096;
    /// Largest page: a gigabyte, the largest huge page of common machines.
    pub const PAGE_MOST: u64 = 1 << 30;
    /// Shortest lease, in milliseconds: a peer must be able to beat several times within it, however
    /// busy its machine is.
    pub const LEASE_LEAST_MS: u64 = 100;
    /// Longest lease, in milliseconds: about seven weeks.
    pub const LEASE_MOST_MS: u64 = 1 << 32;
}

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

/// What somebody may choose when formatting; `None` is a default that fits the capacity.
#[derive(Debug, Clone, Copy, Default)]
pub struct FormatOptions {
    /// Bytes of the window to use.
    pub capacity: u64,
    /// Alignment of extents, in bytes; 0 means 4096.
    pub page: u64,
    /// Peer slots.
    pub peers: Option<u64>,
    /// Thread slots of each peer.
    pub threads: Option<u64>,
    /// Region entries.
    pub regions: Option<u64>,
    /// Milliseconds after which a silent peer without proof is taken for dead; 0: never. At least
    /// [`limits::LEASE_LEAST_MS`].
    pub lease_ms: u64,
    /// Random identity of the space.
    pub uuid: u128,
    /// Now, in milliseconds of Unix time.
    pub created_ms: u64,
}

/// What decides where everything lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sizes {
    capacity: u64,
    page: u64,
    peers: u64,
    threads: u64,
    regions: u64,
    domains: u64,
}

impl Sizes {
    /// These sizes, if the format allows each of them.
    fn checked(self) -> Result<Self, FormatError> {
        in_range("the capacity", self.capacity, HEADER_BYTES, OFFSET_LIMIT)?;
        in_range("the page size", self.page, limits::PAGE_LEAST, limits::PAGE_MOST)?;
        if !self.page.is_power_of_two() {
            // Between the two that were perhaps meant.
            let most = self.page.next_power_of_two();
            return Err(FormatError::OutOfRange {
                option: "the page size",
                asked: self.page,
                least: most >> 1,
                most,
            });
        }
        in_range("the number of peers", self.peers, 1, limits::PEERS)?;
        in_range("the number of threads of a peer", self.threads, 1, limits::THREADS)?;
        in_range("the number of regions", self.regions, 1, limits::REGIONS)?;
        in_range("the number of domains", self.domains, 1, limits::DOMAINS)?;
        Ok(self)
    }
}

fn in_range(option: &'static str, asked: u64, least: u64, most: u64) -> Result<(), FormatError> {
    if (least..=most).contains(&asked) {
        Ok(())
    } else {
        Err(FormatError::OutOfRange { option, asked, least, most })
    }
}

/// Where each table begins, in bytes from the start of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Places {
    domains: u64,
    peers: u64,
    threads: u64,
    buckets: u64,
    /// How many name buckets there are: a power of two.
    bucket_count: u64,
    regions: u64,
    shares: u64,
    /// Bytes from one peer's row of share words to the next.
    share_row: u64,
    data: u64,
}

impl Places {
    /// One table after the other, for checked sizes: with the limits of the format no product here
    /// reaches 2^44, so nothing wraps.
    fn of(sizes: &Sizes) -> Option<Self> {
        let &Sizes { page, peers: peer_count, threads: per_peer, regions: region_count, .. } =
            sizes;
        let after = |table: u64, bytes: u64| align_up(table.checked_add(bytes)?, TABLE_ALIGN);
        // Twice as many as there can be entries, so that a chain is seldom longer than one.
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

/// The checked sizes of a space, and with them the place of every table.
///
/// Its existence proves that all tables lie inside the first `capacity` bytes of the window, and
/// that every offset it hands out is aligned for the words found there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    sizes: Sizes,
    places: Places,
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
        let (peers, threads, regions, domains) = match options.capacity >> 20 {
            0..8 => (16, 16, 128, 8),
            8..256 => (128, 32, 1024, 16),
            _ => (128, 256, 16_384, 32),
        };
        let geometry = Self::compute(Sizes {
            capacity: options.capacity,
            page: if options.page == 0 { limits::PAGE_LEAST } else { options.page },
            peers: options.peers.unwrap_or(peers),
            threads: options.threads.unwrap_or(threads),
            regions: options.regions.unwrap_or(regions),
            domains,
        })?;
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
        let places =
            Places::of(&sizes).ok_or(FormatError::TooSmall { capacity, needed: u64::MAX })?;
        // A space that could not hold one page of data is of no use.
        let needed = places.data.saturating_add(sizes.page);
        if needed > capacity {
            return Err(FormatError::TooSmall { capacity, needed });
        }
        Ok(Self { sizes, places, lease_ms: 0, uuid: 0, created_ms: 0 })
    }

    /// Checks the first words of a header that was read from a window of `window` bytes.
    ///
    /// # Errors
    /// [`OpenError`] for anything but a whole space of this version.
    pub fn check(words: &[u64; 32], window: u64) -> Result<Self, OpenError> {
        if words[0] != MAGIC {
            return Err(header::refusal(words[0]));
        }
        if words[VERSION_WORD] != VERSION {
            return Err(OpenError::Version { found: words[VERSION_WORD] });
        }
        if words[CHECKSUM] != checksum(words) {
            return Err(Damage::new("the header's checksum", words[CHECKSUM]).into());
        }
        if words[FEATURES] != 0 {
            return Err(OpenError::Features { unknown: words[FEATURES] });
        }
        let capacity = words[CAPACITY];
        let geometry = Self::compute(Sizes {
            capacity,
            page: words[PAGE],
            peers: words[PEERS],
            threads: words[THREADS],
            regions: words[REGIONS],
            domains: words[DOMAINS],
        })
        .map_err(|error| match error {
            FormatError::OutOfRange { option, asked, .. } => Damage::new(option, asked),
            FormatError::TooSmall { .. } => Damage::new("the capacity", capacity),
        })?;
        if capacity > window {
            return Err(OpenError::Truncated { window, capacity });
        }
        Ok(Self {
            lease_ms: words[LEASE_MS],
            uuid: u128::from(words[UUID_LOW]) | (u128::from(words[UUID_HIGH]) << 64),
            created_ms: words[CREATED_MS],
            ..geometry
        })
    }

    /// The words 0 to 31 of the header of this space; the first one, the magic number, included.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the halves of the identity are meant")]
    pub fn header(&self) -> [u64; 32] {
        let mut words = [0; 32];
        words[0] = MAGIC;
        words[VERSION_WORD] = VERSION;
        words[CAPACITY] = self.sizes.capacity;
        words[PAGE] = self.sizes.page;
        words[PEERS] = self.sizes.peers;
        words[THREADS] = self.sizes.threads;
        words[REGIONS] = self.sizes.regions;
        words[DOMAINS] = self.sizes.domains;
        words[LEASE_MS] = self.lease_ms;
        words[UUID_LOW] = self.uuid as u64;
        words[UUID_HIGH] = (self.uuid >> 64) as u64;
        words[CREATED_MS] = self.created_ms;
        words[CHECKSUM] = checksum(&words);
        words
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

    /// What must have memory behind it before anybody attaches: all tables up to the name buckets.
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

fn checksum(words: &[u64; 32]) -> u64 {
    let (covered, _) = words.split_at(CHECKSUM);
    covered.iter().skip(1).flat_map(|word| word.to_le_bytes()).fold(FNV_BASIS, fnv_step)
}

/// FNV-1a, 64 bits: Fowler, Noll and Vo, draft-eastlake-fnv.
pub(crate) const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

pub(crate) const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

pub(crate) const fn fnv_step(hash: u64, byte: u8) -> u64 {
    (hash ^ byte as u64).wrapping_mul(FNV_PRIME)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn options(capacity: u64) -> FormatOptions {
        FormatOptions { capacity, ..FormatOptions::default() }
    }

    #[test]
    fn a_window_of_one_mebibyte_holds_a_usable_space() {
        let geometry = Geometry::plan(&options(1 << 20)).unwrap();
        assert!(geometry.data().len() >= 700 << 10, "{geometry:?}");
        assert!(geometry.peers() >= 16 && geometry.regions() >= 128);
    }

    #[test]
    fn a_window_of_one_tebibyte_with_many_regions_is_planned() {
        let geometry = Geometry::plan(&FormatOptions {
            peers: Some(128),
            regions: Some(65_536),
            ..options(1 << 40)
        })
        .unwrap();
        assert_eq!(geometry.regions(), 65_536);
        assert!(geometry.data().len() > (1 << 40) - (256 << 20));
    }

    #[test]
    fn a_lease_within_which_no_heart_can_beat_is_refused() {
        for (lease_ms, fits) in [(0, true), (99, false), (100, true), (1 << 33, false)] {
            let planned = Geometry::plan(&FormatOptions { lease_ms, ..options(1 << 20) });
            assert_eq!(planned.is_ok(), fits, "{lease_ms}");
        }
    }

    #[test]
    fn tables_that_do_not_fit_are_refused_with_what_they_need() {
        let error = Geometry::plan(&FormatOptions { regions: Some(65_536), ..options(1 << 20) })
            .unwrap_err();
        let FormatError::TooSmall { needed, .. } = error else { panic!("{error:?}") };
        let plan = Geometry::plan(&FormatOptions {
            regions: Some(65_536),
            peers: Some(16),
            threads: Some(16),
            ..options(needed)
        });
        assert!(plan.is_ok(), "{plan:?}");
    }

    #[test]
    fn a_header_survives_the_round_trip() {
        let geometry = Geometry::plan(&FormatOptions {
            lease_ms: 500,
            uuid: u128::MAX - 7,
            created_ms: 99,
            ..options(1 << 30)
        })
        .unwrap();
        assert_eq!(Geometry::check(&geometry.header(), 1 << 30).unwrap(), geometry);
    }

    #[test]
    fn each_kind_of_bad_header_is_told_apart() {
        let geometry = Geometry::plan(&options(1 << 20)).unwrap();
        let good = geometry.header();
        let with = |index: usize, value: u64| {
            let mut words = good;
            words[index] = value;
            Geometry::check(&words, 1 << 20).unwrap_err()
        };
        assert!(matches!(with(0, 0), OpenError::NotASpace { found: 0 }));
        assert!(matches!(with(VERSION_WORD, 1), OpenError::Version { found: 1 }));
        assert!(matches!(with(REGIONS, 129), OpenError::Damaged(_)));
        assert!(matches!(
            Geometry::check(&good, (1 << 20) - 1).unwrap_err(),
            OpenError::Truncated { .. }
        ));
    }

    proptest! {
        /// Even a header with a right checksum may lie about its sizes: every offset that comes out
        /// of one that is accepted must lie inside the capacity.
        #[test]
        fn no_accepted_header_reaches_outside_its_window(
            capacity in 0_u64..1 << 50, page in prop_oneof![Just(4096_u64), Just(1 << 21), any::<u64>()],
            peers in 0_u64..5000, threads in 0_u64..5000, regions in 0_u64..2_000_000, domains in 0_u64..300,
        ) {
            let mut words = [0_u64; 32];
            words[0] = MAGIC;
            words[VERSION_WORD] = VERSION;
            words[CAPACITY] = capacity;
            words[PAGE] = page;
            words[PEERS] = peers;
            words[THREADS] = threads;
            words[REGIONS] = regions;
            words[DOMAINS] = domains;
            words[CHECKSUM] = checksum(&words);
            if let Ok(geometry) = Geometry::check(&words, capacity) {
                let last_peer = PeerId::new(geometry.peers() - 1);
                let last_region = geometry.region_id(u64::from(geometry.regions()) - 1).unwrap();
                let ends = [
                    geometry.data().end(),
                    geometry.peer(last_peer).unwrap().get() + record_bytes::PEER,
                    geometry.region(last_region).unwrap().get() + record_bytes::REGION,
                    geometry.share(last_peer, last_region).unwrap().get() + record_bytes::SHARE,
                    geometry.thread_row(last_peer).unwrap().end(),
                    geometry.domain(geometry.domains() - 1).unwrap().get() + record_bytes::DOMAIN,
                    geometry.bucket(u64::MAX).get() + record_bytes::BUCKET,
                ];
                prop_assert!(ends.iter().all(|end| *end <= capacity));
                prop_assert!(geometry.data().len() >= page);
                prop_assert!(geometry.region_id(u64::from(geometry.regions())).is_none());
            }
        }
    }
}
