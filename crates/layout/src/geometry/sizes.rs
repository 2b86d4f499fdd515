//! The sizes that determine where everything lies: what a caller may choose, and which values the format allows.

use crate::{FormatError, HEADER_BYTES, OFFSET_LIMIT, limits};

/// What a caller may choose when it formats a space; `None` is a default that fits the capacity.
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

/// The sizes that determine where everything lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) capacity: u64,
    pub(super) page: u64,
    pub(super) peers: u64,
    pub(super) threads: u64,
    pub(super) regions: u64,
    pub(super) domains: u64,
}

impl Sizes {
    /// The sizes for these options. Where the options do not say, a small window gets small tables.
    pub(super) fn planned(options: &FormatOptions) -> Self {
        let (peers, threads, regions, domains) = match options.capacity >> 20 {
            0..8 => (16, 16, 128, 8),
            8..256 => (128, 32, 1024, 16),
            _ => (128, 256, 16_384, 32),
        };
        Self {
            capacity: options.capacity,
            page: if options.page == 0 { limits::PAGE_LEAST } else { options.page },
            peers: options.peers.unwrap_or(peers),
            threads: options.threads.unwrap_or(threads),
            regions: options.regions.unwrap_or(regions),
            domains,
        }
    }

    /// These sizes, if the format allows each of them.
    pub(super) fn checked(self) -> Result<Self, FormatError> {
        in_range("the capacity", self.capacity, HEADER_BYTES, OFFSET_LIMIT)?;
        in_range("the page size", self.page, limits::PAGE_LEAST, limits::PAGE_MOST)?;
        if !self.page.is_power_of_two() {
            // The bounds in the error are the two nearest powers of two: one of them was perhaps meant.
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

pub(super) fn in_range(
    option: &'static str,
    asked: u64,
    least: u64,
    most: u64,
) -> Result<(), FormatError> {
    if (least..=most).contains(&asked) {
        Ok(())
    } else {
        Err(FormatError::OutOfRange { option, asked, least, most })
    }
}
