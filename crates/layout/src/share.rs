//! Share words: what one peer has of one region.
//!
//! ```text
//! 63            32 31        16 15       0
//! | generation    | readers    | mappings |
//! ```
//! Only the peer of the slot changes its words, by compare-and-swap. The generation is part of the
//! word, so the share of a dead peer needs no cleaning: it is void as soon as the slot's state word
//! says another generation or another phase.

use core::fmt;

/// Why a share cannot change as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShareError {
    /// The peer already has 65,535 of them.
    TooMany,
    /// The peer has none.
    None,
    /// The word belongs to a later peer: the caller has been declared dead.
    Fenced,
}

impl fmt::Display for ShareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooMany => "this process already has 65535 of them",
            Self::None => "this process has none",
            Self::Fenced => "this process was declared dead and its share was dropped",
        })
    }
}

impl core::error::Error for ShareError {}

/// The value of a share word. Every bit pattern is a valid value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ShareWord(u64);

const READER: u64 = 1 << 16;
const MAPPING: u64 = 1;

impl core::fmt::Debug for ShareWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShareWord")
            .field("generation", &self.generation())
            .field("readers", &self.readers())
            .field("mappings", &self.mappings())
            .finish()
    }
}

impl ShareWord {
    /// Reads a word.
    #[inline]
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The word.
    #[inline]
    #[must_use]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Which peer of the slot it belongs to.
    #[inline]
    #[must_use]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Read locks that the peer holds.
    #[inline]
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the part is cut out on purpose")]
    pub const fn readers(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Mappings that the peer has.
    #[inline]
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the part is cut out on purpose")]
    pub const fn mappings(self) -> u16 {
        self.0 as u16
    }

    /// The share as the peer of `generation` sees it: nothing, if it belonged to an earlier one.
    ///
    /// # Errors
    /// [`ShareError::Fenced`] if it belongs to a later one.
    #[inline]
    pub const fn of(self, generation: u32) -> Result<Self, ShareError> {
        let found = self.generation();
        if found == generation {
            Ok(self)
        } else if found < generation {
            Ok(Self((generation as u64) << 32))
        } else {
            Err(ShareError::Fenced)
        }
    }

    /// With one more mapping.
    ///
    /// # Errors
    /// [`ShareError::TooMany`].
    #[inline]
    pub const fn map(self) -> Result<Self, ShareError> {
        if self.mappings() == u16::MAX {
            return Err(ShareError::TooMany);
        }
        Ok(Self(self.0 + MAPPING))
    }

    /// With one mapping less. With the last one go the read locks: none can be held any more, and
    /// one that was forgotten must not haunt the next region in the entry.
    ///
    /// # Errors
    /// [`ShareError::None`].
    #[inline]
    pub const fn unmap(self) -> Result<Self, ShareError> {
        match self.mappings() {
            0 => Err(ShareError::None),
            1 => Ok(Self((self.generation() as u64) << 32)),
            _ => Ok(Self(self.0 - MAPPING)),
        }
    }

    /// With one more read lock.
    ///
    /// # Errors
    /// [`ShareError::TooMany`].
    #[inline]
    pub const fn read(self) -> Result<Self, ShareError> {
        if self.readers() == u16::MAX {
            return Err(ShareError::TooMany);
        }
        Ok(Self(self.0 + READER))
    }

    /// With one read lock less.
    ///
    /// # Errors
    /// [`ShareError::None`].
    #[inline]
    pub const fn unlock_read(self) -> Result<Self, ShareError> {
        if self.readers() == 0 {
            return Err(ShareError::None);
        }
        Ok(Self(self.0 - READER))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_an_earlier_generation_counts_nothing() {
        let old = ShareWord::from_word(7 << 32 | 3 << 16 | 9);
        let mine = old.of(8).unwrap();
        assert_eq!((mine.readers(), mine.mappings()), (0, 0));
        assert_eq!(old.of(6), Err(ShareError::Fenced));
    }

    #[test]
    fn the_last_unmap_takes_forgotten_read_locks_along() {
        let share = ShareWord::from_word(1 << 32).map().unwrap().read().unwrap();
        assert_eq!(share.unmap().unwrap().readers(), 0);
        let twice = share.map().unwrap();
        assert_eq!(twice.unmap().unwrap().readers(), 1);
    }

    #[test]
    fn counts_neither_wrap_nor_spill_into_their_neighbours() {
        let full = ShareWord::from_word(1 << 32 | 0xffff_ffff);
        assert_eq!(full.map(), Err(ShareError::TooMany));
        assert_eq!(full.read(), Err(ShareError::TooMany));
        let empty = ShareWord::from_word(1 << 32);
        assert_eq!(empty.unmap(), Err(ShareError::None));
        assert_eq!(empty.unlock_read(), Err(ShareError::None));
        assert_eq!(ShareWord::from_word(u64::MAX).word(), u64::MAX);
    }
}
