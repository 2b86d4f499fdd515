//! Peer records.
//!
//! The state word is changed by compare-and-swap only. The other words are written by the peer
//! itself while it attaches, and mean something only to a reader that finds the same generation in
//! the state word before and after reading them.

use core::fmt;

/// Indices of the words of a peer record (256 bytes).
pub mod peer_word {
    /// See [`PeerState`](super::PeerState).
    pub const STATE: usize = 0;
    /// Index of its domain record.
    pub const DOMAIN: usize = 1;
    /// Its process id, in its own PID namespace.
    pub const PID: usize = 2;
    /// Inode number of its PID namespace.
    pub const PID_NAMESPACE: usize = 3;
    /// When its process was started, in clock ticks since its kernel booted.
    pub const START_TIME: usize = 4;
    /// Its user id.
    pub const UID: usize = 5;
    /// When it attached, in milliseconds of Unix time.
    pub const ATTACHED_MS: usize = 6;
    /// Share words of this slot that have memory behind them. Only grows, over all generations.
    pub const SHARES_USED: usize = 7;
    /// Counts up while the peer is alive, if it leaves this evidence.
    pub const HEARTBEAT: usize = 8;
    /// Thread slots used in this generation.
    pub const THREADS_USED: usize = 9;
    /// The death futex, by which its kernel tells of its death; see [`DeathFutex`](super::DeathFutex).
    pub const DEATH_FUTEX: usize = 10;
    /// Not 0: an earlier peer of this slot was declared dead without proof, and may still run. Threads of later peers
    /// do not arm their [life words](crate::ThreadLife): the kernel could mark them when a thread of that peer ends.
    pub const UNPROVEN: usize = 11;
    /// First of [`PeerName::WORDS`](super::PeerName::WORDS) words: its name, padded with zeros.
    pub const NAME: usize = 16;
    /// Words of a record.
    pub const COUNT: usize = 32;
}

/// A peer slot. That the slot exists is checked where it is turned into an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(u16);

impl PeerId {
    /// Slot `slot`.
    #[inline]
    #[must_use]
    pub const fn new(slot: u16) -> Self {
        Self(slot)
    }

    /// Its number.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// One peer of a slot: the slot and the generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerRef {
    /// The slot.
    pub peer: PeerId,
    /// Its [generation](PeerState::generation).
    pub generation: u32,
}

impl PeerRef {
    /// The peer of `generation` in a slot.
    #[inline]
    #[must_use]
    pub const fn new(peer: PeerId, generation: u32) -> Self {
        Self { peer, generation }
    }
}

/// What a death futex word says. Its low half is a robust futex of Linux: the id of the heartbeat thread, in its own
/// PID namespace, and two bits that the kernel knows. That thread lives as long as its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeathFutex(u64);

impl DeathFutex {
    /// The peer has no death futex yet.
    pub const NONE: Self = Self(0);
    /// A thread sleeps on the word (`FUTEX_WAITERS`).
    const WAITERS: u64 = 1 << 31;
    /// The heartbeat thread has ended (`FUTEX_OWNER_DIED`).
    const FIRED: u64 = 1 << 30;
    /// The bits of the id (`FUTEX_TID_MASK`).
    const THREAD: u64 = Self::FIRED - 1;
    /// The heartbeat thread also keeps the evidence of its process in a descriptor table of its own, where no other
    /// thread of the process can close it.
    const KEEPS_EVIDENCE: u64 = 1 << 32;
    /// The heartbeat thread is the only one that still has the evidence.
    const ALONE: u64 = 1 << 34;
    /// There is no heartbeat thread, and there will be none.
    const ABSENT: u64 = 1 << 33;

    /// The peer has no death futex, and will have none.
    pub const NEVER: Self = Self(Self::ABSENT);

    /// The death futex of the heartbeat thread `id`.
    #[inline]
    #[must_use]
    pub const fn of_thread(id: u32) -> Self {
        Self(id as u64 & Self::THREAD)
    }

