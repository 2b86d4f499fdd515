//! Read keys: what a thread that reads under a lock writes into its slot.
//!
//! ```text
//! a region's lock     | 63 generation 32 | 31 0 | 30                    link (id + 1) 0 |
//! a lock in its bytes | 63 epoch 46 | 45 high 32 | 31 1 | 30 low part of the place    0 |
//! ```
//! Links are at most 2^20, so bit 31 tells the two kinds apart. The place of a lock in bytes is the offset of its
//! first word, in words. The epoch stands for the region it lies in: a read lock that a thread forgot there must not
//! count for a lock that a later region has at the same place.

use crate::{OFFSET_LIMIT, Offset, RegionId};

const RECORD: u64 = 1 << 31;
const LOW_BITS: u32 = 31;
const LOW_MASK: u64 = RECORD - 1;
const HIGH_SHIFT: u32 = 32;
const HIGH_MASK: u64 = 0x3fff;
const EPOCH_SHIFT: u32 = 46;

/// The difference between the epochs of neighbouring region ids: the first 512 regions have epochs of their own in
/// their first 511 generations.
pub const EPOCH_STEP: u64 = 511;

const _: () = assert!(OFFSET_LIMIT / 8 <= (HIGH_MASK + 1) << LOW_BITS, "a place has 45 bits");

/// The key that names a lock in the thread slots of its readers. Never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReadKey(u64);

impl ReadKey {
    /// The key of a region's own lock.
    #[inline]
    #[must_use]
    pub const fn of_region(region: RegionId, generation: u32) -> Self {
        Self(region.link() | (generation as u64) << 32)
    }

    /// The key of the lock whose first word lies at `at`, in the bytes of a region.
    #[inline]
    #[must_use]
    pub const fn of_record(at: Offset, region: RegionId, generation: u32) -> Self {
        let place = at.get() / 8;
        let epoch = (region.get() as u64 * EPOCH_STEP).wrapping_add(generation as u64);
        Self(
            place & LOW_MASK
                | RECORD
                | (place >> LOW_BITS) << HIGH_SHIFT
                // The upper bits, which do not fit, are shifted out.
                | epoch << EPOCH_SHIFT,
        )
    }

    /// The word for it.
    #[inline]
    #[must_use]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Reads a key; every bit pattern but 0 is one.
    #[must_use]
    pub const fn read(word: u64) -> Option<Self> {
        if word == 0 { None } else { Some(Self(word)) }
    }

    /// Where the lock's first word lies, if the lock is in the bytes of a region.
    #[must_use]
    pub const fn record(self) -> Option<Offset> {
        if self.0 & RECORD == 0 {
            return None;
        }
        let place = self.0 & LOW_MASK | (self.0 >> HIGH_SHIFT & HIGH_MASK) << LOW_BITS;
        Offset::new(place * 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_lock_in_bytes_has_the_key_of_a_regions_lock_or_of_one_elsewhere(
            place in 0_u64..1 << 45, other in 0_u64..1 << 45,
            region in 0_u32..1 << 20, generation: u32, another: u32,
        ) {
            let at = Offset::new(place * 8).unwrap();
            let region = RegionId::new(region);
            let key = ReadKey::of_record(at, region, generation);
            prop_assert_eq!(key.record(), Some(at));
            prop_assert_eq!(ReadKey::read(key.word()), Some(key));
            prop_assert_eq!(ReadKey::of_region(region, another).record(), None);
            if other != place {
                let there = Offset::new(other * 8).unwrap();
                prop_assert_ne!(key, ReadKey::of_record(there, region, another));
            }
            if another >> 18 == generation >> 18 && another != generation {
                prop_assert_ne!(key, ReadKey::of_record(at, region, another));
            }
        }
    }

    #[test]
    fn the_first_regions_at_a_place_have_keys_of_their_own() {
        let mut keys = std::collections::BTreeSet::new();
        for (region, generation) in (0..512).flat_map(|id| (1..512).map(move |of| (id, of))) {
            let key = ReadKey::of_record(Offset::ZERO, RegionId::new(region), generation);
            assert!(keys.insert(key.word()), "{region} {generation}");
        }
    }
}
