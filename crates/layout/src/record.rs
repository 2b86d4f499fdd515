//! Records: locks that lie in the bytes of a region beside a word that says what they are.
//!
//! ```text
//! | words of the lock | tag | data, filled up to a whole word |
//!                     63        40 39  32 31                 0
//!                     | marker    | kind | bytes of the data |
//! ```
//! The tag is written once, by the first thread that opens the record. It keeps honest programs from taking
//! one kind of lock for another, or data for longer than they are. It does not protect against a
//! peer that writes other bytes there.

use core::fmt;

/// The upper 24 bits of every tag: the bytes `TAG`.
pub const RECORD_MARKER: u64 = 0x47_4154;

const KIND_SHIFT: u32 = 32;
const MARKER_SHIFT: u32 = 40;

/// How many words each kind of record has before its tag.
pub mod record_words {
    /// A lock word.
    pub const MUTEX: usize = 1;
    /// As in a region entry: the writer's lock word, the mask of readers, the event `drained`.
    pub const RW_LOCK: usize = 3;
    /// A lock word, which ends as done.
    pub const ONCE: usize = 1;
    /// An event word.
    pub const EVENT: usize = 1;
    /// An event word.
    pub const CONDVAR: usize = 1;
    /// An event word, moved when a permit comes free. The permits are its data: lock words.
    pub const SEMAPHORE: usize = 1;
    /// An event word, whose number is the phase. The slots of its participants are its data.
    pub const BARRIER: usize = 1;
    /// The writers' lock word, the sequence.
    pub const SEQ_LOCK: usize = 2;
}

/// Most permits of a semaphore, and most slots of a barrier: a waiter looks at all of them.
pub const PLACES_MOST: usize = 64;

/// What kind of lock a record is.
///
/// # Examples
/// ```
/// # use commonhold_layout::RecordKind;
/// let with_slots: Vec<_> = RecordKind::ALL.into_iter().filter(|kind| kind.has_places()).collect();
/// assert_eq!(with_slots, [RecordKind::Semaphore, RecordKind::Barrier]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// A mutex.
    Mutex,
    /// A reader/writer lock.
    RwLock,
    /// Work that is done once.
    Once,
    /// A condition variable.
    Condvar,
    /// A semaphore.
    Semaphore,
    /// A barrier.
    Barrier,
    /// Data with a sequence count, which can be read without writing anything.
    SeqLock,
    /// An event.
    Event,
}

impl RecordKind {
    /// The kinds that this version can lay out.
    pub const ALL: [Self; 8] = [
        Self::Mutex,
        Self::RwLock,
        Self::Once,
        Self::Event,
        Self::Condvar,
        Self::Semaphore,
        Self::Barrier,
        Self::SeqLock,
    ];

    /// How many words it has before its tag; `None` if this version cannot lay it out.
    #[must_use]
    pub const fn words(self) -> Option<usize> {
        match self {
            Self::Mutex => Some(record_words::MUTEX),
            Self::RwLock => Some(record_words::RW_LOCK),
            Self::Once => Some(record_words::ONCE),
            Self::Event => Some(record_words::EVENT),
            Self::Condvar => Some(record_words::CONDVAR),
            Self::Semaphore => Some(record_words::SEMAPHORE),
            Self::Barrier => Some(record_words::BARRIER),
            Self::SeqLock => Some(record_words::SEQ_LOCK),
        }
    }

    /// Whether its data are owner slots, words of the lock itself: such data are zeros before the first use.
    #[must_use]
    pub const fn has_places(self) -> bool {
        matches!(self, Self::Semaphore | Self::Barrier)
    }

    const fn number(self) -> u64 {
        match self {
            Self::Mutex => 1,
            Self::RwLock => 2,
            Self::Once => 3,
            Self::Condvar => 4,
            Self::Semaphore => 5,
            Self::Barrier => 6,
            Self::SeqLock => 7,
            Self::Event => 8,
        }
    }

    const fn of_number(number: u64) -> Option<Self> {
        Some(match number {
            1 => Self::Mutex,
            2 => Self::RwLock,
            3 => Self::Once,
            4 => Self::Condvar,
            5 => Self::Semaphore,
            6 => Self::Barrier,
            7 => Self::SeqLock,
            8 => Self::Event,
            _ => return None,
        })
    }
}

impl fmt::Display for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mutex => "mutex",
            Self::RwLock => "reader/writer lock",
            Self::Once => "once",
            Self::Condvar => "condition variable",
            Self::Semaphore => "semaphore",
            Self::Barrier => "barrier",
            Self::SeqLock => "sequence lock",
            Self::Event => "event",
        })
    }
}

/// What a record is: its kind, and how many bytes of data it protects.
///
/// # Examples
/// ```
/// # use commonhold_layout::{NotATag, RecordKind, RecordTag};
/// let tag = RecordTag { kind: RecordKind::Mutex, size: 8 };
/// assert_eq!(tag.to_string(), "mutex with 8 bytes of data");
/// assert_eq!(RecordTag::read(tag.word())?, Some(tag));
/// # Ok::<(), NotATag>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordTag {
    /// What kind of lock.
    pub kind: RecordKind,
    /// Bytes of its data.
    pub size: u32,
}

/// A word, not 0, that is no tag: other bytes lie there, or a kind that this version does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotATag {
    /// What was found.
    pub found: u64,
}

impl RecordTag {
    /// The word for it; never 0.
    #[inline]
    #[must_use]
    pub const fn word(self) -> u64 {
        self.size as u64 | self.kind.number() << KIND_SHIFT | RECORD_MARKER << MARKER_SHIFT
    }

    /// Reads a tag; `None` if the record has never been used.
    ///
    /// # Errors
    /// [`NotATag`].
    #[allow(clippy::cast_possible_truncation, reason = "the size is cut out on purpose")]
    pub const fn read(word: u64) -> Result<Option<Self>, NotATag> {
        if word == 0 {
            return Ok(None);
        }
        if word >> MARKER_SHIFT != RECORD_MARKER {
            return Err(NotATag { found: word });
        }
        match RecordKind::of_number(word >> KIND_SHIFT & 0xff) {
            Some(kind) => Ok(Some(Self { kind, size: word as u32 })),
            None => Err(NotATag { found: word }),
        }
    }
}

impl fmt::Display for RecordTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {} bytes of data", self.kind, self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;

    #[test]
    fn a_record_that_was_never_used_has_no_tag() {
        assert_eq!(RecordTag::read(0), Ok(None));
    }

    #[test]
    fn a_tag_says_what_it_is() {
        let tag = RecordTag { kind: RecordKind::RwLock, size: 64 };
        assert_eq!(tag.to_string(), "reader/writer lock with 64 bytes of data");
    }

    proptest! {
        #[test]
        fn a_word_is_read_as_the_tag_that_was_written_or_refused(number in 0_u64..256, size: u32, word: u64) {
            let written = u64::from(size) | number << 32 | RECORD_MARKER << 40;
            match RecordTag::read(written) {
                Ok(tag) => {
                    prop_assert!((1..=8).contains(&number));
                    prop_assert_eq!(tag.map(RecordTag::word), Some(written));
                }
                Err(refused) => {
                    prop_assert!(number == 0 || number > 8);
                    prop_assert_eq!(refused.found, written);
                }
            }
            if word >> 40 != RECORD_MARKER && word != 0 {
                prop_assert_eq!(RecordTag::read(word), Err(NotATag { found: word }));
            }
        }
    }
}
