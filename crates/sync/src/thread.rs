//! A thread as a lock sees it.

use commonhold_layout::{Offset, Owner, Pending, PendingKind, ThreadLife, thread_word};
use commonhold_window::atomic::{AtomicU64, Ordering};

/// One thread that takes locks: its identity, and the words through which others know of it.
#[derive(Debug, Clone, Copy)]
pub struct Thread<'a> {
    owner: Owner,
    slot: &'a [AtomicU64; thread_word::COUNT],
    state: &'a AtomicU64,
    live: u64,
    life: ThreadLife,
}

impl<'a> Thread<'a> {
    /// The thread `owner`. `slot` is its thread slot, whose life word is `life` until the thread is declared dead.
    /// `state` is the state word of its peer, and is `live` until the peer is fenced.
    #[inline]
    #[must_use]
    pub const fn new(
        owner: Owner,
        slot: &'a [AtomicU64; thread_word::COUNT],
        state: &'a AtomicU64,
        live: u64,
        life: ThreadLife,
    ) -> Self {
        Self { owner, slot, state, live, life }
    }

    /// Its identity, as a lock word names it.
    #[inline]
    #[must_use]
    pub const fn owner(&self) -> Owner {
        self.owner
    }

    /// Whether neither it has been declared dead, nor its peer fenced.
    #[inline]
    #[must_use]
    pub fn is_live(&self) -> bool {
        // Relaxed: a fence that comes a moment later is indistinguishable from one that comes a moment
        // after the lock was taken, and freeing the lock will tell.
        self.state.load(Ordering::Relaxed) == self.live && self.has_slot()
    }

    /// Whether the slot still is its own. Left out under the model checker: there nobody takes a slot from
    /// a thread whose peer is not fenced.
    #[inline]
    fn has_slot(&self) -> bool {
        cfg!(loom) || self.slot[thread_word::LIFE].load(Ordering::Relaxed) == self.life.word()
    }

    /// The life word of its slot, and the value that it has while the slot is the thread's own.
    #[inline]
    pub(crate) const fn life(&self) -> (&'a AtomicU64, u64) {
        (&self.slot[thread_word::LIFE], self.life.word())
    }

    /// One of the thread's own `reading` words that holds no key.
    #[inline]
    pub(crate) fn free_reading(&self) -> Option<&'a AtomicU64> {
        // Relaxed: nobody else writes it.
        reading(self.slot).find(|word| word.load(Ordering::Relaxed) == 0)
    }

    /// The bias entry with this number: its [target](commonhold_layout::BiasTarget) and its
    /// [state](commonhold_layout::BiasState).
    #[inline]
    pub(crate) const fn entry(&self, number: usize) -> &'a [AtomicU64; 2] {
        entry_of(self.slot, number)
    }

    /// The next number for a bias of this thread slot, which no bias of it has had (until the numbers wrap).
    pub(crate) fn next_bias(&self) -> u32 {
        const NUMBER: u64 = u32::MAX as u64;
        // Relaxed: nobody else writes it. Its high half is the thread's id.
        let last = self.slot[thread_word::BIASES].load(Ordering::Relaxed);
        #[allow(clippy::cast_possible_truncation, reason = "it wraps")]
        let next = (last as u32).wrapping_add(1).max(1);
        self.slot[thread_word::BIASES].store(last & !NUMBER | u64::from(next), Ordering::Relaxed);
        next
    }

    /// Whether the thread holds the lock with this key to read, as far as its own words say. Read locks
    /// beyond these words are counted together with those of other threads.
    #[must_use]
    pub fn reads(&self, key: u64) -> bool {
        // Relaxed: nobody else writes them.
        reading(self.slot).any(|word| word.load(Ordering::Relaxed) == key)
    }

    pub(crate) fn announce(&self, kind: PendingKind, lock: Offset) {
        // Release: a reaper that reads the announcement after our death also sees what we did before it.
        self.slot[thread_word::PENDING].store(Pending { kind, lock }.word(), Ordering::Release);
    }

    pub(crate) fn done(&self) {
        self.slot[thread_word::PENDING].store(0, Ordering::Release);
        self.count_wait();
    }

    /// Counts completed waits. Only observers depend on the number, no lock does: so the model checker leaves it out.
    fn count_wait(&self) {
        #[cfg(not(loom))]
        {
            let waits = &self.slot[thread_word::WAITS];
            // Relaxed: nobody else writes it. Release: an observer that sees it moved sees that the wait is over.
            waits.store(waits.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        }
    }

    /// Announces, for observers, that the thread waits for the process `pid` to end. If the thread waits for a
    /// lock meanwhile, that announcement replaces this one.
    pub fn await_process(&self, pid: u32) {
        self.slot[thread_word::PENDING].store(Pending::of_process(pid).word(), Ordering::Release);
    }

    /// Announces that it waits no longer.
    pub fn awaited(&self) {
        self.done();
    }
}

/// The `reading` words of a slot: the keys of locks that its thread holds to read.
#[inline]
pub fn reading(slot: &[AtomicU64; thread_word::COUNT]) -> impl Iterator<Item = &AtomicU64> {
    slot[thread_word::READING..thread_word::READING + thread_word::READING_COUNT].iter()
}

/// The bias entry of a slot with this number: its [target](commonhold_layout::BiasTarget) and its
/// [state](commonhold_layout::BiasState).
#[inline]
#[allow(clippy::indexing_slicing, reason = "there are as many")]
pub(crate) const fn entry_of(
    slot: &[AtomicU64; thread_word::COUNT],
    number: usize,
) -> &[AtomicU64; 2] {
    // The remainder shows the compiler that the index is in range.
    &entries(slot)[number % thread_word::BIAS_COUNT]
}

/// All bias entries of a slot.
#[inline]
pub(crate) const fn entries(slot: &[AtomicU64; thread_word::COUNT]) -> &[[AtomicU64; 2]] {
    let (_, words) = slot.split_at(thread_word::BIAS);
    words.as_chunks().0
}
