//! Counts of slots that have been used: peers of a space, threads of a peer, words of a peer's row of shares.
//!
//! # What it owns
//! How such a count is raised and read. The user of a slot raises the count, writes a word of the slot, and then looks
//! for the other side, which must wait for it (a reader looks for a writer, a mapper for a destroyer). The other side
//! writes its own word first, then reads the count, and looks at the words of the slots below it.
//!
//! # Invariants
//! 1. That is Dekker's pattern with two words on one side, the count and the slot's word. Every access is `SeqCst`, so
//!    at least one side sees the other. An Acquire load of the count would not do: the writer's processor could load
//!    the count before others see the writer's word. Then the reader finds no writer and comes in, while the writer
//!    has read the old count. The writer does not look at the reader's slot, and comes in as well.
//! 2. A count only grows while its slots have a user.
//!
//! # What it does not do
//! It does not trust the count: the caller bounds it by the number of slots that there are.

use commonhold_window::atomic::{AtomicU64, Ordering};

/// Raises the count in `word` to at least `count`. Comes before the first word of a new slot is written.
pub fn raise_used(word: &AtomicU64, count: u64) {
    // SeqCst: see the head of this file. It also is the Release that hands over the memory behind the slots.
    word.fetch_max(count, Ordering::SeqCst);
}

/// The count in `word`: slots from there on have had no user. The caller has written its own word before.
#[must_use]
pub fn used(word: &AtomicU64) -> u64 {
    // SeqCst: see the head of this file. It also is the Acquire that pairs with the Release in `raise_used`.
    word.load(Ordering::SeqCst)
}
