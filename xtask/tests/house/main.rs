//! Checks that the tree agrees with its documents, and that it stays easy to read.
//!
//! Each module checks one thing that matters to a reader: documents, circles of files, lengths of files, and words. A
//! test that fails names the file and says what to do.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what fails here is a test, also where no function of a test does it"
)]

mod circles;
mod documents;
mod lengths;
mod tree;
mod words;
