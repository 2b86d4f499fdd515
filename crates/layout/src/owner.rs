//! The identity of an owner, and the bits by which a word names it.
//!
//! ```text
//! 63            32 31  28 27        16 15  13 12        0
//! | incarnation   |   -  | thread     |  -   | peer slot |
//! ```
//! The incarnation is that of the owner's thread slot ([`ThreadLife`](crate::ThreadLife)); 0 names nobody. The
//! meaning of the other bits depends on the word: see `lock.rs` and `slot_word.rs`.

use crate::{PeerId, ThreadId};

/// One incarnation of one thread slot of one peer slot: the only identity an owner has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner {
    peer: PeerId,
    thread: ThreadId,
    incarnation: u32,
}

pub(crate) const THREAD_SHIFT: u32 = 16;
const THREAD_MASK: u64 = 0xfff << THREAD_SHIFT;
pub(crate) const INCARNATION_SHIFT: u32 = 32;

impl Owner {
    /// The owner with these parts; `None` if the incarnation is 0, which names nobody.
    #[inline]
    #[must_use]
    pub const fn new(peer: PeerId, incarnation: u32, thread: ThreadId) -> Option<Self> {
        if incarnation == 0 { None } else { Some(Self { peer, thread, incarnation }) }
    }

    /// Its peer slot.
    #[inline]
    #[must_use]
    pub const fn peer(self) -> PeerId {
        self.peer
    }

    /// Its thread slot.
    #[inline]
    #[must_use]
    pub const fn thread(self) -> ThreadId {
        self.thread
    }

    /// The incarnation of its thread slot.
    #[inline]
    #[must_use]
    pub const fn incarnation(self) -> u32 {
        self.incarnation
    }

    /// The bits that name it; all others are 0.
    #[inline]
    pub(crate) const fn bits(self) -> u64 {
        self.peer.get() as u64
            | ((self.thread.index() as u64) << THREAD_SHIFT)
            | ((self.incarnation as u64) << INCARNATION_SHIFT)
    }

    /// The owner that a word names. A peer slot is read from all of the low 16 bits: a word that sets one of bits 13
    /// to 15 names an owner which does not exist.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "each part is cut out on purpose")]
    pub(crate) const fn from_bits(word: u64) -> Option<Self> {
        Self::new(PeerId::new(word as u16), (word >> INCARNATION_SHIFT) as u32, thread_in(word))
    }
}

/// The thread slot that a word names.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the part is cut out on purpose")]
pub(crate) const fn thread_in(word: u64) -> ThreadId {
    ThreadId::from_bits(((word & THREAD_MASK) >> THREAD_SHIFT) as u16)
}
