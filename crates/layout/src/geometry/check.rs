//! The header: how a space is read from it and written to it.
//!
//! A header is a claim until [`Geometry::check`] has accepted it. The checksum tells damage, not lies: every number is
//! checked against the limits too.

use super::{Geometry, sizes::Sizes};
use crate::{
    Damage, FormatError, MAGIC, Marker, OpenError, VERSION,
    fnv::{FNV_BASIS, fnv_step},
    header_word::{
        CAPACITY, CHECKSUM, CREATED_MS, DOMAINS, FEATURES, LEASE_MS, PAGE, PEERS, REGIONS, THREADS,
        UUID_HIGH, UUID_LOW, VERSION as VERSION_WORD,
    },
};

impl Geometry {
    /// Checks the first words of a header that was read from a window of `window` bytes.
    ///
    /// # Errors
    /// [`OpenError`] for anything but a whole space of this version.
    pub fn check(words: &[u64; 32], window: u64) -> Result<Self, OpenError> {
        if words[0] != MAGIC {
            return Err(refusal(words[0]));
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
}

/// The error for a first word that is not the magic number.
const fn refusal(found: u64) -> OpenError {
    match Marker::read(found) {
        Some(_) => OpenError::Unfinished,
        None => OpenError::NotASpace { found },
    }
}

pub(super) fn checksum(words: &[u64; 32]) -> u64 {
    let (covered, _) = words.split_at(CHECKSUM);
    covered.iter().skip(1).flat_map(|word| word.to_le_bytes()).fold(FNV_BASIS, fnv_step)
}
