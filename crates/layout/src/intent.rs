//! The intent record: what the holder of the directory mutex is about to change.
//!
//! One word says what changes, and in which region. It is written before the first store of a change that another
//! thread could see half done, and cleared after the last. A thread that takes the mutex from a dead holder reads
//! the record, and finishes or undoes the change; both are idempotent.

use crate::RegionId;

/// What is being changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntentKind {
    /// The links of the name chains and of the order of extents: they are rebuilt from the entries.
    Link,
    /// The size of a region, from the record's old size to its new size.
    Resize,
}

/// How far a resize has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntentPhase {
    /// It may still be refused: recovery goes back to the old size.
    Trial,
    /// It has been granted: recovery completes the new size.
    Granted,
}

/// A checked intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intent {
    /// What is being changed.
    pub kind: IntentKind,
    /// How far it has come.
    pub phase: IntentPhase,
    /// Which region it concerns.
    pub region: RegionId,
}

const GRANTED: u64 = 1 << 40;

impl Intent {
    /// The word that records it: bits 0 to 31 the region, 32 to 39 the kind, 40 the phase.
    #[must_use]
    pub const fn word(self) -> u64 {
        let kind: u64 = match self.kind {
            IntentKind::Link => 1,
            IntentKind::Resize => 2,
        };
        let phase = match self.phase {
            IntentPhase::Trial => 0,
            IntentPhase::Granted => GRANTED,
        };
        self.region.get() as u64 | (kind << 32) | phase
    }

    /// Reads a record. `None` means that nothing was under way. A word that no program writes is
    /// read as a change of links, whose recovery (rebuilding them) is right for any state.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the low half is the region")]
    pub const fn read(word: u64) -> Option<Self> {
        if word == 0 {
            return None;
        }
        let kind = match (word >> 32) & 0xff {
            2 => IntentKind::Resize,
            _ => IntentKind::Link,
        };
        let phase = if word & GRANTED != 0 { IntentPhase::Granted } else { IntentPhase::Trial };
        Some(Self { kind, phase, region: RegionId::new(word as u32) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_intent_reads_back_as_written() {
        for kind in [IntentKind::Link, IntentKind::Resize] {
            for phase in [IntentPhase::Trial, IntentPhase::Granted] {
                let intent = Intent { kind, phase, region: RegionId::new(77) };
                assert_eq!(Intent::read(intent.word()), Some(intent));
            }
        }
        assert_eq!(Intent::read(0), None);
        assert_eq!(Intent::read(u64::MAX).unwrap().kind, IntentKind::Link);
    }
}
