//! Thread slots: which thread has one, and what it is doing with which lock.
//!
//! A slot belongs to a thread while its [life word](ThreadLife) says so. The kernel changes that word when
//! the thread ends; only the thread itself writes the other words. Other threads read them to find the readers of a
//! lock, to show which thread waits for what, and to wake the threads that a dead thread would have woken.

use crate::{OFFSET_LIMIT, Offset};

/// Indices of the words of a thread slot (128 bytes).
pub mod thread_word {
    /// Which thread has the slot, and whether it lives: see [`ThreadLife`](super::ThreadLife).
    pub const LIFE: usize = 0;
    /// See [`Pending`](super::Pending).
    pub const PENDING: usize = 1;
    /// Low half: the number of the last [bias](crate::Bias) that a thread in this slot has made; each bias adds one,
    /// and it wraps. High half: the thread's id in its own PID namespace.
    pub const BIASES: usize = 2;
    /// Number of waits and other operations that the pending word announced and that are over; never reset, also when
    /// another thread gets the slot. An observer that sees the same number and the same pending word twice has seen
    /// one wait.
    pub const WAITS: usize = 3;
    /// First of [`READING_COUNT`] words: the [keys](crate::ReadKey) of locks that the thread holds to
    /// read; 0: none.
    pub const READING: usize = 4;
    /// How many locks a thread can hold to read this way. Further ones are counted in share words.
    pub const READING_COUNT: usize = 4;
    /// First word of [`BIAS_COUNT`] entries of two words each: see [`BiasTarget`](crate::BiasTarget) and
    /// [`BiasState`](crate::BiasState). They have a cache line of their own.
    pub const BIAS: usize = 8;
    /// How many locks can be biased to a thread.
    pub const BIAS_COUNT: usize = 4;
    /// Words of a slot.
    pub const COUNT: usize = 16;
}

/// The life word of a thread slot: bits 32 to 63 the incarnation, bits 0 to 31 a robust futex of Linux.
///
/// | futex half | the slot is |
/// |---|---|
/// | 0 | vacant: its thread gave it back, or it never had one |
/// | id | claimed: its thread is preparing it, and owns nothing yet |
/// | id, waiters | ready, and armed: the kernel marks the word when the thread ends |
/// | waiters | ready, and not armed: only a peer with other proof marks the word |
/// | died | dead: its thread has ended, or was declared dead; the slot is vacant |
///
/// An incarnation is used once, also across the peers that have the slot. It makes the owner of a lock unique:
/// an owner of an earlier incarnation is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadLife(u64);

impl ThreadLife {
    /// `FUTEX_WAITERS`: the kernel wakes a sleeper when it marks the word. Set as long as the slot is ready.
    const WAITERS: u64 = 1 << 31;
    /// `FUTEX_OWNER_DIED`: the kernel's mark.
    const DIED: u64 = 1 << 30;
    /// `FUTEX_TID_MASK`.
    const TID: u64 = Self::DIED - 1;
    const INCARNATION_SHIFT: u32 = 32;

    /// Reads a word.
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

    /// How many threads have had the slot; the present or last one has this number.
    #[inline]
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the high half is meant")]
    pub const fn incarnation(self) -> u32 {
        (self.0 >> Self::INCARNATION_SHIFT) as u32
    }

    /// Whether a thread may claim the slot.
    #[inline]
    #[must_use]
    pub const fn is_vacant(self) -> bool {
        self.0 & Self::DIED != 0 || self.0 & (Self::TID | Self::WAITERS) == 0
    }

    /// Whether a thread has prepared the slot, and is not known to be dead: it may own locks.
    #[inline]
    #[must_use]
    pub const fn is_ready(self) -> bool {
        self.0 & (Self::WAITERS | Self::DIED) == Self::WAITERS
    }

    /// Whether the word says that the kernel marks it when the thread ends.
    #[inline]
    #[must_use]
    pub const fn is_armed(self) -> bool {
        self.is_ready() && self.0 & Self::TID != 0
    }

    /// Whether the thread of `incarnation` has the slot, and is not known to be dead.
    #[inline]
    #[must_use]
    pub const fn is_of(self, incarnation: u32) -> bool {
        self.incarnation() == incarnation && !self.is_vacant()
    }

    /// The vacant slot, claimed by the thread with id `tid`. `None`: its incarnations are used up, and it is never
    /// claimed again.
    #[inline]
    #[must_use]
    pub const fn claimed(self, tid: u32) -> Option<Self> {
        let Some(incarnation) = self.incarnation().checked_add(1) else { return None };
        // An id of 0 would name no thread.
        let tid = if tid as u64 & Self::TID == 0 { 1 } else { tid as u64 & Self::TID };
        Some(Self((incarnation as u64) << Self::INCARNATION_SHIFT | tid))
    }

    /// The claimed slot, ready; the kernel marks the word when the thread ends.
    #[inline]
    #[must_use]
    pub const fn armed(self) -> Self {
        Self(self.0 | Self::WAITERS)
    }

    /// The claimed slot, ready; its word names no thread to the kernel, which does not mark it.
    #[inline]
    #[must_use]
    pub const fn unarmed(self) -> Self {
        Self(self.0 & !Self::TID | Self::WAITERS)
    }

    /// The slot of a dead thread, as the kernel leaves it.
    #[inline]
    #[must_use]
    pub const fn dead(self) -> Self {
        Self(self.0 & !Self::TID | Self::DIED)
    }

    /// The slot given back.
    #[inline]
    #[must_use]
    pub const fn vacated(self) -> Self {
        Self(self.0 & !(Self::TID | Self::WAITERS | Self::DIED))
    }
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
    /// Giving it back: if the thread dies now, it may not have woken the next one.
    Release,
    /// Waiting for an event.
    Event,
    /// Waiting for a process to end: the word holds no offset, but the [process's id](Pending::process).
    Process,
}

/// The pending word: the offset of a lock word, which is a multiple of 8, and in its low bits what the thread
/// does with that lock; 0: nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// What the thread does.
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

    /// The id of the process that the thread waits for, if it waits for one.
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

    /// Reads a pending word; `None` if nothing is pending, or the word is not valid.
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
    fn a_slot_goes_from_vacant_to_ready_to_dead_and_each_claim_has_a_new_incarnation() {
        let vacant = ThreadLife::from_word(7 << 32);
        assert!(vacant.is_vacant() && !vacant.is_ready() && !vacant.is_of(7));
        let claimed = vacant.claimed(4711).unwrap();
        assert!(!claimed.is_vacant() && !claimed.is_ready() && claimed.is_of(8));
        for ready in [claimed.armed(), claimed.unarmed()] {
            assert!(ready.is_ready() && ready.is_of(8) && !ready.is_of(7));
            for dead in [ready.dead(), claimed.dead(), ready.vacated()] {
                assert!(dead.is_vacant() && !dead.is_ready() && !dead.is_of(8));
                assert_eq!(dead.claimed(1).unwrap().incarnation(), 9);
            }
        }
        assert_eq!(claimed.armed().word() & u64::from(u32::MAX), 4711 | 1 << 31);
        assert_eq!(claimed.unarmed().word() & u64::from(u32::MAX), 1 << 31);
        assert_eq!(ThreadLife::from_word(u64::MAX).claimed(1), None);
        assert!(!vacant.claimed(0).unwrap().is_vacant(), "an id of 0 would leave the slot vacant");
    }

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
