//! Errors of the operating system.
//!
//! # What it owns
//! The errors of this crate and their messages: of files and calls here, of device memory in `device.rs`. A message
//! says what to do where that is not obvious.
//!
//! # What it does not do
//! It decides nothing. The ports have errors of their own (`BackingMemoryError` of `commonhold-space`).

use std::{
    error::Error,
    fmt, io,
    path::{Path, PathBuf},
};

mod device;

use rustix::io::Errno;

use crate::{
    liveness::LockHolder,
    memory::{Denied, Rights},
    shown,
};

pub use device::DeviceError;

/// Why a window could not be opened, created or removed.
#[derive(Debug)]
#[non_exhaustive]
pub enum HostError {
    /// There is nothing at the path.
    NotFound {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// There is already something at the path.
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// The file has no bytes: it was created, but never formatted.
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The path is neither a regular file nor anything else that can hold a window.
    NotAWindow {
        /// The path.
        path: PathBuf,
        /// What it is: `a directory`.
        found: &'static str,
    },
    /// This user may not do that.
    Denied(Box<Denied>),
    /// A user that is not trusted owns the file, and [`Owners::Any`](crate::Owners::Any) was not asked for.
    Stranger {
        /// The file.
        path: PathBuf,
        /// Its owner and mode, and the user who asked.
        rights: Rights,
    },
    /// The URL is valid, but this version does not support its scheme.
    NotSupported {
        /// The scheme of the URL, with its colon.
        scheme: &'static str,
    },
    /// The URL names no file: it cannot be created, replaced or removed.
    NotAFile {
        /// The scheme of the URL, with its colon.
        scheme: &'static str,
    },
    /// A window in device memory cannot be used.
    Device(DeviceError),
    /// Other processes held the gate of the file until the deadline.
    Busy {
        /// The file.
        path: PathBuf,
        /// One of the holders, if it could be seen. `None` also if the file was replaced again and again.
        holder: Option<LockHolder>,
    },
    /// The process inherited the window by `fork`, and must open it anew.
    Forked,
    /// A system call failed.
    Call {
        /// The call's name.
        call: &'static str,
        /// The file or directory of the call.
        path: PathBuf,
        /// The call's error.
        source: io::Error,
    },
}

impl HostError {
    pub(crate) fn call(call: &'static str, path: &Path, errno: Errno) -> Self {
        Self::Call { call, path: path.to_owned(), source: errno.into() }
    }

    /// The operating system's error number, if a call failed.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Call { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// Whether memory, address space or room on the file system ran out.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.errno().is_some_and(|errno| is_full(Errno::from_raw_os_error(errno)))
    }
}

/// Whether an error number means that there is no memory or no room: `ENOSPC`, `EDQUOT` or `ENOMEM`.
#[must_use]
pub fn is_full(errno: Errno) -> bool {
    matches!(errno, Errno::NOSPC | Errno::DQUOT | Errno::NOMEM)
}

impl From<DeviceError> for HostError {
    fn from(error: DeviceError) -> Self {
        Self::Device(error)
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { path } => write!(f, "{} does not exist", shown(path)),
            Self::Exists { path } => write!(f, "{} already exists", shown(path)),
            Self::Empty { path } => {
                write!(f, "{} is empty: `space format` makes a space of it", shown(path))
            }
            Self::NotAWindow { path, found } => write!(f, "{} is {found}", shown(path)),
            Self::Denied(denied) => denied.fmt(f),
            Self::Stranger { path, rights } => {
                write!(f, "{} {rights}: it is a stranger's", shown(path))
            }
            Self::NotSupported { scheme } => write!(f, "{scheme} is not supported yet"),
            Self::NotAFile { scheme } => write!(
                f,
                "{scheme} names memory and no file: it can be formatted, but neither created nor removed"
            ),
            Self::Device(error) => error.fmt(f),
            Self::Busy { path, holder } => {
                write!(f, "{} is being opened, removed or replaced", shown(path))?;
                match holder {
                    Some(holder) => write!(f, " by {holder}"),
                    None => f.write_str(" by others all the time"),
                }
            }
            Self::Forked => {
                f.write_str("the space was opened before the process forked: open it anew")
            }
            Self::Call { call, path, source } => {
                write!(f, "{call} failed on {}: {source}", shown(path))?;
                match (*call, source.raw_os_error()) {
                    ("mmap", Some(libc::ENOMEM)) => f.write_str(
                        "; is the address space limited (`ulimit -v`)? a smaller capacity may fit",
                    ),
                    _ => Ok(()),
                }
            }
        }
    }
}

impl Error for HostError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Call { source, .. } => Some(source),
            Self::Denied(denied) => Some(&denied.source),
            _ => None,
        }
    }
}

/// Why a new space could not be created.
#[derive(Debug)]
#[non_exhaustive]
pub enum CreateError<E> {
    /// The operating system refused.
    Host(HostError),
    /// The window could not be formatted. Nothing of it is left.
    Format(E),
}

impl<E> From<HostError> for CreateError<E> {
    fn from(error: HostError) -> Self {
        Self::Host(error)
    }
}

impl<E: fmt::Display> fmt::Display for CreateError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(error) => error.fmt(f),
            Self::Format(error) => error.fmt(f),
        }
    }
}

impl<E: Error + 'static> Error for CreateError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Host(error) => error.source(),
            Self::Format(error) => error.source(),
        }
    }
}