    /// The same, of a heartbeat thread that keeps the evidence of its process where no other thread can close it.
    #[inline]
    #[must_use]
    pub const fn keeping_evidence(self) -> Self {
        Self(self.0 | Self::KEEPS_EVIDENCE)
    }

    /// The same, without a thread: its heartbeat thread is about to end in order, and the kernel must not fire it.
    #[inline]
    #[must_use]
    pub const fn taken_down(self) -> Self {
        Self(self.0 & Self::KEEPS_EVIDENCE)
    }

    /// The bit that the heartbeat thread sets when it finds that only it still has the evidence of its process. Then
    /// the evidence goes when that thread ends, which may be before other threads do.
    pub const KEPT_ALONE: u64 = Self::ALONE;

    /// Whether the evidence goes when the heartbeat thread ends, though other threads may still run.
    #[inline]
    #[must_use]
    pub const fn keeps_alone(self) -> bool {
        self.0 & Self::ALONE != 0
    }

    /// Whether the peer will never have a death futex.
    #[inline]
    #[must_use]
    pub const fn is_never_there(self) -> bool {
        self.0 & Self::ABSENT != 0
    }

    /// Whether the heartbeat thread keeps, or kept, the evidence in a descriptor table of its own.
    #[inline]
    #[must_use]
    pub const fn keeps_evidence(self) -> bool {
        self.0 & Self::KEEPS_EVIDENCE != 0
    }

    /// Reads the word.
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

    /// Whether the peer has a death futex, fired or not.
    #[inline]
    #[must_use]
    pub const fn is_there(self) -> bool {
        self.0 & (Self::FIRED | Self::THREAD) != 0
    }

    /// Whether it has fired: the kernel has marked the word.
    #[inline]
    #[must_use]
    pub const fn has_fired(self) -> bool {
        self.0 & Self::FIRED != 0
    }

    /// The same, with a thread asleep on it.
    #[inline]
    #[must_use]
    pub const fn with_sleepers(self) -> Self {
        Self(self.0 | Self::WAITERS)
    }
}

/// The phase of a peer slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerPhase {
    /// No peer has it.
    Free,
    /// A peer has it, and is still writing the record.
    Attaching,
    /// A peer has it.
    Live,
    /// Its peer is dead, or was declared dead; what it left behind has not been cleaned up yet.
    Fenced,
}

/// The evidence by which others know whether a peer lives: its kernel withdraws it, or it stops moving, when the peer
/// dies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Evidence(u8);

impl Evidence {
    /// None at all.
    pub const NONE: Self = Self(0);
    /// An OFD lock on the byte of its slot in the space's file.
    pub const OFD_LOCK: Self = Self(1);
    /// Process id, start time and PID namespace.
    pub const PROCESS: Self = Self(2);
    /// A counter that the peer keeps moving: no proof, but all that there is between kernels.
    pub const HEARTBEAT: Self = Self(4);
    /// As [`OFD_LOCK`](Self::OFD_LOCK), but a shared lock, which processes that may only read the file can have too.
    /// A lock that is there proves nothing; a lock that is gone proves the death.
    pub const SHARED_LOCK: Self = Self(8);

    /// Whether all of `other` is in it.
    #[inline]
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// This and `other`.
    #[inline]
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Self::OFD_LOCK, "ofd-lock"),
            (Self::PROCESS, "process"),
            (Self::HEARTBEAT, "heartbeat"),
            (Self::SHARED_LOCK, "shared-lock"),
        ];
        f.debug_set()
            .entries(names.iter().filter(|(bit, _)| self.contains(*bit)).map(|(_, name)| name))
            .finish()
    }
}

/// The state word: bits 0 to 7 the phase, 8 to 15 the evidence, 32 to 63 the generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerState {
    /// How many peers have had the slot; the present one has this number.
    pub generation: u32,
    /// The phase of the slot.
    pub phase: PeerPhase,
    /// The evidence that the peer has left.
    pub evidence: Evidence,
}

