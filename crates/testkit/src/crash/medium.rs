//! A small file system for a space, so that it can run out of memory.

use std::{ffi::CString, fs, path::PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::crash::Outcome;

/// A tmpfs, unmounted when this is dropped. Only root can mount one.
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

    /// The URL of a space in it.
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
