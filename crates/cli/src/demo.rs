//! `demo`: the product in 15 seconds.
//!
//! Workers move money between the accounts of a shared ledger under the lock of its region. Every few
//! seconds one is stopped after the debit and before the credit, holding the lock, and is killed;
//! another is told that the owner died, repairs the ledger from its journal, and goes on. No sum is
//! ever lost. Then a destroy waits for the last mapping to go, and nothing is left.
//!
//! Owns: the run (`director`), what a worker does (`worker`) and the ledger's layout (`ledger`).

mod coordinator;
mod ledger;
mod worker;

pub(crate) use coordinator::demo;
pub(crate) use worker::worker;
