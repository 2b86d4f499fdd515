//! The first page of a space.
//!
//! Words 0 to 31 are written once, at format time; a checksum covers words 1 to 12, and the magic
//! number is written last of all. Words from 64 on change while the space is used: each group has a cache line
//! (8 words) of its own. The comment of each word says who may change it.

/// Bytes of the header: one page.
pub const HEADER_BYTES: u64 = 4096;
/// Words of the header.
pub const HEADER_WORDS: usize = 512;
/// `"COMNHOLD"` as bytes in memory.
pub const MAGIC: u64 = u64::from_le_bytes(*b"COMNHOLD");
/// `"FORM"` as bytes in memory: the low half of the first word while a window is formatted in place.
pub const FORMATTING: u64 = u32::from_le_bytes(*b"FORM") as u64;
/// The version of the format that this crate reads and writes.
pub const VERSION: u64 = 5;

/// The first word, instead of the magic number, while a window is formatted in place.
///
/// A file is formatted before it has a name; for memory of a device that is not possible. The process that swaps its
/// marker into the first word is the formatter. It stays so until it swaps the magic number in, or another process
/// takes it for dead and swaps in a marker of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker(u64);

impl Marker {
    /// The marker of a formatter that has drawn this number.
    #[must_use]
    pub const fn new(nonce: u32) -> Self {
        Self(FORMATTING | ((nonce as u64) << 32))
    }

    /// Reads a first word as a marker, if it is one.
    #[must_use]
    pub const fn read(word: u64) -> Option<Self> {
        if word & 0xFFFF_FFFF == FORMATTING { Some(Self(word)) } else { None }
    }

    /// The word.
    #[must_use]
    pub const fn word(self) -> u64 {
        self.0
    }
}

/// Indices of the words of the header.
pub mod header_word {
    /// [`MAGIC`](super::MAGIC); written last when formatting.
    pub const MAGIC: usize = 0;
    /// [`VERSION`](super::VERSION).
    pub const VERSION: usize = 1;
    /// Feature bits that a program must know to use the space at all. None is defined yet.
    pub const FEATURES: usize = 2;
    /// Bytes of the window that the space uses.
    pub const CAPACITY: usize = 3;
    /// Bytes that the extent of a region is aligned to and rounded up to; a power of two.
    pub const PAGE: usize = 4;
    /// Peer slots.
    pub const PEERS: usize = 5;
    /// Thread slots of each peer.
    pub const THREADS: usize = 6;
    /// Region entries.
    pub const REGIONS: usize = 7;
    /// Domain records.
    pub const DOMAINS: usize = 8;
    /// Milliseconds of silence after which a peer without proof of life is taken for dead; 0: never.
    pub const LEASE_MS: usize = 9;
    /// Low half of the random identity of this space.
    pub const UUID_LOW: usize = 10;
    /// High half of the random identity of this space.
    pub const UUID_HIGH: usize = 11;
    /// When it was formatted, in milliseconds of Unix time.
    pub const CREATED_MS: usize = 12;
    /// FNV-1a of the words 1 to 12.
    pub const CHECKSUM: usize = 13;

    /// The directory mutex: a lock word. It protects all words from here to the end of the intent record (but
    /// [`REGIONS_USED`] and [`DEFERRED_HINT`]), and every change of a region's name, extent or links.
    pub const DIRECTORY_LOCK: usize = 64;

    /// Odd while the name chains are being changed; even, and larger, afterwards.
    pub const CHAIN_SEQUENCE: usize = 72;
    /// Region entries that have memory behind them: entries from here on were never used. Raised by
    /// compare-and-swap, without the directory mutex.
    pub const REGIONS_USED: usize = 73;
    /// Where the search for a free region entry begins.
    pub const FREE_HINT: usize = 74;
    /// First extent in the order of addresses: region id + 1, or 0.
    pub const EXTENT_HEAD: usize = 75;
    /// The extent after which the search for free space begins: region id + 1, or 0.
    pub const EXTENT_CURSOR: usize = 76;
    /// Not 0 if an entry may need to be settled although no peer has died, such as that of a deferred region that
    /// waits for its last unmap. It is the link of the only such entry, or all ones if there may be several. Any
    /// thread raises it; a thread that is about to look at all entries clears it.
    pub const DEFERRED_HINT: usize = 77;

    /// The intent record: what the holder of the directory mutex is changing; 0 if nothing.
    pub const INTENT: usize = 80;
    /// The intent's old size, in bytes.
    pub const INTENT_OLD: usize = 81;
    /// The intent's new size, in bytes.
    pub const INTENT_NEW: usize = 82;

    /// Peer slots that were ever used: slots from here on are free. Only grows.
    pub const PEERS_USED: usize = 88;

    /// Each process that opens memory of a device adds to this word, to see whether additions get lost. The
    /// value means nothing.
    pub const PROBE: usize = 96;
}
