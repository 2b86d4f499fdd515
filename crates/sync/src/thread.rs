//! A thread as a lock sees it.

use commonhold_layout::{Offset, Owner, Pending, PendingKind, thread_word};
use commonhold_window::atomic::{AtomicU64, Ordering};

/// One thread that takes locks: its identity, and the words through which others know of it.
#[derive(Debug, Clone, Copy)]
pub struct Thread<'a> {
    owner: Owner,
    slot: &'a [AtomicU64; thread_word::COUNT],
    state: &'a AtomicU64,
    live: u64,
}

impl<'a> Thread<'a> {
    /// The thread `owner`, whose thread slot is `slot`, and whose peer's state word is `state` and holds
    /// `live` as long as nobody has fenced it.
    #[inline]
    #[must_use]
    pub const fn new(
        owner: Owner,
        slot: &'a [AtomicU64; thread_word::COUNT],
        state: &'a AtomicU64,
        live: u64,
    ) -> Self {
        Self { owner, slot, state, live }
    }

    /// Who it is.
    #[inline]
    #[must_use]
    pub const fn owner(&self) -> Owner {
        self.owner
    }

    /// Whether others still count its peer among the living.
    #[inline]
    #[must_use]
    pub fn is_live(&self) -> bool {
        // Relaxed: a fence that comes a moment later is indistinguishable from one that comes a moment
        // after the lock was taken, and freeing the lock will tell.
        self.state.load(Ordering::Relaxed) == self.live
    }

    /// A word of the thread's own in which it holds no lock to read.
    #[inline]
    pub(crate) fn free_reading(&self) -> Option<&'a AtomicU64> {
        // Relaxed: nobody else writes it.
        self.slot.iter().skip(thread_word::READING).find(|word| word.load(Ordering::Relaxed) == 0)
    }

    /// Whether the thread holds the lock with this key to read, as far as its own words say: those
    /// beyond them are counted with other threads'.
    #[must_use]
    pub fn reads(&self, key: u64) -> bool {
        // Relaxed: nobody else writes them.
        self.slot.iter().skip(thread_word::READING).any(|word| word.load(Ordering::Relaxed) == key)
    }

    pub(crate) fn announce(&self, kind: PendingKind, lock: Offset) {
        // Release: whoever reads the announcement after our death also sees what we did before it.
        self.slot[thread_word::PENDING].store(Pending { kind, lock }.word(), Ordering::Release);
    }

    pub(crate) fn done(&self) {
        self.slot[thread_word::PENDING].store(0, Ordering::Release);
        self.count_wait();
    }

    /// No lock depends on this number, only those who look on: so the model checker is spared it.
    fn count_wait(&self) {
        #[cfg(not(loom))]
        {
            let waits = &self.slot[thread_word::WAITS];
            // Relaxed: nobody else writes it. Release: whoever sees it moved sees that the wait is over.
            waits.store(waits.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        }
    }

    /// Says that the thread waits for the process `pid` to end: for those who look on. Any lock that
    /// it comes to wait for meanwhile takes the place of this.
    pub fn await_process(&self, pid: u32) {
        self.slot[thread_word::PENDING].store(Pending::of_process(pid).word(), Ordering::Release);
    }

    /// Says that it waits no longer.
    pub fn awaited(&self) {
        self.done();
    }
}
