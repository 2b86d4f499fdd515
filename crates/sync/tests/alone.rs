//! All locks, with one thread at a time: what each call returns, which sleepers it wakes, and what the death of each
//! thread leaves behind. No thread really sleeps: each sleep runs the next line of a script.
#![cfg(not(loom))]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking; clippy knows that only of unit tests"
)]

#[path = "alone/barrier.rs"]
mod barrier;
#[path = "alone/bias.rs"]
mod bias;
#[path = "alone/condvar.rs"]
mod condvar;
#[path = "alone/mutex.rs"]
mod mutex;
#[path = "alone/once.rs"]
mod once;
#[path = "alone/rwlock.rs"]
mod rwlock;
#[path = "alone/script.rs"]
mod script;
#[path = "alone/semaphore.rs"]
mod semaphore;
#[path = "alone/seqlock.rs"]
mod seqlock;
#[path = "alone/upgradable.rs"]
mod upgradable;
