//! Formatting memory of a device, in place.
//!
//! A file is formatted before any process can find it. Memory of a device is visible to others all the time, in
//! this kernel and in others, so the formatter claims its first word first: see `commonhold_space::Claim`.

use std::sync::atomic::Ordering;

use commonhold_host::{MappedWindow, Owners, Url};
use commonhold_layout::{FormatError, HEADER_BYTES, HEADER_WORDS, MAGIC, Marker, Offset};
use commonhold_space::Claim;

use super::{file::plan, unused::refuse_used_device, view::window_path};
use crate::{FormatOptions, OpenError, error::causes};

/// How many bytes of a window to use.
fn capacity(mapped: &MappedWindow, options: &FormatOptions) -> Result<u64, OpenError> {
    let most = mapped.window().len();
    let asked = options.capacity.unwrap_or(most);
    if asked > most {
        let (option, least) = ("the capacity", HEADER_BYTES);
        return Err(OpenError::Format(FormatError::OutOfRange { option, asked, least, most }));
    }
    Ok(asked)
}

/// Whether the first page is all zeros.
fn is_blank(mapped: &MappedWindow) -> bool {
    mapped
        .window()
        .words::<HEADER_WORDS>(Offset::ZERO)
        .is_ok_and(|page| page.iter().all(|word| word.load(Ordering::Relaxed) == 0))
}

/// Refuses a window whose first word is `seen`, unless it may be formatted over.
fn may_replace(
    url: &Url,
    mapped: &MappedWindow,
    seen: u64,
    options: &FormatOptions,
) -> Result<(), OpenError> {
    let path = || window_path(url);
    match (options.force, seen) {
        (true, MAGIC) => refuse_used_device(url),
        (true, _) => Ok(()),
        (false, MAGIC) => Err(OpenError::Exists { path: path(), found: "a space" }),
        (false, seen) if Marker::read(seen).is_some() => {
            Err(OpenError::Formatting { path: path() })
        }
        (false, _) if is_blank(mapped) => Ok(()),
        (false, _) => Err(OpenError::Exists { path: path(), found: "data that is no space" }),
    }
}

pub(super) fn format(url: &Url, options: &FormatOptions) -> Result<(), OpenError> {
    let mapped = commonhold_host::open(url, Owners::Any).map_err(causes::host)?;
    let seen = mapped.peek().map_err(causes::host)?.words[0];
    may_replace(url, &mapped, seen, options)?;
    let uuid = commonhold_host::random_u128().map_err(causes::host)?;
    let plan = plan(&mapped, options, capacity(&mapped, options)?, uuid);
    let failed = |error| causes::make(error, window_path(url));
    // Impossible sizes are refused before anything is overwritten.
    commonhold_layout::Geometry::plan(&plan).map_err(OpenError::Format)?;
    let nonce = commonhold_host::random_u128().map_err(causes::host)?;
    let claim = Claim::take(mapped.window(), seen, low_half(nonce)).map_err(failed)?;
    if let Err(error) = mapped.prove() {
        // Only the probe word has been overwritten.
        claim.give_back(seen);
        return Err(causes::host(error));
    }
    claim.format(&plan).map(drop).map_err(failed)
}

fn low_half(number: u128) -> u32 {
    // The mask makes it fit.
    u32::try_from(number & u128::from(u32::MAX)).unwrap_or(0)
}
