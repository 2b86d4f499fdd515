//! Counts of slots that have been used: peers of a space, threads of a peer, words of a peer's row of shares.
//!
//! # What it owns
//! How such a count is raised and read. A slot's user raises the count, writes a word of the slot, and then looks for
//! whoever must wait for it (a reader looks for a writer, a mapper for a destroyer). The other writes its own word first,
//! then reads the count, and looks at the words of the slots below it.
//!
//! # Invariants
//! 1. That is Dekker's pattern with two words on one side, the count and the slot's word, so every access is
//!    `SeqCst`. If the count were read by Acquire only, a writer whose own word a reader has not seen might still read
//!    an old count, pass that reader's slot over, and come in beside it: the reader's announcement is
//!    of no use where nobody looks at it.
//! 2. A count only grows while its slots have a user.
//!
//! # What it does not do
//! It does not believe the count: whoever reads it bounds it by the slots that there are.

use commonhold_window::atomic::{AtomicU64, Ordering};

/// Raises the count in `word` to at least `count`. Comes before the first word of a new slot is written.
pub fn raise_used(word: &AtomicU64, count: u64) {
    // SeqCst: see the head of this file. It also is the Release that hands over the memory behind the slots.
    word.fetch_max(count, Ordering::SeqCst);
}

/// The count in `word`: slots from there on have had no user. Comes after the caller has written its own word.
#[must_use]
pub fn used(word: &AtomicU64) -> u64 {
    // SeqCst: see the head of this file. It also is the Acquire of that memory.
    word.load(Ordering::SeqCst)
}
