//! Thread slots: how a thread comes to have one, and how others learn that it is dead.
//!
//! # What it owns
//! The transitions of a slot's [life word](ThreadLife), and the order of the stores around them.
//!
//! # Invariants
//! 1. The word is changed by a 64-bit compare-and-swap from the exact value that was seen, never by a store: the
//!    kernel may mark its low half at any time.
//! 2. A thread claims a vacant slot with a new incarnation. Then it clears the other words, asks the kernel (where it
//!    can) to mark the life word when the thread ends, and makes the slot ready. Until then the thread owns no lock,
//!    and what the slot still says of an earlier thread is ignored.
//! 3. Nobody writes the other words of a dead slot. The next thread settles the biases that the dead thread was inside
//!    of ([`settle_bias`](crate::settle_bias)), then claims the slot, then clears the other words.
//! 4. A word that is marked, or has another incarnation, proves that the owner is dead. A word without a mark proves
//!    nothing: a thread can end without one.
//!
//! # What it does not do
//! It does not know how the kernel is asked to mark a word, nor where other proof comes from.

use commonhold_layout::{ThreadLife, thread_word};
use commonhold_window::{
    Point,
    atomic::{AtomicU64, Ordering},
};

const TID_SHIFT: u32 = 32;

/// One slot of the table of threads.
#[derive(Debug, Clone, Copy)]
pub struct ThreadSlot<'a>(&'a [AtomicU64; thread_word::COUNT]);

impl<'a> ThreadSlot<'a> {
    /// The slot with these words.
    #[inline]
    #[must_use]
    pub const fn new(words: &'a [AtomicU64; thread_word::COUNT]) -> Self {
        Self(words)
    }

    /// Its life word.
    #[inline]
    #[must_use]
    pub const fn word(&self) -> &'a AtomicU64 {
        &self.0[thread_word::LIFE]
    }

    /// What its life word says.
    #[inline]
    #[must_use]
    pub fn life(&self) -> ThreadLife {
        // SeqCst: as Acquire it pairs with the mark, so that what the dead thread did is visible. And this load is in
        // one order with the loads of the thread's `reading` words (`rwlock/writers.rs`).
        ThreadLife::from_word(self.word().load(Ordering::SeqCst))
    }

    /// The id, in its own PID namespace, of the thread that has the slot or had it last; 0 if it gave none.
    #[must_use]
    pub fn tid(&self) -> u32 {
        // Relaxed: the caller looks at the named thread elsewhere, and compares the life word then.
        let word = self.0[thread_word::BIASES].load(Ordering::Relaxed);
        u32::try_from(word >> TID_SHIFT).unwrap_or(0)
    }

    /// Claims the slot for the calling thread, whose id is `tid`, and clears it. `seen` is the life word that the
    /// caller found vacant. `None`: the word has changed since, or the slot's incarnations are used up.
    #[must_use]
    pub fn claim(&self, seen: ThreadLife, tid: u32) -> Option<ThreadLife> {
        if !seen.is_vacant() {
            return None;
        }
        let claimed = seen.claimed(tid)?;
        if !self.swap(seen, claimed) {
            return None;
        }
        Point::ThreadClaimed.reached();
        self.clear(tid);
        Point::ThreadCleared.reached();
        Some(claimed)
    }

    /// Makes the claimed slot ready to own locks. `arm` asks the kernel to mark the word when the calling thread
    /// ends, and says whether it could. `None`: the thread was declared dead meanwhile.
    #[must_use]
    pub fn make_ready(
        &self,
        claimed: ThreadLife,
        arm: impl FnOnce() -> bool,
    ) -> Option<ThreadLife> {
        let ready = if arm() { claimed.armed() } else { claimed.unarmed() };
        Point::ThreadArmed.reached();
        if !self.swap(claimed, ready) {
            return None;
        }
        Point::ThreadReady.reached();
        Some(ready)
    }

    /// Marks the slot as the kernel does when its thread ends. `false`: its word is no longer `seen`, or it is vacant.
    #[must_use]
    pub fn mark_dead(&self, seen: ThreadLife) -> bool {
        let marked = !seen.is_vacant() && self.swap(seen, seen.dead());
        if marked {
            Point::ThreadMarked.reached();
        }
        marked
    }

    /// Gives back the slot, which the calling thread has with the life word `life`. The kernel must not be able to
    /// mark the word any more. From now on, locks that the thread still owns are those of a dead thread.
    #[must_use]
    pub fn vacate(&self, life: ThreadLife) -> bool {
        self.swap(life, life.vacated())
    }

    fn swap(&self, from: ThreadLife, to: ThreadLife) -> bool {
        // SeqCst: as Acquire it pairs with the mark of the last thread. As Release it pairs with the load in `life`: a
        // thread that finds the slot ready finds it cleared.
        self.word()
            .compare_exchange(from.word(), to.word(), Ordering::SeqCst, Ordering::Relaxed)
            .is_ok()
    }

    /// Empties the slot. The numbers of waits and of biases go on from one thread to the next.
    fn clear(&self, tid: u32) {
        for (index, word) in self.0.iter().enumerate() {
            match index {
                thread_word::LIFE | thread_word::WAITS => {}
                thread_word::BIASES => {
                    // Relaxed: only the thread that has the slot writes it.
                    let last = word.load(Ordering::Relaxed) & u64::from(u32::MAX);
                    word.store(last | u64::from(tid) << TID_SHIFT, Ordering::Relaxed);
                }
                // Relaxed: the swap that makes the slot ready releases them.
                _ => word.store(0, Ordering::Relaxed),
            }
        }
    }
}
