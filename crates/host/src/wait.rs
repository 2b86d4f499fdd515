//! Waiting until a word of a window changes, and waking those who wait.
//!
//! # What it owns
//! | what | files |
//! |---|---|
//! | the choice between the futex and looking again, and the futex | `park` |
//! | looking again, with naps that grow | `poll` |
//! | looking again before sleeping, and whether that helps | `spin` |
//! | the clocks | `clock` |
//!
//! # Invariants
//! 1. A futex is used only where a wake reaches everybody of this kernel who can map the window (`park`).
//! 2. No wait is endless: a wake that nobody could send is made up for.
//!
//! # What it does not do
//! It knows neither locks nor why anybody waits, and writes no word.

mod clock;
mod park;
mod poll;
mod spin;

pub(crate) use clock::monotonic_ns;
pub use clock::unix_ms;
pub(crate) use park::Waiting;
