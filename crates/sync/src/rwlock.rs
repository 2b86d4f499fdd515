//! The reader/writer lock: a word that names the writer, and readers known by thread and by peer.
//!
//! A reader writes the lock's key into a word of its own thread slot and then looks for a writer; a
//! writer takes its word and then looks for readers (Dekker's pattern, so one of them always sees the
//! other). Readers write no cache line that another reader writes, and a read lock costs one locked instruction.
//! A dead reader is known by the thread slot that its word lies in: writers do not wait for it, and nobody has to
//! clean up after it. (The table of visible readers is the idea of BRAVO, Dice and Kogan, USENIX ATC
//! 2019.)
//!
//! A thread has a few such words. If it holds more locks to read, the others are counted in the lock's share word of
//! its peer. (A lock in the bytes of a region has no share words, and refuses such a reader.) A share word does not
//! name threads. If the whole peer dies, its count ceases to count. If only the reading thread dies, its own process
//! must give the lock back: the crate `commonhold` lists these locks, and its heartbeat thread calls
//! [`uncount_ended`](RwLock::uncount_ended). Until then writers wait.
//!
//! A word of the lock is a bit mask: bit `slot % 64` is set before a peer in that slot reads for the first time, and
//! never cleared. So a writer looks only at the peers whose bits are set; if none is, at no peer. Then the writer's word
//! may also be biased to the thread that writes alone (`rwlock/biased.rs`).
//!
//! A reader that leaves looks for a waiting writer without a fence: the processor may do the look before
//! others see that the reader has left. If it misses a writer, that writer sleeps to the end of its slice (its longest
//! sleep before it looks again): 1 ms the first time that it waits for this reader, 20 ms after that. That is the
//! price of a release that is one plain store.
//!
//! Neither side starves. A writer takes its word first, so new readers stand back while it waits for the readers
//! inside. A reader, or a writer, may find the lock taken again whenever it wakes. After the fourth such sleep it sets
//! the starving flag in the writer's word: then newcomers stand back.

mod biased;
mod readers;
mod writers;

pub use readers::ReadHold;
pub use writers::QuickWrite;

use commonhold_layout::{Offset, Owner, PeerId, ThreadId, thread_word};
use commonhold_window::atomic::AtomicU64;

use crate::{Event, Mutex};

/// Where the readers of one lock are found.
pub trait Shares {
    /// The number of peer slots to look at: later ones have never had a peer.
    fn peers(&self) -> u16;

    /// The generation of the peer that has the slot now; 0 if no live peer has it.
    fn generation(&self, peer: PeerId) -> u32;

    /// The owner that has a thread slot now, if neither it nor its peer is known to be dead.
    fn owner(&self, peer: PeerId, thread: ThreadId) -> Option<Owner>;

    /// The share word of `peer` in what the lock protects; `None` if it has never had one.
    fn share(&self, peer: PeerId) -> Option<&AtomicU64>;

    /// The number of thread slots of `peer` to look at: later ones are not in use.
    fn threads(&self, peer: PeerId) -> u16;

    /// A thread slot of `peer`.
    fn thread(&self, peer: PeerId, thread: ThreadId) -> Option<&[AtomicU64; thread_word::COUNT]>;
}

/// A reader/writer lock.
#[derive(Debug, Clone, Copy)]
pub struct RwLock<'a, S> {
    words: &'a [AtomicU64; 3],
    at: Offset,
    key: u64,
    shares: S,
}

impl<'a, S: Shares> RwLock<'a, S> {
    /// The lock with three words at offset `at`: the writer's, the mask of peers that may have read,
    /// and the event that readers move when they leave while a writer waits. `key` is not 0, and distinguishes the
    /// lock from all others whose readers use the same thread slots.
    #[inline]
    pub const fn new(words: &'a [AtomicU64; 3], at: Offset, key: u64, shares: S) -> Self {
        Self { words, at, key, shares }
    }

    /// The key that a reader of this lock writes into its thread slot.
    #[inline]
    pub const fn key(&self) -> u64 {
        self.key
    }

    /// The writer's side, as a mutex.
    #[inline]
    pub const fn writer(&self) -> Mutex<'a> {
        Mutex::new(&self.words[0], self.at)
    }

    pub(crate) const fn word(&self) -> &'a AtomicU64 {
        &self.words[0]
    }

    pub(crate) const fn mask(&self) -> &'a AtomicU64 {
        &self.words[1]
    }

    pub(crate) const fn at(&self) -> Offset {
        self.at
    }

    #[inline]
    const fn drained(&self) -> Event<'a> {
        let at = match self.at.plus(16) {
            Some(at) => at,
            None => self.at,
        };
        Event::new(&self.words[2], at)
    }
}
