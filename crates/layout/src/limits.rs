//! What the format allows: the bounds of each size that may be chosen when a space is formatted.

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
