//! What a guest's kernel, and its QEMU, have said: kept for when something goes wrong.

use std::{
    io::Read,
    sync::{Mutex, PoisonError},
};

/// Bytes that are kept.
const KEPT: usize = 8 << 10;

/// The end of it.
#[derive(Debug)]
pub(crate) struct Console {
    guest: String,
    bytes: Mutex<Vec<u8>>,
}

impl Console {
    pub(crate) fn new(guest: String) -> Self {
        Self { guest, bytes: Mutex::default() }
    }

    pub(crate) fn guest(&self) -> &str {
        &self.guest
    }

    /// Keeps what comes, until it ends.
    pub(crate) fn follow(&self, mut from: impl Read) {
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
            bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
            let excess = bytes.len().saturating_sub(KEPT);
            bytes.drain(..excess);
        }
    }

    /// What went wrong with the guest, and what it said last.
    pub(crate) fn told(&self, wrong: &str) -> String {
        format!("{} {wrong}\n{}", self.guest, self.tail())
    }

    /// What was said last, under a heading.
    pub(crate) fn tail(&self) -> String {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&bytes);
        format!("--- the console of {}:\n{}\n---", self.guest, text.trim_end())
    }
}
