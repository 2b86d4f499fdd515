//! Errors of the crates below, converted into errors of this crate.

use std::path::PathBuf;

use commonhold_host::HostError;
use commonhold_layout::{Damage, Name, OpenError as LayoutError};
use commonhold_space::{AttachError, BackingMemoryError, DirectoryError, MakeError};

use super::{OpenError, RegionError};

pub(crate) fn host(error: HostError) -> OpenError {
    let full = error.is_full();
    match error {
        HostError::NotFound { path } => OpenError::NotFound { path },
        HostError::Exists { path } => OpenError::Exists { path, found: "something" },
        HostError::Empty { path } => {
            OpenError::NotASpace { path, why: LayoutError::NotASpace { found: 0 } }
        }
        HostError::NotSupported { scheme } => OpenError::Url {
            url: scheme.to_owned(),
            why: "this version does not know this scheme yet",
        },
        HostError::NotAFile { scheme } => OpenError::NotAFile { url: scheme.to_owned() },
        HostError::Device(why) => OpenError::Device(why),
        HostError::NotAWindow { path, found } => OpenError::NotAWindow { path, found },
        HostError::Denied(denied) => OpenError::Denied(denied),
        HostError::Stranger { path, rights } => OpenError::Stranger { path, rights },
        HostError::Busy { path, holder } => OpenError::TimedOut { path, by: holder },
        HostError::Call { call, source, .. } if full => OpenError::NoMemory { call, source },
        HostError::Call { call, path, source } => OpenError::Os { call, path, source },
        error => unexpected("open", PathBuf::new(), &error),
    }
}

/// An error that has no variant here: only its message is kept.
pub(crate) fn unexpected(
    call: &'static str,
    path: PathBuf,
    error: &dyn std::error::Error,
) -> OpenError {
    OpenError::Os { call, path, source: std::io::Error::other(error.to_string()) }
}

fn backing_memory(error: BackingMemoryError, path: PathBuf) -> OpenError {
    match error {
        BackingMemoryError::NoRoom(room) => OpenError::NoRoom(room),
        BackingMemoryError::Full { errno } => OpenError::NoMemory {
            call: "fallocate",
            source: std::io::Error::from_raw_os_error(errno),
        },
        BackingMemoryError::Blocked { .. } => OpenError::TimedOut { path, by: None },
        BackingMemoryError::Failed { call, errno } => {
            OpenError::Os { call, path, source: std::io::Error::from_raw_os_error(errno) }
        }
        error => unexpected("fallocate", path, &error),
    }
}

pub(crate) fn attach(error: AttachError, path: PathBuf) -> OpenError {
    match error {
        AttachError::Open(why) => OpenError::NotASpace { path, why },
        AttachError::NoSlot { peers, .. } => OpenError::NoPeerSlot { peers },
        AttachError::BackingMemory(error)
        | AttachError::Directory(DirectoryError::BackingMemory(error)) => {
            backing_memory(error, path)
        }
        AttachError::Directory(DirectoryError::Damaged(damage)) => {
            OpenError::NotASpace { path, why: LayoutError::Damaged(damage) }
        }
        error => {
            OpenError::Os { call: "attach", path, source: std::io::Error::other(error.to_string()) }
        }
    }
}

pub(crate) fn make(error: MakeError, path: PathBuf) -> OpenError {
    match error {
        MakeError::Format(why) => OpenError::Format(why),
        MakeError::BackingMemory(error) => backing_memory(error, path),
        MakeError::Contested => OpenError::Formatting { path },
        error => unexpected("format", path, &error),
    }
}

/// The checked name of a region, or why `name` cannot be one.
pub(crate) fn checked(name: &str) -> Result<Name, RegionError> {
    Name::new(name).map_err(|why| RegionError::Name { name: name.to_owned(), why })
}

/// The error of an operation on the region `name`.
pub(crate) fn region_error(error: DirectoryError, name: &str) -> RegionError {
    let owned = || name.to_owned();
    match error {
        DirectoryError::Exists => RegionError::Exists { name: owned() },
        DirectoryError::NotFound => RegionError::NotFound { name: owned() },
        DirectoryError::Mapped => RegionError::Mapped { name: owned(), handles: 0 },
        DirectoryError::TimedOut => RegionError::TimedOut { name: owned() },
        DirectoryError::NoSpace { asked, largest } => RegionError::NoSpace { asked, largest },
        DirectoryError::NoEntry { regions } => RegionError::NoEntry { regions },
        DirectoryError::BeyondReserve { asked, reserve } => {
            RegionError::BeyondReserve { asked, reserve }
        }
        DirectoryError::TooManyMappings => RegionError::TooManyMappings,
        DirectoryError::TooManyThreads { threads } => RegionError::TooManyThreads { threads },
        DirectoryError::BackingMemory(BackingMemoryError::Full { errno }) => {
            RegionError::NoMemory { source: std::io::Error::from_raw_os_error(errno) }
        }
        DirectoryError::BackingMemory(BackingMemoryError::NoRoom(room)) => {
            RegionError::NoRoom(room)
        }
        DirectoryError::BackingMemory(BackingMemoryError::Failed { call, errno }) => {
            RegionError::Os { call, source: std::io::Error::from_raw_os_error(errno) }
        }
        DirectoryError::BackingMemory(BackingMemoryError::Blocked { .. }) => {
            RegionError::Blocked { by: None }
        }
        DirectoryError::Unsettled => RegionError::Unsettled { name: owned(), by: None },
        DirectoryError::HeldBySuspect { slot } => RegionError::Suspect { slot },
        DirectoryError::Damaged(damage) => RegionError::Damaged(damage),
        DirectoryError::Fenced => RegionError::Fenced,
        DirectoryError::Reentered => RegionError::Reentered,
        // This peer maps what it unmaps, so a neighbour has overwritten the count.
        DirectoryError::NotMapped => {
            RegionError::Damaged(Damage::new("the mappings that a peer has counted", 0))
        }
        // `Attachment::error` names the holder; here there is no attachment.
        DirectoryError::Busy { .. } => RegionError::Unsettled { name: owned(), by: None },
        DirectoryError::BackingMemory(error) => {
            RegionError::Os { call: "fallocate", source: std::io::Error::other(error.to_string()) }
        }
    }
}
