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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareWord {
    generation: u32,
    readers: u16,
    mappings: u16,
}

impl ShareWord {
    /// Reads a word.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "each part is cut out on purpose")]
    pub const fn from_word(word: u64) -> Self {
        Self {
            generation: (word >> 32) as u32,
            readers: (word >> 16) as u16,
            mappings: word as u16,
        }
    }

    /// The word.
    #[must_use]
    pub const fn word(self) -> u64 {
        ((self.generation as u64) << 32) | ((self.readers as u64) << 16) | self.mappings as u64
    }

    /// Which peer of the slot it belongs to.
    #[must_use]
    pub const fn generation(self) -> u32 {
        self.generation
    }

    /// Read locks that the peer holds.
    #[must_use]
    pub const fn readers(self) -> u16 {
        self.readers
    }

    /// Mappings that the peer has.
    #[must_use]
    pub const fn mappings(self) -> u16 {
        self.mappings
    }

    /// The share as the peer of `generation` sees it: nothing, if it belonged to an earlier one.
    ///
    /// # Errors
    /// [`ShareError::Fenced`] if it belongs to a later one.
    pub const fn of(self, generation: u32) -> Result<Self, ShareError> {
        if self.generation == generation {
            Ok(self)
        } else if self.generation < generation {
            Ok(Self { generation, readers: 0, mappings: 0 })
        } else {
            Err(ShareError::Fenced)
        }
    }

    /// With one more mapping.
    ///
    /// # Errors
    /// [`ShareError::TooMany`].
    pub const fn map(self) -> Result<Self, ShareError> {
        match self.mappings.checked_add(1) {
            Some(mappings) => Ok(Self { mappings, ..self }),
            None => Err(ShareError::TooMany),
        }
    }

    /// With one mapping less. With the last one go the read locks: none can be held any more, and
    /// one that was forgotten must not haunt the next region in the entry.
    ///
    /// # Errors
    /// [`ShareError::None`].
    pub const fn unmap(self) -> Result<Self, ShareError> {
        match self.mappings.checked_sub(1) {
            Some(0) => Ok(Self { mappings: 0, readers: 0, ..self }),
            Some(mappings) => Ok(Self { mappings, ..self }),
            None => Err(ShareError::None),
        }
    }

    /// With one more read lock.
    ///
    /// # Errors
    /// [`ShareError::TooMany`].
    pub const fn read(self) -> Result<Self, ShareError> {
        match self.readers.checked_add(1) {
            Some(readers) => Ok(Self { readers, ..self }),
            None => Err(ShareError::TooMany),
        }
    }

    /// With one read lock less.
    ///
    /// # Errors
    /// [`ShareError::None`].
    pub const fn unread(self) -> Result<Self, ShareError> {
        match self.readers.checked_sub(1) {
            Some(readers) => Ok(Self { readers, ..self }),
            None => Err(ShareError::None),
        }
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
        assert_eq!(empty.unread(), Err(ShareError::None));
        assert_eq!(ShareWord::from_word(u64::MAX).word(), u64::MAX);
    }
}