impl PeerState {
    /// Reads a state word. An unknown phase is read as fenced: the slot has no living peer, and cleaning up
    /// makes it usable again.
    #[inline]
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "each part is cut out on purpose")]
    pub const fn read(word: u64) -> Self {
        let phase = match word as u8 {
            0 => PeerPhase::Free,
            1 => PeerPhase::Attaching,
            2 => PeerPhase::Live,
            _ => PeerPhase::Fenced,
        };
        Self { generation: (word >> 32) as u32, phase, evidence: Evidence((word >> 8) as u8) }
    }

    /// The word for this state.
    #[inline]
    #[must_use]
    pub const fn word(self) -> u64 {
        let phase: u64 = match self.phase {
            PeerPhase::Free => 0,
            PeerPhase::Attaching => 1,
            PeerPhase::Live => 2,
            PeerPhase::Fenced => 3,
        };
        phase | ((self.evidence.0 as u64) << 8) | ((self.generation as u64) << 32)
    }

    /// This state in another phase.
    #[inline]
    #[must_use]
    pub const fn in_phase(self, phase: PeerPhase) -> Self {
        Self { phase, ..self }
    }

    /// Whether the peer of `generation` has the slot and is not known to be dead.
    #[inline]
    #[must_use]
    pub const fn is_current(self, generation: u32) -> bool {
        self.generation == generation
            && matches!(self.phase, PeerPhase::Live | PeerPhase::Attaching)
    }
}

/// The name of a peer, for people: the first bytes of its command, cut at a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeerName {
    words: [u64; Self::WORDS],
}

impl PeerName {
    /// Words in a record.
    pub const WORDS: usize = 4;
    const BYTES: usize = Self::WORDS * 8;

    /// As much of `text` as fits.
    #[inline]
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut end = text.len().min(Self::BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut words = [0; Self::WORDS];
        let bytes = text.as_bytes().get(..end).unwrap_or(&[]);
        for (index, byte) in bytes.iter().enumerate() {
            if let Some(word) = words.get_mut(index / 8) {
                *word |= u64::from(*byte) << (8 * (index % 8));
            }
        }
        Self { words }
    }

    /// Reads the words of a record.
    #[must_use]
    pub const fn from_words(words: [u64; Self::WORDS]) -> Self {
        Self { words }
    }

    /// The words of a record.
    #[must_use]
    pub const fn words(&self) -> &[u64; Self::WORDS] {
        &self.words
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = [0; Self::BYTES];
        for (to, word) in buffer.chunks_exact_mut(8).zip(&self.words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        let len = buffer.iter().position(|byte| *byte == 0).unwrap_or(Self::BYTES);
        let text = buffer.get(..len).and_then(|b| core::str::from_utf8(b).ok()).unwrap_or("?");
        // The name is shown on terminals, and any peer may have written it.
        let clean = !text.chars().any(char::is_control);
        f.pad(if clean { text } else { "?" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_state_word_survives_the_round_trip() {
        for phase in [PeerPhase::Free, PeerPhase::Attaching, PeerPhase::Live, PeerPhase::Fenced] {
            let evidence = Evidence::OFD_LOCK.with(Evidence::HEARTBEAT);
            let state = PeerState { generation: u32::MAX, phase, evidence };
            assert_eq!(PeerState::read(state.word()), state);
        }
    }

    #[test]
    fn a_long_name_is_cut_at_a_character() {
        assert_eq!(PeerName::new("worker").to_string(), "worker");
        let cut = PeerName::new(&"é".repeat(40)).to_string();
        assert_eq!(cut, "é".repeat(16));
        let odd = PeerName::new(&("x".to_string() + &"é".repeat(40))).to_string();
        assert_eq!(odd.len(), 31);
    }

    #[test]
    fn a_name_that_would_upset_a_terminal_is_not_shown() {
        assert_eq!(PeerName::new("a\x1b[2J").to_string(), "?");
        assert_eq!(PeerName::from_words([u64::MAX; 4]).to_string(), "?");
    }
}
