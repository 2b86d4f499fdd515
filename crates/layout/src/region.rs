//! Region entries: the directory of a space.
//!
//! The words of the first cache line and the name change under the directory mutex only, but are read
//! without it: a reader checks that the state word is the same before and after. The last line
//! belongs to the region's lock and its waiters.

/// Indices of the words of a region entry (256 bytes).
pub mod region_word {
    /// See [`RegionState`](super::RegionState).
    pub const STATE: usize = 0;
    /// Where its extent begins, in bytes from the start of the window.
    pub const OFFSET: usize = 1;
    /// Bytes that a mapping sees.
    pub const SIZE: usize = 2;
    /// Bytes of its extent: it can grow up to here.
    pub const RESERVE: usize = 3;
    /// Hash of its name.
    pub const HASH: usize = 4;
    /// Bytes of its name.
    pub const NAME_LEN: usize = 5;
    /// Next entry in the same name chain: region id + 1, or 0.
    pub const NEXT_IN_CHAIN: usize = 6;
    /// The owner word of the thread that is creating, destroying, freeing or resizing the region. With
    /// [`INCONSISTENT`](crate::LockFlags::INCONSISTENT), bytes beyond the size may hold anything, or have memory. In
    /// an active region that flag says that the owner resizes it, if there is an owner and it lives.
    pub const ACTOR: usize = 7;
    /// First of [`Name::WORDS`](crate::Name::WORDS) words.
    pub const NAME: usize = 8;
    /// The region's lock: the word of its writer.
    pub const LOCK: usize = 24;
    /// Bit `slot % 64` is set if a peer in such a slot may have locked the region to read. Never cleared.
    pub const READERS: usize = 25;
    /// Event: a reader left while a writer was waiting for it.
    pub const DRAINED: usize = 26;
    /// Event: a peer unmapped the region while it was being destroyed.
    pub const UNMAPPED: usize = 27;
    /// Previous extent in the order of addresses: region id + 1, or 0.
    pub const PREVIOUS_EXTENT: usize = 28;
    /// Next extent in the order of addresses: region id + 1, or 0.
    pub const NEXT_EXTENT: usize = 29;
    /// When the owner of the lock took it, in milliseconds of Unix time; 0 if it did not say.
    pub const HELD_SINCE_MS: usize = 30;
    /// When the region was created, in milliseconds of Unix time.
    pub const CREATED_MS: usize = 31;
    /// Words of an entry.
    pub const COUNT: usize = 32;
}

/// The index of a region entry. Turning it into an offset checks that the entry exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionId(u32);

impl RegionId {
    /// Entry `index`.
    #[inline]
    #[must_use]
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// Its index.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The link that names it: id + 1.
    #[inline]
    #[must_use]
    pub const fn link(self) -> u64 {
        self.0 as u64 + 1
    }
}

/// The phase of a region entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegionPhase {
    /// It holds no region.
    Free,
    /// Its name and extent are taken; its memory is being taken. If its actor dies, the creation is undone.
    Creating,
    /// It can be mapped.
    Active,
    /// It waits for its last mapping to go. If its actor dies, it becomes active again, unless deferred.
    Destroying,
    /// Nothing maps it; its memory is being given back. If its actor dies, any thread completes that.
    Freeing,
}

/// The flags of the state word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionFlags(u8);

impl RegionFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// Memory is taken when it is first touched.
    pub const LAZY: Self = Self(1);
    /// While destroying: no destroyer waits; the last unmap frees it.
    pub const DEFERRED: Self = Self(2);

    /// Whether all of `other` is set.
    #[inline]
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These flags and `other`.
    #[inline]
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These flags without `other`.
    #[inline]
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// The state word: bits 0 to 7 the phase, 8 to 15 the flags, 32 to 63 the generation, which grows
/// by one each time the entry is taken, so that (entry, generation) names one region for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionState {
    /// How many regions have had the entry; the present one has this number.
    pub generation: u32,
    /// The phase of the entry.
    pub phase: RegionPhase,
    /// The flags.
    pub flags: RegionFlags,
}

impl RegionState {
    /// Reads a state word; `None` if no program writes such a phase.
    #[inline]
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "each part is cut out on purpose")]
    pub const fn read(word: u64) -> Option<Self> {
        let phase = match word as u8 {
            0 => RegionPhase::Free,
            1 => RegionPhase::Creating,
            2 => RegionPhase::Active,
            3 => RegionPhase::Destroying,
            4 => RegionPhase::Freeing,
            _ => return None,
        };
        Some(Self { generation: (word >> 32) as u32, phase, flags: RegionFlags((word >> 8) as u8) })
    }

    /// The word for this state.
    #[inline]
    #[must_use]
    pub const fn word(self) -> u64 {
        let phase: u64 = match self.phase {
            RegionPhase::Free => 0,
            RegionPhase::Creating => 1,
            RegionPhase::Active => 2,
            RegionPhase::Destroying => 3,
            RegionPhase::Freeing => 4,
        };
        phase | ((self.flags.0 as u64) << 8) | ((self.generation as u64) << 32)
    }

    /// This state in another phase.
    #[inline]
    #[must_use]
    pub const fn in_phase(self, phase: RegionPhase) -> Self {
        Self { phase, ..self }
    }

    /// This state with other flags.
    #[inline]
    #[must_use]
    pub const fn with_flags(self, flags: RegionFlags) -> Self {
        Self { flags, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_state_that_can_be_read_is_written_the_same(word: u64) {
            if let Some(state) = RegionState::read(word) {
                prop_assert_eq!(RegionState::read(state.word()), Some(state));
            }
        }
    }
}
