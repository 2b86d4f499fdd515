//! `torture`: many processes use a space at once and are killed and stopped at random. A checker then looks for
//! violations in the history of their operations.
//!
//! Parts: the run (`coordinator`), what a worker does (`worker`), its journaled counters (`account`) and its directory
//! operations (`directory`), the log it writes (`log`), the history read back from the logs (`history`), the stops
//! (`stops`), and the rules that every history must obey (`checker`).

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
