//! A directory for one test, in memory, which is removed at its end.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags, ftruncate, open};

use crate::memory::MappedWindow;

#[derive(Debug)]
pub(crate) struct Scratch {
    directory: PathBuf,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self::below(Path::new("/dev/shm"))
    }

    pub(crate) fn below(parent: &Path) -> Self {
        let directory = parent.join(format!("commonhold-test-{:x}", crate::random().unwrap()));
        fs::create_dir(&directory).unwrap();
        Self { directory }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A window in a new file that is one hole.
    pub(crate) fn window(&self, name: &str, size: u64) -> MappedWindow {
        let path = self.path(name);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = open(&path, flags, Mode::RUSR | Mode::WUSR).unwrap();
        ftruncate(&file, size).unwrap();
        MappedWindow::of_file(file, &path).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}
