//! Reading the beginning of a file without mapping it.
//!
//! Reading a mapping can end the process (if the file is cut short, or the file system is full); reading a file
//! cannot. Device memory can be read only through a mapping.

use std::{os::fd::BorrowedFd, path::Path};

use commonhold_layout::Offset;
use commonhold_window::{Window, atomic::Ordering};
use rustix::{
    fs,
    io::{self, retry_on_intr},
};

use crate::error::HostError;

/// The beginning of a file or window that may be a space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peek {
    /// The first words; words past the end of the file are 0.
    pub words: [u64; 32],
    /// The size of the file or window, in bytes.
    pub size: u64,
}

impl Peek {
    /// Whether it reads as ones only, as addresses do that no device answers.
    #[must_use]
    pub fn is_all_ones(&self) -> bool {
        self.words.iter().all(|word| *word == u64::MAX)
    }

    pub(crate) fn of_file(file: BorrowedFd<'_>, path: &Path) -> Result<Self, HostError> {
        let stat = fs::fstat(file).map_err(|errno| HostError::call("fstat", path, errno))?;
        let mut bytes = [0_u8; 256];
        let mut read = 0;
        while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
            let count = retry_on_intr(|| io::pread(file, &mut *rest, read as u64))
                .map_err(|errno| HostError::call("pread", path, errno))?;
            if count == 0 {
                break;
            }
            read += count;
        }
        let mut words = [0; 32];
        for (word, chunk) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*chunk);
        }
        Ok(Self { words, size: u64::try_from(stat.st_size).unwrap_or(0) })
    }

    /// The beginning of a window, which must be safe to touch.
    pub(crate) fn of_window(window: &Window) -> Self {
        let mut words = [0; 32];
        if let Ok(found) = window.words::<32>(Offset::ZERO) {
            for (word, found) in words.iter_mut().zip(found) {
                *word = found.load(Ordering::Relaxed);
            }
        }
        Self { words, size: window.len() }
    }
}
