//! A small piece of memory to put a space in, so that there can be too little.

use std::{ffi::CString, fs, path::PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::crash::Outcome;

/// A file system in memory, gone when this is dropped. Only root can have one.
pub(crate) struct SmallMemory(PathBuf);

impl SmallMemory {
    pub(crate) fn mount(bytes: u64, tag: &str) -> Outcome<Self> {
        let directory = std::env::temp_dir().join(format!("commonhold-{tag}"));
        let text = |error: std::io::Error| format!("{}: {error}", directory.display());
        fs::create_dir_all(&directory).map_err(text)?;
        let small = Self(directory.clone());
        let size = CString::new(format!("size={bytes}")).map_err(|error| error.to_string())?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("tmpfs", &small.0, "tmpfs", flags, Some(size.as_c_str()))
            .map_err(|errno| text(errno.into()))?;
        Ok(small)
    }

    /// Where a space in it is.
    pub(crate) fn url(&self) -> String {
        format!("file:{}", self.0.join("space").display())
    }
}

impl Drop for SmallMemory {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.0);
    }
}
