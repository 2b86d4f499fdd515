//! `torture`: processes that use a space without mercy, are killed at random, and leave a history
//! that must make sense.
//!
//! Owns: the run (`director`), what a worker does (`worker`), its journaled counters (`account`) and
//! directory operations (`directory`), what it writes down (`log`), the history read back from that
//! (`history`), who is stopped (`stops`), and what no history may contain (`checker`).

mod account;
mod checker;
mod coordinator;
mod directory;
mod history;
mod log;
mod stops;
mod worker;

pub(crate) use coordinator::torture;
pub(crate) use worker::worker;
