//! Liveness: the evidence that this process publishes, and what it concludes from the evidence of other peers.
//!
//! # What it owns
//! | what | files |
//! |---|---|
//! | publishing evidence of life, and weighing that of other peers | `witness` |
//! | a process, as `/proc` and its `pidfd` show it | `process` |
//! | the heartbeat thread of this process, and threads that take no signals | `heartbeat_thread`, `priority`, `signal_mask` |
//! | words that the kernel marks when a thread ends | `robust_list` |
//! | peers whose heartbeat count has stopped changing | `silence` |
//! | for messages: which process has a file locked, which thread is stopped | `holder`, `stopped` |
//!
//! # Invariants
//! 1. The verdict `Dead` needs proof; where no proof is possible, it needs a lease that has run out (`witness`).
//! 2. What is read for messages decides nothing.
//!
//! # What it does not do
//! It fences no peer and takes over no lock: `commonhold-space` and `commonhold-sync` do.

mod heartbeat_thread;
mod holder;
mod priority;
mod process;
mod robust_list;
mod signal_mask;
mod silence;
mod stopped;
mod witness;

pub use heartbeat_thread::{HeartbeatThread, Setup};
pub use holder::LockHolder;
pub use priority::Priority;
pub use process::{parent_of, thread_id};
pub(crate) use robust_list::DeathWords;
pub use signal_mask::SignalMask;
pub use stopped::is_stopped;
pub(crate) use witness::Evidences;
