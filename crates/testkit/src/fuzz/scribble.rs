//! What a malicious process may write into a space: words that the layout names, and plausible values for them.
//!
//! # What it does not do
//! It does not know where the bytes are: in a file, in a mapping or on the heap. See [`Words`].

use arbitrary::Arbitrary;
use commonhold_layout::{
    Bias, BiasState, BiasTarget, Evidence, Geometry, HEADER_WORDS, Intent, IntentKind, IntentPhase,
    LockFlags, LockWord, Name, Offset, Owner, PeerId, PeerPhase, PeerState, Pending, PendingKind,
    ReadKey, RecordKind, RecordTag, RegionFlags, RegionId, RegionPhase, RegionState, ThreadId,
    header_word, peer_word, region_word, thread_word,
};

/// The bytes of a space, all of which can be written.
pub(crate) trait Words {
    /// The word at an offset; `None` where there is none.
    fn get(&self, at: u64) -> Option<u64>;
    /// Writes the word, if there is one.
    fn set(&self, at: u64, word: u64);
    /// Gives back the memory of the page at an offset.
    fn punch(&self, at: u64);
}

/// A word that the layout names.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Field {
    /// One of the words that change while a space is in use.
    Header(u8),
    /// One of the words that decide where the tables lie; the checksum is corrected.
    Geometry(u8),
    Peer {
        slot: u8,
        word: u8,
    },
    Thread {
        slot: u8,
        thread: u8,
        word: u8,
    },
    Domain(u8),
    /// The bucket of a name.
    Bucket(u8),
    Region {
        region: u8,
        word: u8,
    },
    Share {
        slot: u8,
        region: u8,
    },
    /// A word of the area where regions are.
    Data(u16),
}

/// The value that is written.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Value {
    Any(u64),
    Small(u8),
    /// `1 << n`, or one less.
    Power(u8),
    Below(u8),
    /// The old value, with one bit flipped.
    Flip(u8),
    Add(i8),
    /// The value of another word.
    Of(Field),
    PeerState {
        generation: u8,
        phase: u8,
        evidence: u8,
    },
    RegionState {
        generation: u8,
        phase: u8,
        flags: u8,
    },
    Owner {
        peer: u8,
        thread: u8,
        incarnation: u8,
        flags: u8,
    },
    Bias {
        peer: u8,
        thread: u8,
        number: u8,
    },
    BiasTarget(Field),
    BiasState(u8),
    Share {
        generation: u8,
        readers: u8,
        mappings: u8,
    },
    Link(u8),
    Intent {
        resize: bool,
        granted: bool,
        region: u8,
    },
    Pending {
        kind: u8,
        of: Field,
    },
    ReadKey {
        region: u8,
        generation: u8,
        of: Option<Field>,
    },
    Tag {
        kind: u8,
        size: u8,
    },
    /// The offset of a word.
    At(Field),
}

/// One change of the bytes.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub(crate) struct Scribble(Deed);

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Deed {
    Set(Field, Value),
    Swap(Field, Field),
    /// A hole is punched.
    Punch(Field),
    /// A whole record, or part of one, over another.
    Copy {
        from: Field,
        to: Field,
        count: u8,
    },
}

impl Scribble {
    /// Applies the change to a space with this geometry.
    pub(crate) fn apply(self, words: &impl Words, geometry: &Geometry) {
        match self.0 {
            Deed::Set(field, value) => {
                let Some(at) = field.at(geometry) else { return };
                let Some(was) = words.get(at.get()) else { return };
                words.set(at.get(), value.word(was, words, geometry));
                field.seal(words);
            }
            Deed::Swap(one, other) => {
                let (Some(one), Some(other)) = (one.at(geometry), other.at(geometry)) else {
                    return;
                };
                if let (Some(a), Some(b)) = (words.get(one.get()), words.get(other.get())) {
                    words.set(one.get(), b);
                    words.set(other.get(), a);
                }
            }
            Deed::Punch(field) => {
                if let Some(at) = field.at(geometry) {
                    words.punch(at.get());
                }
            }
            Deed::Copy { from, to, count } => {
                let (Some(from), Some(to)) = (from.at(geometry), to.at(geometry)) else { return };
                for word in 0..u64::from(count) {
                    if let Some(found) = words.get(from.get().saturating_add(8 * word)) {
                        words.set(to.get().saturating_add(8 * word), found);
                    }
                }
            }
        }
    }
}

