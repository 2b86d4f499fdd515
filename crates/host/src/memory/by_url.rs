//! From a URL to a window: one arm for each scheme.
//!
//! # What it does not do
//! It knows of a scheme only which file of this crate serves it.

use std::{os::unix::fs::FileExt, path::PathBuf, time::Duration};

use rustix::fs::OFlags;

use super::{
    device::DeviceRange,
    file_location::FileLocation,
    gate::{ExclusiveGate, SharedGate},
    mapped_window::MappedWindow,
    new_window::NewWindow,
    pci,
    peek::Peek,
    physical,
    rights::Owners,
    shm,
    url::Url,
};
use crate::error::{CreateError, HostError};

/// The file that a URL names.
fn file(url: &Url, owners: Owners) -> Result<FileLocation, HostError> {
    match url {
        Url::Shm { name } => Ok(shm::place(name).of_owners(owners)),
        Url::File { path } => Ok(FileLocation::of_path(path).of_owners(owners)),
        Url::Mem { .. } | Url::Pci { .. } => Err(HostError::NotAFile { scheme: url.scheme() }),
        Url::Unix { .. } => Err(HostError::NotSupported { scheme: url.scheme() }),
    }
}

/// The device that a URL names, if it names one.
fn device(url: &Url) -> Result<Option<DeviceRange>, HostError> {
    match url {
        Url::Mem { base, size } => physical::place(*base, *size).map(Some),
        Url::Pci { address } => pci::place(*address).map(Some),
        _ => Ok(None),
    }
}

/// Maps the window at a URL.
///
/// This reads nothing of a file: [`MappedWindow::peek`] tells whether it holds a space.
///
/// # Errors
/// [`HostError::NotFound`], [`HostError::Empty`], [`HostError::Device`], and the others.
pub fn open(url: &Url, owners: Owners) -> Result<MappedWindow, HostError> {
    match device(url)? {
        Some(device) => MappedWindow::of_device(device.open()?, &device),
        None => file(url, owners)?.open(),
    }
}

/// Reads the first words of a file without mapping it. (A device can be read only through a mapping: [`open`] it, and
/// look there.)
///
/// # Errors
/// [`HostError::NotFound`], [`HostError::NotAFile`] and the others; an empty file is no error.
pub fn peek(url: &Url, owners: Owners) -> Result<Peek, HostError> {
    file(url, owners)?.peek()
}

/// Creates a window, calls `format` on it, and only then gives it its name. Whenever this process dies, the name is
/// absent or means a finished space. Returns the result of `format`.
///
/// # Errors
/// [`HostError::Exists`] if the name is taken (by a file of any size), and the others; the error of `format`. Then
/// nothing is left of the window.
pub fn create<T, E>(
    url: &Url,
    new: NewWindow,
    format: impl FnOnce(&MappedWindow) -> Result<T, E>,
) -> Result<(MappedWindow, T), CreateError<E>> {
    file(url, Owners::Trusted)?.create(new, format)
}

/// As [`create`], but replaces the present file, by one system call, if `allow` permits it. `allow` is called while
/// the gate is held alone: all peers that came by the name have left their evidence, and no other can come.
///
/// # Errors
/// As for [`create`], and the error of `allow`; [`HostError::NotFound`] if there is no file (any more);
/// [`HostError::NotAWindow`] if it is no regular file; [`HostError::Busy`] if the gate could not be taken
/// within `patience`.
pub fn replace<T, E>(
    url: &Url,
    (owners, patience): (Owners, Duration),
    new: NewWindow,
    format: impl FnOnce(&MappedWindow) -> Result<T, E>,
    allow: impl FnOnce(&ExclusiveGate) -> Result<(), E>,
) -> Result<(MappedWindow, T), CreateError<E>> {
    file(url, owners)?.replace(patience, new, format, allow)
}

/// Takes the gate of the file at a URL shared, to become a peer. The file keeps this name until the gate is dropped.
///
/// # Errors
/// [`HostError::NotFound`], [`HostError::NotAWindow`], [`HostError::NotAFile`],
/// [`HostError::Busy`] if others held the gate alone until the deadline, and the others.
pub fn enter(url: &Url, owners: Owners, patience: Duration) -> Result<SharedGate, HostError> {
    SharedGate::enter(file(url, owners)?, patience)
}

/// Takes the gate of the file at a URL alone, to remove its name. No process becomes a peer by this name until the
/// gate is dropped.
///
/// # Errors
/// As for [`enter`]; [`HostError::Busy`] if others held the gate until the deadline.
pub fn seize(url: &Url, owners: Owners, patience: Duration) -> Result<ExclusiveGate, HostError> {
    ExclusiveGate::seize(file(url, owners)?, patience)
}

/// The file that a URL names, if it names one.
#[must_use]
pub fn path_of(url: &Url) -> Option<PathBuf> {
    file(url, Owners::Trusted).ok().map(|place| place.path)
}

/// Whether the file at a URL holds only zeros, so that replacing it loses nothing. `false` also for a file with more
/// data than is worth reading.
///
/// # Errors
/// [`HostError::NotFound`], and those of reading.
pub fn is_blank(url: &Url, owners: Owners) -> Result<bool, HostError> {
    /// The most bytes of data to read; holes do not count.
    const WORTH_READING: u64 = 64 << 20;
    let place = file(url, owners)?;
    let failed = |call| {
        let path = place.path.clone();
        move |source| HostError::Call { call, path, source }
    };
    let file = std::fs::File::from(place.open_as(OFlags::RDONLY)?);
    let mut chunk = [0_u8; 1 << 16];
    let (mut at, mut read) = (0, 0);
    loop {
        // The next data. ENXIO means that none is left; without SEEK_DATA, the whole file counts as data.
        match rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => at = data,
            Err(rustix::io::Errno::NXIO) => return Ok(true),
            Err(_) => {}
        }
        let count = file.read_at(&mut chunk, at).map_err(failed("pread"))?;
        if count == 0 {
            return Ok(true);
        }
        if chunk.iter().take(count).any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += count as u64;
        read += count as u64;
        if read > WORTH_READING {
            return Ok(false);
        }
    }
}
