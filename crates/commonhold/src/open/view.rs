//! From a URL to a view of its memory, without attaching to the space in it.

use std::path::PathBuf;

use commonhold_host::{DeviceError, HostError, LinuxPlatform, MappedWindow, Owners, Peek, Url};
use commonhold_layout::Geometry;
use commonhold_space::{AttachError, View};

use crate::{MemoryInfo, OpenError, error::causes};

pub(crate) fn parse(url: &str) -> Result<Url, OpenError> {
    url.parse::<Url>().map_err(|error| OpenError::Url { url: url.to_owned(), why: error.why() })
}

/// The view of a space on a device, without attaching to it.
pub(crate) fn device_view(url: &Url) -> Result<View<LinuxPlatform>, OpenError> {
    let mapped = commonhold_host::open(url, Owners::Any).map_err(causes::host)?;
    let peek = mapped.peek().map_err(causes::host)?;
    if peek.is_all_ones() {
        return Err(OpenError::Device(DeviceError::AllOnes));
    }
    view(peek, || Ok(mapped), window_path(url), View::open)
}

/// The view of a space whose first words have been read. A file is read before it is mapped: touching a page beyond
/// its end, or a hole on a full file system, would end the process. `open` is [`View::open`], or [`View::look`]
/// where no memory is to be taken.
pub(crate) fn view(
    peek: Peek,
    map: impl FnOnce() -> Result<MappedWindow, HostError>,
    path: PathBuf,
    open: impl FnOnce(LinuxPlatform) -> Result<View<LinuxPlatform>, AttachError>,
) -> Result<View<LinuxPlatform>, OpenError> {
    let not_a_space = |why| OpenError::NotASpace { path: path.clone(), why };
    Geometry::check(&peek.words, peek.size).map_err(not_a_space)?;
    let platform = map().and_then(LinuxPlatform::new).map_err(causes::host)?;
    open(platform).map_err(|error| causes::attach(error, path))
}

pub(crate) fn window_path(url: &Url) -> PathBuf {
    commonhold_host::path_of(url).unwrap_or_else(|| PathBuf::from(url.to_string()))
}

/// Describes the memory that a URL names, without attaching to a space in it. If a device holds no space, nothing
/// is written to it, so its speed is not measured.
///
/// # Errors
/// [`OpenError`], in particular [`OpenError::Device`] if locks cannot work there.
pub fn memory_of(url: &str) -> Result<MemoryInfo, OpenError> {
    let mapped = commonhold_host::open(&parse(url)?, Owners::Any).map_err(causes::host)?;
    Ok(MemoryInfo::new(&mapped))
}
