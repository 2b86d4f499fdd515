//! Formatting memory of devices, in place.

use commonhold_host::{MappedWindow, Url};
use commonhold_layout::{FormatError, HEADER_BYTES, HEADER_WORDS, MAGIC, Offset};
use std::sync::atomic::Ordering;

use crate::{
    FormatOptions, OpenError,
    open::{host, plan, refuse_live, unmade, window_path},
};

/// Bytes to be used of a window.
fn capacity(mapped: &MappedWindow, options: &FormatOptions) -> Result<u64, OpenError> {
    let most = mapped.window().len();
    let asked = options.capacity.unwrap_or(most);
    if asked > most {
        let (option, least) = ("the capacity", HEADER_BYTES);
        return Err(OpenError::Format(FormatError::OutOfRange { option, asked, least, most }));
    }
    Ok(asked)
}

/// Whether the first page holds nothing.
fn is_blank(mapped: &MappedWindow) -> bool {
    mapped
        .window()
        .words::<HEADER_WORDS>(Offset::ZERO)
        .is_ok_and(|page| page.iter().all(|word| word.load(Ordering::Relaxed) == 0))
}

pub(crate) fn format(url: &Url, options: &FormatOptions) -> Result<(), OpenError> {
    let path = window_path(url);
    let mapped = commonhold_host::open(url).map_err(host)?;
    let capacity = capacity(&mapped, options)?;
    let seen = mapped.peek().map_err(host)?.words[0];
    if seen == MAGIC {
        if !options.force {
            return Err(OpenError::Exists { path, found: "a space" });
        }
        refuse_live(url)?;
    } else if !options.force && !is_blank(&mapped) {
        return Err(OpenError::Exists { path, found: "data that is no space" });
    }
    let uuid = commonhold_host::random_u128().map_err(host)?;
    let plan = plan(&mapped, options, capacity, uuid);
    commonhold_space::format(mapped.window(), &mapped, &plan)
        .map(drop)
        .map_err(|error| unmade(error, path))
}
