//! Whether the tree is as its documents say, and as easy to find one's way in as it was meant to be.
//!
//! Each part is a question that a reader would ask: where is what, who uses whom, are the words those of the field. A
//! test that fails names the file and what to do.

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
