//! The last output of a guest's kernel and of its QEMU, kept for failure messages.

use std::{
    io::Read,
    sync::{Mutex, PoisonError},
};

/// How many bytes are kept.
const KEPT: usize = 8 << 10;

/// The last bytes of the output.
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

    /// Reads the output until it ends, and keeps the last bytes.
    pub(crate) fn follow(&self, mut from: impl Read) {
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
            bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
            let excess = bytes.len().saturating_sub(KEPT);
            bytes.drain(..excess);
        }
    }

    /// A failure message: what went wrong with the guest, and its last output.
    pub(crate) fn told(&self, wrong: &str) -> String {
        format!("{} {wrong}\n{}", self.guest, self.tail())
    }

    /// The last output, under a heading.
    pub(crate) fn tail(&self) -> String {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&bytes);
        format!("--- the console of {}:\n{}\n---", self.guest, text.trim_end())
    }
}
