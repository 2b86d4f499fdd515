//! Thread slots: what each thread of a peer is doing with which lock.
//!
//! Only the thread that has the slot writes it; others read it to know who reads under which lock, to
//! show who waits for what, and, when its peer has died, to wake those that it would have woken.

use crate::{OFFSET_LIMIT, Offset};

/// Indices of the words of a thread slot (128 bytes).
pub mod thread_word {
    /// The thread's id in its own PID namespace; 0: the slot is free; [`ENDED`]: see there.
    pub const TID: usize = 0;
    /// In place of an id: the thread has ended while it held locks, and its process lives. Nobody takes the
    /// slot as long as the peer has it.
    pub const ENDED: u64 = u64::MAX;
    /// See [`Pending`](super::Pending).
    pub const PENDING: usize = 1;
    /// How many [biases](crate::Bias) there were, whoever had the slot; wraps. The last one's number.
    pub const BIASES: usize = 2;
    /// How many of the things that the pending word has named are over. It only grows, whoever has the
    /// slot: who sees the same number and the same pending word twice has seen one wait.
    pub const WAITS: usize = 3;
    /// First of [`READING_COUNT`] words: the [keys](crate::ReadKey) of locks that the thread holds to
    /// read; 0: none.
    pub const READING: usize = 4;
    /// How many locks a thread can hold to read this way. Further ones are counted in share words.
    pub const READING_COUNT: usize = 4;
    /// First word of [`BIAS_COUNT`] entries of two words each: see [`BiasPlace`](crate::BiasPlace) and
    /// [`BiasTurn`](crate::BiasTurn). They have a cache line of their own.
    pub const BIAS: usize = 8;
    /// How many locks can be biased to a thread.
    pub const BIAS_COUNT: usize = 4;
    /// Words of a slot.
    pub const COUNT: usize = 16;
}

/// A thread slot of a peer: below 4096.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ThreadId(u16);

impl ThreadId {
    /// The first slot.
    pub const FIRST: Self = Self(0);

    /// Slot `index`, if it can be named in 12 bits.
    #[inline]
    #[must_use]
    pub const fn new(index: u16) -> Option<Self> {
        if index < 1 << 12 { Some(Self(index)) } else { None }
    }

    #[inline]
    pub(crate) const fn from_bits(bits: u16) -> Self {
        Self(bits & 0xfff)
    }

    /// Its number.
    #[inline]
    #[must_use]
    pub const fn index(self) -> u16 {
        self.0
    }
}

/// What a thread is doing with a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PendingKind {
    /// Waiting to own it.
    Exclusive,
    /// Waiting to read under it.
    Shared,
    /// Giving it back: if the thread dies now, nobody has woken the next.
    Release,
    /// Waiting for an event.
    Event,
    /// Waiting for a process to end: the word holds no offset, but the [process's id](Pending::process).
    Process,
}

/// The pending word: the offset of a lock word, which is a multiple of 8, and in its low bits what
/// is being done with it; 0: nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// What is being done.
    pub kind: PendingKind,
    /// Where the lock word is.
    pub lock: Offset,
}

impl Pending {
    /// Waiting for the process with this id, in the waiter's own PID namespace, to end.
    #[inline]
    #[must_use]
    pub const fn of_process(pid: u32) -> Self {
        let lock = match Offset::new((pid as u64) << 3) {
            Some(lock) => lock,
            None => Offset::ZERO,
        };
        Self { kind: PendingKind::Process, lock }
    }

    /// The process that is waited for, if one is.
    #[inline]
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "compared with what was cut off")]
    pub const fn process(self) -> Option<u32> {
        let pid = self.lock.get() >> 3;
        match self.kind {
            PendingKind::Process if pid == (pid as u32) as u64 => Some(pid as u32),
            _ => None,
        }
    }

    /// The word for it.
    #[inline]
    #[must_use]
    pub const fn word(self) -> u64 {
        let kind = match self.kind {
            PendingKind::Exclusive => 1,
            PendingKind::Shared => 2,
            PendingKind::Release => 3,
            PendingKind::Event => 4,
            PendingKind::Process => 5,
        };
        (self.lock.get() & !7) | kind
    }

    /// Reads a pending word; `None` if nothing is pending, or nothing that makes sense.
    #[inline]
    #[must_use]
    pub const fn read(word: u64) -> Option<Self> {
        let kind = match word & 7 {
            1 => PendingKind::Exclusive,
            2 => PendingKind::Shared,
            3 => PendingKind::Release,
            4 => PendingKind::Event,
            5 => PendingKind::Process,
            _ => return None,
        };
        if word >= OFFSET_LIMIT {
            return None;
        }
        match Offset::new(word & !7) {
            Some(lock) => Some(Self { kind, lock }),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pending_word_survives_the_round_trip() {
        let lock = Offset::new(4096 + 24 * 8).unwrap();
        for kind in
            [PendingKind::Exclusive, PendingKind::Shared, PendingKind::Release, PendingKind::Event]
        {
            let pending = Pending { kind, lock };
            assert_eq!(Pending::read(pending.word()), Some(pending));
        }
        assert_eq!(Pending::read(0), None);
        assert_eq!(Pending::read(u64::MAX), None);
        assert_eq!(Pending { kind: PendingKind::Event, lock }.process(), None);
    }

    #[test]
    fn a_process_that_is_waited_for_survives_the_round_trip_and_other_numbers_are_none() {
        for pid in [1, 4711, u32::MAX] {
            let read = Pending::read(Pending::of_process(pid).word()).unwrap();
            assert_eq!(read.process(), Some(pid));
        }
        let beyond = Pending::read(1 << 36 | 5).unwrap();
        assert_eq!(beyond.process(), None);
    }
}
