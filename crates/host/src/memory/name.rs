//! Whether a file still has the name by which it was opened.
//!
//! # What it owns
//! The path, the file that it meant, and the last answer.
//!
//! # Invariants
//! 1. The answer needs no descriptor, since programs close descriptors that they do not know.
//!
//! # What it does not do
//! It does not keep a name from being removed. Programs that know the gate (`gate.rs`) remove only names of files
//! that are not used; `rm` does not know it.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use rustix::{
    fs::{self, Stat},
    io::Errno,
};

use crate::wait::monotonic_ns;

/// The least time between two looks of [`FileName::watch`].
const PAUSE_NS: u64 = 400_000_000;

/// A path, and the file that it meant.
#[derive(Debug)]
pub(crate) struct FileName {
    path: PathBuf,
    file: (u64, u64),
    lost: AtomicBool,
    looked_ns: AtomicU64,
}

/// The numbers that identify a file within this kernel.
pub(crate) const fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

impl FileName {
    pub(crate) fn new(path: &Path, stat: &Stat) -> Self {
        // A relative path would mean something else after `chdir`.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let (lost, looked_ns) = (AtomicBool::new(false), AtomicU64::new(0));
        Self { path, file: identity(stat), lost, looked_ns }
    }

    /// Whether the path means another file now, or none. If that is not known, `false`.
    pub(crate) fn is_lost(&self) -> bool {
        match fs::stat(&self.path) {
            Ok(stat) => identity(&stat) != self.file,
            Err(errno) => matches!(errno, Errno::NOENT | Errno::NOTDIR),
        }
    }

    /// Looks, if the last look was some time ago.
    pub(crate) fn watch(&self) {
        let now = monotonic_ns();
        // Relaxed, as all accesses here: the answer is a hint for people, and nothing else depends on it.
        let before = self.looked_ns.load(Ordering::Relaxed);
        if before != 0 && now.saturating_sub(before) < PAUSE_NS {
            return;
        }
        self.looked_ns.store(now, Ordering::Relaxed);
        self.lost.store(self.is_lost(), Ordering::Relaxed);
    }

    /// The last answer.
    pub(crate) fn was_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use crate::scratch::Scratch;

    #[test]
    fn a_name_is_lost_when_it_means_another_file_or_none_and_found_when_it_comes_back() {
        let scratch = Scratch::new();
        let (path, other) = (scratch.path("a"), scratch.path("b"));
        let mapped = scratch.window("a", 4096);
        assert!(!mapped.has_lost_its_name());
        std::fs::rename(&path, &other).unwrap();
        assert!(mapped.has_lost_its_name());
        std::fs::write(&path, "another").unwrap();
        assert!(mapped.has_lost_its_name());
        assert!(!mapped.was_seen_nameless(), "there was no look yet");
        mapped.watch_name();
        assert!(mapped.was_seen_nameless());
        std::fs::rename(&other, &path).unwrap();
        assert!(!mapped.has_lost_its_name());
        mapped.watch_name();
        assert!(mapped.was_seen_nameless(), "the last look was a moment ago");
    }
}