const HOT: [usize; 12] = [
    header_word::DIRECTORY_LOCK,
    header_word::CHAIN_SEQUENCE,
    header_word::REGIONS_USED,
    header_word::FREE_HINT,
    header_word::EXTENT_HEAD,
    header_word::EXTENT_CURSOR,
    header_word::DEFERRED_HINT,
    header_word::INTENT,
    header_word::INTENT_OLD,
    header_word::INTENT_NEW,
    header_word::PEERS_USED,
    header_word::PROBE,
];

const COLD: [usize; 14] = [
    header_word::MAGIC,
    header_word::VERSION,
    header_word::FEATURES,
    header_word::CAPACITY,
    header_word::PAGE,
    header_word::PEERS,
    header_word::THREADS,
    header_word::REGIONS,
    header_word::DOMAINS,
    header_word::LEASE_MS,
    header_word::UUID_LOW,
    header_word::UUID_HIGH,
    header_word::CREATED_MS,
    header_word::CHECKSUM,
];

/// The element that `index` chooses.
pub(crate) fn pick<T: Copy>(of: &[T], index: u8) -> Option<T> {
    of.get(usize::from(index).checked_rem(of.len())?).copied()
}

fn word_at(record: Option<Offset>, word: u8, count: usize) -> Option<Offset> {
    record?.plus(8 * (u64::from(word) % count as u64))
}

fn peer(slot: u8, geometry: &Geometry) -> PeerId {
    PeerId::new(u16::from(slot) % geometry.peers())
}

fn region(index: u8, geometry: &Geometry) -> RegionId {
    // Most changes hit the first few elements.
    let index = if index < 128 { index & 7 } else { index };
    RegionId::new(u32::from(index) % geometry.regions())
}

fn thread(index: u8, geometry: &Geometry) -> ThreadId {
    ThreadId::new(u16::from(index) % geometry.threads()).unwrap_or(ThreadId::FIRST)
}

impl Field {
    /// The offset of the word.
    fn at(self, geometry: &Geometry) -> Option<Offset> {
        match self {
            Self::Header(index) => header(pick(&HOT, index)?),
            Self::Geometry(index) => header(pick(&COLD, index)?),
            Self::Peer { slot, word } => {
                word_at(geometry.peer(peer(slot, geometry)), word, peer_word::COUNT)
            }
            Self::Thread { slot, thread: index, word } => {
                let thread = geometry.thread(peer(slot, geometry), thread(index, geometry));
                word_at(thread, word, thread_word::COUNT)
            }
            Self::Domain(index) => {
                let record = geometry.domain(u16::from(index >> 3) % geometry.domains());
                word_at(record, index & 7, 8)
            }
            Self::Bucket(name) => Some(geometry.bucket(name_of(name)?.hash().0)),
            Self::Region { region: index, word } => {
                let entry = geometry.region(region(index, geometry));
                word_at(entry, word, region_word::COUNT)
            }
            Self::Share { slot, region: index } => {
                geometry.share(peer(slot, geometry), region(index, geometry))
            }
            Self::Data(word) => {
                let data = geometry.data();
                data.start().plus(8 * (u64::from(word) % (data.len() / 8).max(1)))
            }
        }
    }

    /// Corrects the checksum of the header in most cases, if it covers this word.
    fn seal(self, words: &impl Words) {
        let Self::Geometry(index) = self else { return };
        if index & 0x80 != 0 {
            return;
        }
        let covered = (1..header_word::CHECKSUM).filter_map(|word| words.get(8 * word as u64));
        let sum = covered.flat_map(u64::to_le_bytes).fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
            (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        words.set(8 * header_word::CHECKSUM as u64, sum);
    }

    fn offset(self, geometry: &Geometry) -> Offset {
        self.at(geometry).unwrap_or(Offset::ZERO)
    }
}

fn header(word: usize) -> Option<Offset> {
    Offset::new(8 * word as u64).filter(|_| word < HEADER_WORDS)
}

/// The names that all programs use: few, so that they use the same regions.
pub(crate) fn name_of(index: u8) -> Option<Name> {
    const LONG: &str = "a name that is as long as a name may be, so that it fills all sixteen words \
                        of an entry, up to the last byte but one of them....";
    let text = pick(&["a", "b", "c", "d", "name with spaces", LONG], index)?;
    Name::new(text.get(..text.len().min(Name::MOST))?).ok()
}

impl Value {
    fn word(self, was: u64, words: &impl Words, geometry: &Geometry) -> u64 {
        match self {
            Self::Any(word) => word,
            Self::Small(word) => u64::from(word),
            Self::Power(bit) => 1 << (bit & 63),
            Self::Below(bit) => (1 << (bit & 63)) - 1,
            Self::Flip(bit) => was ^ 1 << (bit & 63),
            Self::Add(step) => was.wrapping_add_signed(i64::from(step)),
            Self::Of(field) => words.get(field.offset(geometry).get()).unwrap_or(0),
            Self::At(place) => place.offset(geometry).get(),
            other => other.made(geometry).unwrap_or(0),
        }
    }

