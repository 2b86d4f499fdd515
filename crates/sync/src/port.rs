//! What a lock needs from the operating system: a way to sleep, and a way to learn which owners are dead.

use commonhold_layout::{Bias, Offset, Owner};
use commonhold_window::atomic::AtomicU64;

/// What is known of the life of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// There is evidence that it lives.
    Alive,
    /// It is silent, and nothing proves that it lives or that it is dead.
    Suspect,
    /// It is proved dead, or its lease has run out. It has been fenced: every later verdict on this
    /// owner is the same, and what it does from now on has no effect on any lock.
    Dead,
}

/// How many sleepers to wake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// At most one.
    One,
    /// All.
    All,
}

/// Whether the kernel will tell of an owner's death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeathNotice {
    /// It will not: a waiter has to look for evidence from time to time.
    Unavailable,
    /// It will, and [`Park::wait_for`] ends then.
    Pending,
    /// The kernel has told that the owner's process is about to end. It will tell of the owner itself in a moment, and
    /// [`Park::wait_for`] ends then.
    Imminent,
    /// The kernel has told of it. That is a hint, not proof: the owner may still be on its way to its end.
    Fired,
}

/// How to wait for a word to change.
pub trait Park {
    /// Nanoseconds on a clock that never goes back. Only differences mean anything.
    fn now(&self) -> u64;

    /// Sleeps while the low 32 bits of `word` are those of `expected`, until another thread wakes the word
    /// or [`now`](Self::now) reaches `until`. It may return early, for no reason: callers look again.
    fn wait(&self, word: &AtomicU64, expected: u64, until: u64);

    /// As [`wait`](Self::wait), and ends also when the death futex of one of `owners` fires. By default the same as
    /// `wait`: for platforms that have no death futexes.
    fn wait_for(&self, owners: &[Owner], word: &AtomicU64, expected: u64, until: u64) {
        let _ = owners;
        self.wait(word, expected, until);
    }

    /// Wakes threads that sleep on `word`.
    fn wake(&self, word: &AtomicU64, who: Wake);

    /// As [`wake`](Self::wake), and says whether any thread may have been asleep.
    fn wake_any(&self, word: &AtomicU64, who: Wake) -> bool {
        self.wake(word, who);
        true
    }

    /// Yields the CPU once, as `sched_yield` does.
    fn yield_now(&self) {}

    /// Pauses for a short moment before another look at `word`, as suits a lock that is about to come free. `turn`
    /// counts the pauses in a row, from 0. `false`: it is time to sleep instead.
    fn spin(&self, word: &AtomicU64, turn: u32) -> bool;

    /// Tells how spinning on `word` ended: `won`, the lock was taken without a sleep; or a sleep followed after
    /// all. For platforms that adapt how long they spin.
    fn has_spun(&self, word: &AtomicU64, won: bool) {
        let _ = (word, won);
    }
}

/// How to learn whether an owner lives.
pub trait Liveness {
    /// Whether the owner still has its thread slot, is not marked dead, and its peer has not been fenced: two
    /// loads, no search for evidence. An owner that is not current never is again.
    fn is_current(&self, owner: Owner) -> bool;

    /// Whether both owners are the same thread of the same process, which has attached the space twice: then
    /// neither may wait for the other.
    fn is_same_thread(&self, me: Owner, other: Owner) -> bool {
        me == other
    }

    /// The thread that the mutex at `at` is biased to, if its entry says that it is inside, or was when it died.
    fn inside(&self, bias: Bias, at: Offset) -> Option<Owner> {
        let _ = (bias, at);
        None
    }

    /// Whether a mutex may be biased: only where no peer that may still run is ever fenced. A thread leaves a
    /// biased mutex by a plain store to its slot. If it was fenced, the slot may be another thread's by then.
    fn may_bias(&self) -> bool {
        false
    }

    /// Looks for evidence. If it finds that the owner's peer is dead, it fences it first.
    fn verdict(&self, owner: Owner) -> Verdict;

    /// Whether the kernel will tell of the owner's death, or has told of it: one load, no search for evidence.
    fn death_notice(&self, owner: Owner) -> DeathNotice {
        let _ = owner;
        DeathNotice::Unavailable
    }
}
