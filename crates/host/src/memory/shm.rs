//! `shm:NAME`: files in the directory of POSIX shared memory.

use std::path::PathBuf;

use rustix::fs::OFlags;

use super::{file_location::FileLocation, rights::variable};

/// The variable that names a directory to use instead of `/dev/shm`.
const DIRECTORY: &str = "COMMONHOLD_SHM_DIR";

/// The directory in which `shm:` spaces lie.
#[must_use]
pub fn shm_directory() -> PathBuf {
    variable(DIRECTORY).map_or_else(|| PathBuf::from("/dev/shm"), PathBuf::from)
}

/// The file of the space with this name. All users may create links in the directory, so links are not followed.
pub(crate) fn place(name: &str) -> FileLocation {
    let mut path = shm_directory();
    path.push(format!("commonhold-{name}"));
    FileLocation { flags: OFlags::NOFOLLOW, ..FileLocation::of_path(&path) }
}
