//! From a URL to a window: one arm for each scheme.
//!
//! # What it does not do
//! It knows nothing of any scheme but which file of this crate serves it.

use crate::{
    error::{CreateError, HostError},
    file::Place,
    map::MappedWindow,
    peek::Peek,
    shm,
    url::Url,
};

/// What a new window should be.
#[derive(Debug, Clone, Copy)]
pub struct NewWindow {
    /// Bytes; rounded up to whole pages of the memory it will be made of.
    pub capacity: u64,
    /// Permissions, as for `chmod`. The umask plays no part.
    pub mode: u32,
}

/// What a new window may take the place of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// A file without any bytes, as `mktemp` makes them.
    Empty,
    /// Whatever file is there, if any. Those who have it mapped keep the old one.
    Any,
}

fn place(url: &Url) -> Result<Place, HostError> {
    match url {
        Url::Shm { name } => Ok(shm::place(name)),
        Url::File { path } => Ok(Place::of_path(path)),
        Url::Mem { .. } | Url::Pci { .. } | Url::Unix { .. } => {
            Err(HostError::NotSupported { scheme: url.scheme() })
        }
    }
}

/// Maps the window at a URL.
///
/// Nothing of it has been read yet: [`MappedWindow::peek`] looks whether it holds a space.
///
/// # Errors
/// [`HostError::NotFound`], [`HostError::Empty`], and the others.
pub fn open(url: &Url) -> Result<MappedWindow, HostError> {
    place(url)?.open()
}

/// Reads the first words at a URL without mapping anything.
///
/// # Errors
/// [`HostError::NotFound`] and the others; an empty file is no error.
pub fn peek(url: &Url) -> Result<Peek, HostError> {
    place(url)?.peek()
}

/// Makes a new window, has it formatted, and only then gives it its name: the name is either absent
/// or means a finished space, whenever this process dies. Returns what `format` did.
///
/// # Errors
/// [`HostError::Exists`] if the name is taken (by a file of any size), and the others; the error of
/// `format`, and then nothing is left of the window.
pub fn create<T, E>(
    url: &Url,
    new: NewWindow,
    format: impl FnOnce(&MappedWindow) -> Result<T, E>,
) -> Result<(MappedWindow, T), CreateError<E>> {
    place(url)?.create(new, format)
}

/// As [`create`], but takes the place of what is there, at one instant.
///
/// # Errors
/// As [`create`]; [`HostError::Exists`] if the file to replace should be empty and is not (any more);
/// [`HostError::NotAWindow`] if it is no regular file.
pub fn replace<T, E>(
    url: &Url,
    victim: Victim,
    new: NewWindow,
    format: impl FnOnce(&MappedWindow) -> Result<T, E>,
) -> Result<(MappedWindow, T), CreateError<E>> {
    place(url)?.replace(victim, new, format)
}

/// Removes the name. Those who have the window mapped keep it.
///
/// # Errors
/// [`HostError::NotFound`], [`HostError::NotAWindow`], and the others.
pub fn remove(url: &Url) -> Result<(), HostError> {
    place(url)?.remove()
}
