//! The event word: a number that can be waited for, and a flag that says whether a thread may be asleep on the word.

/// The flag of an event word: a thread may be asleep on it.
pub const EVENT_WAITERS: u64 = 1;
/// What one signal adds to an event word: its upper 63 bits are the sequence number.
pub const EVENT_STEP: u64 = 2;
