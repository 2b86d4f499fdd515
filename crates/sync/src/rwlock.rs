//! The reader/writer lock: a writer's word, and readers known by thread and by peer.
//!
//! A reader writes the lock's key into a word of its own thread slot and then looks for a writer; a
//! writer takes its word and then looks for readers (Dekker's pattern, so one of them always sees the
//! other). Readers share no line that they write, one locked instruction is all it costs, and a dead
//! reader is known by the identity of whose word it is: it is not waited for, and nobody has to clean
//! up after it. (The idea of a table of visible readers is that of BRAVO, Dice and Kogan, USENIX ATC
//! 2019.) A thread that holds more locks to read than it has words is counted in its peer's share word.
//!
//! A bit mask of peers (slot modulo 64) that ever read keeps writers from looking at everybody. Bits
//! are set before the first read lock and never cleared.
//!
//! A reader that leaves looks for a waiting writer without a fence: the processor may look before the
//! others see that it has left. A writer that has been missed so sleeps to the end of its slice, which is
//! 1 ms for a reader that it has not waited for before and 20 ms then; it is the price of a release that is
//! one plain store.
//!
//! Neither side starves: readers that come while a writer has, or waits for, its word stand back, and
//! a reader that has lost its turn too often raises the same flag as a writer would.

mod readers;
mod writers;

pub use readers::ReadHold;
pub use writers::QuickWrite;

use commonhold_layout::{Offset, Owner, PeerId, ThreadId, thread_word};
use commonhold_window::atomic::AtomicU64;

use crate::{Event, Mutex};

/// Where those who read under one lock are known.
pub trait Shares {
    /// Slots from here on have never had a peer.
    fn peers(&self) -> u16;

    /// Which peer has the slot now; 0 if none that counts.
    fn generation(&self, peer: PeerId) -> u32;

    /// Who has a thread slot now, if that thread and its peer count among the living.
    fn owner(&self, peer: PeerId, thread: ThreadId) -> Option<Owner>;

    /// The share word of `peer` in what the lock protects; `None` if it has never had one.
    fn share(&self, peer: PeerId) -> Option<&AtomicU64>;

    /// Thread slots of `peer` from here on are not in use.
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
    /// and the event that readers move when they leave while a writer waits. `key`, not 0, tells it from
    /// every other lock whose readers use the same thread slots.
    #[inline]
    pub const fn new(words: &'a [AtomicU64; 3], at: Offset, key: u64, shares: S) -> Self {
        Self { words, at, key, shares }
    }

    /// What stands in a thread's words for a read lock of this.
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
