//! Who lives: the evidence that this process leaves, and what it concludes from that of others.
//!
//! # What it owns
//! | what | files |
//! |---|---|
//! | leaving evidence of life, and weighing that of others | `witness` |
//! | a process, as `/proc` and its `pidfd` show it | `process` |
//! | the thread that beats while this process lives | `heartbeat_thread`, `priority` |
//! | words that the kernel marks when a thread ends | `robust_list` |
//! | peers whose heartbeat stands still | `silence` |
//! | for messages: who has a file locked, who is stopped | `holder`, `stopped` |
//!
//! # Invariants
//! 1. `Dead` is said on proof, or when a lease has run out where no proof can be had (`witness`).
//! 2. What is there for messages decides nothing.
//!
//! # What it does not do
//! It fences nobody, and takes no lock over: `commonhold-space` and `commonhold-sync` do.

mod heartbeat_thread;
mod holder;
mod priority;
mod process;
mod robust_list;
mod silence;
mod stopped;
mod witness;

pub use heartbeat_thread::{HeartbeatThread, Setup};
pub use holder::LockHolder;
pub use priority::Priority;
pub use process::{parent_of, thread_id};
pub(crate) use robust_list::DeathWords;
pub use stopped::is_stopped;
pub(crate) use witness::Evidences;
