//! Why a space could not be opened, formatted or removed.

mod used;

use std::{fmt, io, path::PathBuf};

use commonhold_host::{Denied, DeviceError, LockHolder, Rights, shown};
use commonhold_layout::{FormatError, OpenError as LayoutError};
use commonhold_space::Room;

use super::ErrorKind;

/// Why a space could not be opened, formatted or removed.
///
/// # Examples
/// ```
/// use commonhold::{FormatOptions, OpenError, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-open-error-{}", std::process::id());
/// let options = FormatOptions { capacity: Some(16 << 20), ..FormatOptions::default() };
/// match Space::format(&url, &options) {
///     Ok(()) | Err(OpenError::Exists { .. }) => {} // an earlier run, or another process, made it
///     Err(error) => return Err(error.into()),
/// }
/// let space = Space::open(&url)?;
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// The URL is malformed.
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// There is no such file.
    NotFound {
        /// Which.
        path: PathBuf,
    },
    /// `format` found a space, or other data, and was not told to replace it.
    Exists {
        /// Which file.
        path: PathBuf,
        /// What was found there.
        found: &'static str,
    },
    /// Another process is formatting it, or died while it did.
    Formatting {
        /// Which window.
        path: PathBuf,
    },
    /// The URL names memory of a device and no file: it cannot be removed.
    NotAFile {
        /// What was given.
        url: String,
    },
    /// Peers are attached that live, or are not known to be dead.
    InUse {
        /// Which file.
        path: PathBuf,
        /// How many peers.
        peers: usize,
    },
    /// A process holds a lock on the file such as living peers hold, and the file does not say that this peer is
    /// dead. Mostly the file is of another version, or damaged.
    Held {
        /// Which file.
        path: PathBuf,
        /// The byte of the file that is locked; byte `2^62 + slot` is the evidence of a peer.
        byte: u64,
        /// The slot of the peer whose evidence it is, if it has that form.
        slot: Option<u16>,
        /// The process that holds the lock, if that could be seen.
        by: Option<LockHolder>,
    },
    /// The file or device cannot be read as a space, and locks prove nothing there. So nothing can tell whether a
    /// process uses it.
    Unknowable {
        /// Which window.
        path: PathBuf,
        /// What memory it is, in words.
        memory: String,
    },
    /// Others were opening, removing or replacing the file all the time.
    TimedOut {
        /// Which file.
        path: PathBuf,
        /// A process that holds the gate, if that could be seen.
        by: Option<LockHolder>,
    },
    /// The path is no regular file, but a directory, a device, a pipe, or a link that is not followed.
    NotAWindow {
        /// Where.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// The user of this process has no permission for it.
    Denied(Box<Denied>),
    /// The file belongs to a user that is not trusted. The user of this process and root are trusted, and so is a
    /// user who shares the file with a group of this process's user, but not with everybody. Root trusts only root.
    /// Files of other users are used only with [`Owners::Any`](crate::Owners::Any).
    Stranger {
        /// Which file.
        path: PathBuf,
        /// Whose it is.
        rights: Rights,
    },
    /// The file is not a space that this version can use.
    NotASpace {
        /// Which file.
        path: PathBuf,
        /// Why not.
        why: LayoutError,
    },
    /// The sizes asked for are not possible.
    Format(FormatError),
    /// All peer slots are taken by living peers.
    NoPeerSlot {
        /// How many there are.
        peers: u16,
    },
    /// There is less memory than the tables need; none of it was taken.
    NoRoom(Room),
    /// A process that is no peer has locked all free peer slots. Only a process that may write the file can do
    /// that.
    SlotLocked {
        /// Which file.
        path: PathBuf,
        /// One of the slots.
        slot: u16,
        /// The process that holds the lock, if that could be seen.
        by: Option<LockHolder>,
    },
    /// The operating system has no memory or no room on the file system.
    NoMemory {
        /// Which call failed.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
    /// The memory of a device cannot be used.
    Device(DeviceError),
    /// The operating system refused.
    Os {
        /// Which call failed.
        call: &'static str,
        /// On which file.
        path: PathBuf,
        /// Its error.
        source: io::Error,
    },
}

impl OpenError {
    /// What it means for the caller.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Url { .. } | Self::NotAFile { .. } | Self::Format(_) => ErrorKind::Invalid,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Exists { .. } => ErrorKind::Exists,
            Self::InUse { .. }
            | Self::Formatting { .. }
            | Self::Held { .. }
            | Self::SlotLocked { .. }
            | Self::Unknowable { .. } => ErrorKind::InUse,
            Self::TimedOut { .. } => ErrorKind::TimedOut,
            Self::NotASpace { .. } | Self::NotAWindow { .. } => ErrorKind::NotASpace,
            Self::NoPeerSlot { .. } | Self::NoMemory { .. } | Self::NoRoom(_) => {
                ErrorKind::NoMemory
            }
            Self::Device(why) => device_kind(why),
            Self::Os { .. } | Self::Denied(_) | Self::Stranger { .. } => ErrorKind::Other,
        }
    }
}

const fn device_kind(why: &DeviceError) -> ErrorKind {
    match why {
        DeviceError::PciNone { .. }
        | DeviceError::PciAbsent { .. }
        | DeviceError::NoDevice { .. } => ErrorKind::NotFound,
        DeviceError::PciOther { .. }
        | DeviceError::PciSeveral { .. }
        | DeviceError::Misaligned { .. }
        | DeviceError::SystemRam { .. } => ErrorKind::Invalid,
        _ => ErrorKind::Other,
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url { url, why } => write!(f, "{url:?} does not name a space: {why}"),
            Self::NotFound { path } => {
                write!(
                    f,
                    "there is no space at {}; `commonhold space format` makes one",
                    shown(path)
                )
            }
            Self::Exists { path, found } => write!(
                f,
                "{} already holds {found}; choose another name, or replace it with --force",
                shown(path)
            ),
            Self::InUse { path, peers } => write!(
                f,
                "{peers} peers are attached to {} and not known to be dead; stop them first \
                 (`commonhold peers` lists them), or, if one is gone for good, `commonhold reap \
                 --assume-dead SLOT`",
                shown(path)
            ),
            Self::Formatting { path } => write!(
                f,
                "somebody is formatting {}, or died while doing so; if nobody is, begin anew with \
                 --force",
                shown(path)
            ),
            Self::Held { .. }
            | Self::SlotLocked { .. }
            | Self::NotAWindow { .. }
            | Self::Denied(_)
            | Self::Stranger { .. }
            | Self::Unknowable { .. }
            | Self::TimedOut { .. } => self.fmt_about_use(f),
            Self::NotAFile { url } => write!(
                f,
                "{url} names memory and no file: it can be formatted anew, but not removed; only shm: \
                 and file: can"
            ),
            Self::NotASpace { path, why } => write!(f, "{}: {why}", shown(path)),
            Self::Format(why) => why.fmt(f),
            Self::Device(why) => why.fmt(f),
            Self::NoPeerSlot { peers } => write!(
                f,
                "all {peers} peer slots of the space are in use; format it with more (--peers)"
            ),
            Self::NoRoom(room) => {
                write!(f, "the tables of the space: {room}; ask for fewer peers or regions")
            }
            Self::NoMemory { call, source } => {
                write!(f, "no memory for the space: {call}: {source}; make room on its file system")
            }
            Self::Os { call, path, source } => write!(f, "{call} {}: {source}", shown(path)),
        }
    }
}

impl std::error::Error for OpenError {}
