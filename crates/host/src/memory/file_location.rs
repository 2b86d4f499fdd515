//! The path of a file: opening the file, reading its beginning, and naming the rights that refuse it.
//!
//! Only a regular file is opened. `file.rs` creates and replaces files; `gate.rs` removes them.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{self, FileType, Mode, OFlags, Stat},
    io::{Errno, retry_on_intr},
};

use super::{
    mapped_window::MappedWindow,
    name::identity,
    peek::Peek,
    rights::{Denied, Owners, Rights},
};
use crate::error::HostError;

/// The path of a file, and how to open it.
#[derive(Debug, Clone)]
pub(crate) struct FileLocation {
    pub(crate) path: PathBuf,
    pub(crate) flags: OFlags,
    pub(crate) owners: Owners,
}

/// In a directory where all users may create names, links are not followed.
const A_LINK: &str = "a symbolic link, and links are not followed in a directory that all may write; name the \
                      file that it means by file:PATH";

impl FileLocation {
    pub(crate) fn of_path(path: &Path) -> Self {
        Self { path: path.to_owned(), flags: OFlags::empty(), owners: Owners::Trusted }
    }

    /// The same location, for files of these owners.
    pub(crate) fn of_owners(self, owners: Owners) -> Self {
        Self { owners: owners.or_of_environment(), ..self }
    }

    pub(crate) fn failed(&self, call: &'static str) -> impl Fn(Errno) -> HostError {
        move |errno| match errno {
            Errno::EXIST => HostError::Exists { path: self.path.clone() },
            Errno::ACCESS | Errno::PERM => self.denied(call, errno),
            errno => HostError::call(call, &self.path, errno),
        }
    }

    /// The error that names the rights that refuse a call: of the file if it is `open`, otherwise of the directory.
    pub(super) fn denied(&self, call: &'static str, errno: Errno) -> HostError {
        let file = self.stat_itself().ok().filter(|_| call == "open");
        let (object, stat) = match file {
            Some(stat) => (self.path.clone(), Some(stat)),
            None => (self.directory().to_owned(), fs::stat(self.directory()).ok()),
        };
        let rights = stat.as_ref().map(Rights::new);
        let (path, source) = (self.path.clone(), errno.into());
        HostError::Denied(Box::new(Denied { call, path, object, rights, source }))
    }

    /// Opens the file if it is a regular one. Anything else is not opened at all: opening alone can change a device,
    /// and block on a pipe.
    pub(crate) fn open_as(&self, access: OFlags) -> Result<OwnedFd, HostError> {
        let Some(stat) = self.stat()? else {
            let path = self.path.clone();
            // If anything but a link is there now, it has come since.
            let is_link = |stat: Stat| FileType::from_raw_mode(stat.st_mode).is_symlink();
            return Err(match fs::lstat(&path).is_ok_and(is_link) {
                true => HostError::NotAWindow { path, found: "a symbolic link to nothing" },
                false => HostError::NotFound { path },
            });
        };
        self.check_regular(&stat)?;
        // NONBLOCK: if a pipe has taken the path since, `open` must fail and not block.
        let flags = access | self.flags | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let file =
            retry_on_intr(|| fs::open(&self.path, flags, Mode::empty())).map_err(|errno| {
                match errno {
                    Errno::NOENT => HostError::NotFound { path: self.path.clone() },
                    Errno::LOOP => HostError::NotAWindow { path: self.path.clone(), found: A_LINK },
                    Errno::ISDIR | Errno::NXIO => self.not_a_window(FileType::Unknown),
                    // A process has a lease on it, and the kernel has asked it to give that up (fcntl(2)).
                    Errno::AGAIN => HostError::Busy { path: self.path.clone(), holder: None },
                    errno => self.failed("open")(errno),
                }
            })?;
        let stat = fs::fstat(&file).map_err(self.failed("fstat"))?;
        self.check_regular(&stat)?;
        let rights = Rights::new(&stat);
        if self.owners == Owners::Trusted && !rights.are_trusted() {
            return Err(HostError::Stranger { path: self.path.clone(), rights });
        }
        Ok(file)
    }

    pub(crate) fn open(&self) -> Result<MappedWindow, HostError> {
        MappedWindow::of_file(self.open_as(OFlags::RDWR)?, &self.path)
    }

    pub(crate) fn peek(&self) -> Result<Peek, HostError> {
        Peek::of_file(self.open_as(OFlags::RDONLY)?.as_fd(), &self.path)
    }

    /// Whether the path means this file.
    pub(crate) fn means(&self, file: (u64, u64)) -> Result<bool, HostError> {
        Ok(self.stat()?.is_some_and(|stat| identity(&stat) == file))
    }

    fn stat_itself(&self) -> Result<Stat, Errno> {
        if self.flags.contains(OFlags::NOFOLLOW) {
            fs::lstat(&self.path)
        } else {
            fs::stat(&self.path)
        }
    }

    pub(super) fn stat(&self) -> Result<Option<Stat>, HostError> {
        match self.stat_itself() {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP) => {
                Err(HostError::NotAWindow { path: self.path.clone(), found: "a circle of links" })
            }
            Err(errno) => Err(self.failed("stat")(errno)),
        }
    }

    pub(super) fn check_regular(&self, stat: &Stat) -> Result<(), HostError> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(()),
            other => Err(self.not_a_window(other)),
        }
    }

    fn not_a_window(&self, kind: FileType) -> HostError {
        let found = match kind {
            FileType::Directory => "a directory, and no file that can hold a space",
            FileType::Fifo => "a pipe, and no file that can hold a space",
            FileType::Socket => "a socket, and no file that can hold a space",
            FileType::Symlink => A_LINK,
            FileType::CharacterDevice | FileType::BlockDevice => {
                "a device, and no file that can hold a space; memory of devices is named by pci: or mem:"
            }
            _ => "no regular file",
        };
        HostError::NotAWindow { path: self.path.clone(), found }
    }

    pub(crate) fn directory(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => Path::new("/"),
        }
    }
}
