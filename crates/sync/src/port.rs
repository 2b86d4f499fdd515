//! What a lock needs from the world, and does not know how to do: sleep, and tell the dead.

use commonhold_layout::{Bias, Offset, Owner};
use commonhold_window::atomic::AtomicU64;

/// What is known of the life of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// There is evidence that it lives.
    Alive,
    /// It is silent, and nothing proves anything.
    Suspect,
    /// It is proved dead, or its lease has run out. It has been fenced: no verdict will ever say
    /// anything else of this owner, and what it does from now on has no effect on any lock.
    Dead,
}

/// How many sleepers to wake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// At most one.
    One,
    /// Everybody.
    All,
}

/// Whether the kernel will tell of an owner's death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeathNotice {
    /// It will not: who waits for the owner has to look for evidence from time to time.
    Unavailable,
    /// It will, and [`Park::wait_for`] ends then.
    Pending,
    /// It has told that the owner's process is about to end, and will tell of the owner itself in a moment, which ends
    /// [`Park::wait_for`].
    Imminent,
    /// It has. A hint, and no proof: the owner may still be about to end.
    Fired,
}

/// How to wait for a word to change.
pub trait Park {
    /// Nanoseconds on a clock that never goes back. Only differences mean anything.
    fn now(&self) -> u64;

    /// Sleeps while the low 32 bits of `word` are those of `expected`, until somebody wakes the word
    /// or [`now`](Self::now) reaches `until`. It may return early, for no reason: callers look again.
    fn wait(&self, word: &AtomicU64, expected: u64, until: u64);

    /// As [`wait`](Self::wait), and ends also when a death futex of one of `owners` rings. The same by default: for
    /// those who have no death futexes.
    fn wait_for(&self, owners: &[Owner], word: &AtomicU64, expected: u64, until: u64) {
        let _ = owners;
        self.wait(word, expected, until);
    }

    /// Wakes those who sleep on `word`.
    fn wake(&self, word: &AtomicU64, who: Wake);

    /// As [`wake`](Self::wake), and says whether anybody may have been asleep.
    fn wake_any(&self, word: &AtomicU64, who: Wake) -> bool {
        self.wake(word, who);
        true
    }

    /// Lets others have the processor, for as long as they need it at once and no longer.
    fn yield_now(&self) {}

    /// One short pause of the kind that suits a lock that is about to come free, the `turn`-th in a
    /// row from 0, before another look at `word`; `false` when it is time to sleep instead.
    fn spin(&self, word: &AtomicU64, turn: u32) -> bool;

    /// Whether it was worth to have spun before `word`, or a sleep followed all the same: for those who learn.
    fn has_spun(&self, word: &AtomicU64, won: bool) {
        let _ = (word, won);
    }
}

/// How to learn whether an owner lives.
pub trait Liveness {
    /// Whether the owner still has its thread slot, is not marked dead, and its peer has not been fenced: two
    /// loads, no search for evidence. What is not current never is again.
    fn is_current(&self, owner: Owner) -> bool;

    /// Whether both owners are the same thread of the same process, by two attachments to one space: then
    /// neither may wait for the other.
    fn is_same_thread(&self, me: Owner, other: Owner) -> bool {
        me == other
    }

    /// The thread that a mutex at `at` is biased to, if its entry says that it is inside, or was when it died.
    fn inside(&self, bias: Bias, at: Offset) -> Option<Owner> {
        let _ = (bias, at);
        None
    }

    /// Whether a mutex may be biased: only where nobody is fenced who may live on, since a thread that leaves a
    /// biased mutex does so by a plain store to its slot, which may be somebody else's by then.
    fn may_bias(&self) -> bool {
        false
    }

    /// Looks for evidence. If it finds that the owner's peer is dead, it fences it first.
    fn verdict(&self, owner: Owner) -> Verdict;

    /// Whether the kernel will tell of the owner's death, or has: one load, no search for evidence.
    fn death_notice(&self, owner: Owner) -> DeathNotice {
        let _ = owner;
        DeathNotice::Unavailable
    }
}
