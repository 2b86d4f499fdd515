//! The error of every access that is checked against the length of a window.

use core::fmt;

/// An access that would have left the window, or was not aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfWindow {
    /// Where it began, in bytes from the start of the window.
    pub offset: u64,
    /// How many bytes it wanted.
    pub len: u64,
    /// How many bytes the window has.
    pub window: u64,
}

impl fmt::Display for OutOfWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, len, window } = self;
        write!(
            f,
            "{len} bytes at offset {offset} do not lie, aligned, in a window of {window} bytes"
        )
    }
}

impl core::error::Error for OutOfWindow {}