    /// A value that has a meaning in the layout.
    fn made(self, geometry: &Geometry) -> Option<u64> {
        Some(match self {
            Self::PeerState { generation, phase, evidence } => PeerState {
                generation: generation.into(),
                phase: pick(
                    &[PeerPhase::Free, PeerPhase::Attaching, PeerPhase::Live, PeerPhase::Fenced],
                    phase,
                )?,
                evidence: pick(&[Evidence::NONE, Evidence::OFD_LOCK], evidence)?,
            }
            .word(),
            Self::RegionState { generation, phase, flags } => RegionState {
                generation: generation.into(),
                phase: pick(
                    &[
                        RegionPhase::Free,
                        RegionPhase::Creating,
                        RegionPhase::Active,
                        RegionPhase::Destroying,
                        RegionPhase::Freeing,
                    ],
                    phase,
                )?,
                flags: pick(&[RegionFlags::NONE, RegionFlags::LAZY, RegionFlags::DEFERRED], flags)?,
            }
            .word(),
            Self::Owner { peer: slot, thread: index, incarnation, flags } => {
                let owner =
                    Owner::new(peer(slot, geometry), incarnation.into(), thread(index, geometry))?;
                owner.word().with_flags(lock_flags(flags)).word()
            }
            Self::Bias { peer: slot, thread: index, number } => LockWord::biased(Bias {
                peer: peer(slot, geometry),
                thread: thread(index, geometry),
                number: number.into(),
            })
            .word(),
            Self::BiasTarget(place) => BiasTarget::new(place.offset(geometry)).word(),
            Self::BiasState(number) => BiasState::new(u32::from(number >> 1)).inside().word(),
            Self::Share { generation, readers, mappings } => {
                u64::from(generation) << 32 | u64::from(readers) << 16 | u64::from(mappings)
            }
            Self::Link(index) => region(index, geometry).link(),
            other => return other.announced(geometry),
        })
    }

    /// A value that says what a process is about to do, or has done.
    fn announced(self, geometry: &Geometry) -> Option<u64> {
        Some(match self {
            Self::Intent { resize, granted, region: index } => Intent {
                kind: if resize { IntentKind::Resize } else { IntentKind::Link },
                phase: if granted { IntentPhase::Granted } else { IntentPhase::Trial },
                region: region(index, geometry),
            }
            .word(),
            Self::Pending { kind, of } => {
                let kinds = [
                    PendingKind::Exclusive,
                    PendingKind::Shared,
                    PendingKind::Release,
                    PendingKind::Event,
                    PendingKind::Process,
                ];
                Pending { kind: pick(&kinds, kind)?, lock: of.offset(geometry) }.word()
            }
            Self::ReadKey { region: index, generation, of } => {
                let region = region(index, geometry);
                match of {
                    Some(place) => {
                        ReadKey::of_record(place.offset(geometry), region, generation.into())
                    }
                    None => ReadKey::of_region(region, generation.into()),
                }
                .word()
            }
            Self::Tag { kind, size } => {
                RecordTag { kind: pick(&RecordKind::ALL, kind)?, size: size.into() }.word()
            }
            _ => return None,
        })
    }
}

fn lock_flags(bits: u8) -> LockFlags {
    let flags = [
        LockFlags::WAITERS,
        LockFlags::INCONSISTENT,
        LockFlags::UNRECOVERABLE,
        LockFlags::STARVING,
    ];
    let set = flags.into_iter().enumerate().filter(|(bit, _)| bits & 1 << bit != 0);
    set.fold(LockFlags::NONE, |all, (_, flag)| all.with(flag))
}
