//! The hash function of header checksums and names.

/// FNV-1a, 64 bits: Fowler, Noll and Vo, draft-eastlake-fnv.
pub(crate) const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

pub(crate) const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

pub(crate) const fn fnv_step(hash: u64, byte: u8) -> u64 {
    (hash ^ byte as u64).wrapping_mul(FNV_PRIME)
}
