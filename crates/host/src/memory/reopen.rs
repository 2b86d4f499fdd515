//! Opening an open file again, which gives another description of the same file, with locks of its own.

use std::{
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{self, Mode, OFlags},
    io::{Errno, retry_on_intr},
};

use crate::error::HostError;

/// Opens an open file again: another description of the same file.
pub(super) fn open_again(file: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, HostError> {
    let failed = |call| move |errno| HostError::call(call, path, errno);
    // NONBLOCK: the name may mean a pipe by now.
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let link = proc_link(file);
    match retry_on_intr(|| fs::open(&link, flags, Mode::empty())) {
        Ok(again) => return Ok(again),
        // No /proc: by name, if the name still means the same file.
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(failed("open")(errno)),
    }
    let again = retry_on_intr(|| fs::open(path, flags, Mode::empty())).map_err(failed("open"))?;
    let ours = fs::fstat(file).map_err(failed("fstat"))?;
    let found = fs::fstat(&again).map_err(failed("fstat"))?;
    if (ours.st_dev, ours.st_ino) != (found.st_dev, found.st_ino) {
        return Err(failed("open")(Errno::STALE));
    }
    Ok(again)
}

/// The path by which an open file can be opened again.
pub(super) fn proc_link(file: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
