//! `demo`: the product in 15 seconds.
//!
//! Workers move money between accounts in a region, under the lock of that region. Every few seconds the coordinator
//! stops one worker between the debit and the credit, while it holds the lock, and kills it. Another worker is
//! told that the owner died, repairs the accounts from the journal, and goes on. The sum of all accounts never
//! changes. At the end a destroy waits until the last mapping is gone, and nothing is left.
//!
//! Parts: the run (`coordinator`), what a worker does (`worker`), and the layout of the accounts (`ledger`).

mod coordinator;
mod ledger;
mod worker;

pub(crate) use coordinator::demo;
pub(crate) use worker::worker;
