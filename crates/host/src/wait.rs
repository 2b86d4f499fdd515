//! Waiting until a word of a window changes, and waking the waiters.
//!
//! # What it owns
//! | what | files |
//! |---|---|
//! | the choice between the futex and polling, and the futex | `park` |
//! | polling, with naps that grow | `poll` |
//! | spinning before a sleep, and whether that helps | `spin` |
//! | the clocks | `clock` |
//!
//! # Invariants
//! 1. A futex is used only where a wake reaches every process of this kernel that can map the window (`park`).
//! 2. No wait is endless, so a waiter goes on even if a wake could not be sent.
//!
//! # What it does not do
//! It knows neither locks nor what a thread waits for, and writes no word.

mod clock;
mod park;
mod poll;
mod spin;

pub(crate) use clock::monotonic_ns;
pub use clock::unix_ms;
pub(crate) use park::Waiting;
