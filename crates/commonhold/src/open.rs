//! Opening, formatting and removing spaces.

mod device;
mod file;
mod unused;
mod view;

pub use view::memory_of;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use commonhold_host::{LinuxPlatform, Owners, Url};
use commonhold_layout::{MAGIC, OpenError as LayoutError};
use commonhold_space::{AttachError, Attached, View};

use crate::{
    FormatOptions, OpenError, OpenOptions, Removal, attachment::Attachment, error::causes,
};
use unused::{refuse_locked, refuse_used};
use view::{device_view, parse, view, window_path};

/// How long a process that opens a space waits for one that removes or replaces it, and the other way round. Each
/// needs less than a millisecond, unless it is stopped. A fuzzer waits less.
pub(crate) const PATIENCE: Duration = Duration::from_millis(if cfg!(fuzzing) { 50 } else { 2000 });

pub(crate) fn open(url: &str, options: &OpenOptions) -> Result<Arc<Attachment>, OpenError> {
    let parsed = parse(url)?;
    let path = || window_path(&parsed);
    let attach = |view: View<LinuxPlatform>| {
        let identity = view.platform().identity();
        Attached::attach(view, &identity)
    };
    let core = if parsed.is_device() {
        attach(device_view(&parsed)?).map_err(|error| causes::attach(error, path()))?
    } else {
        let patience = options.patience.unwrap_or(PATIENCE);
        let gate =
            commonhold_host::enter(&parsed, options.owners, patience).map_err(causes::host)?;
        let peek = gate.peek().map_err(causes::host)?;
        // The gate is held until the peer is live: from then on a process that removes the space sees the peer.
        let core =
            attach(view(peek, || gate.map(), path(), View::open)?).map_err(
                |error| match error {
                    AttachError::NoSlot { locked: Some(slot), .. } => {
                        let slot = slot.get();
                        OpenError::SlotLocked { path: path(), slot, by: gate.holder_of_slot(slot) }
                    }
                    error => causes::attach(error, path()),
                },
            )?;
        drop(gate);
        core
    };
    Ok(Attachment::new(parsed.to_string(), core))
}

pub(crate) fn open_or_format(
    url: &str,
    options: &OpenOptions,
) -> Result<Arc<Attachment>, OpenError> {
    let began = Instant::now();
    let patience = options.patience.unwrap_or(PATIENCE);
    let new = FormatOptions { owners: options.owners, ..FormatOptions::default() };
    let is_shm = matches!(parse(url)?, Url::Shm { .. });
    loop {
        let left = patience.saturating_sub(began.elapsed());
        let within = OpenOptions { patience: Some(left), ..*options };
        match open(url, &within) {
            Err(OpenError::NotFound { .. }) if is_shm => {}
            result => return result,
        }
        match format(url, &new) {
            // `Exists`: another process was faster, and its space is as good.
            Ok(()) | Err(OpenError::Exists { .. }) => {}
            Err(error) => return Err(error),
        }
        // The space that was made just now may have been removed again.
        if left.is_zero() {
            return open(url, &within);
        }
    }
}

/// Formats a file before anybody can find it, or memory of a device in place.
pub(crate) fn format(url: &str, options: &FormatOptions) -> Result<(), OpenError> {
    let url = parse(url)?;
    if url.is_device() { device::format(&url, options) } else { file::format(&url, options) }
}

pub(crate) fn remove(url: &str, removal: Removal, owners: Owners) -> Result<(), OpenError> {
    let parsed = parse(url)?;
    if parsed.is_device() {
        return Err(OpenError::NotAFile { url: url.to_owned() });
    }
    let gate = commonhold_host::seize(&parsed, owners, PATIENCE).map_err(causes::host)?;
    if removal == Removal::IfUnused {
        let found = gate.peek().map_err(causes::host)?.words[0];
        if found == MAGIC {
            refuse_used(&gate)?;
        } else {
            refuse_locked(&gate)?;
            let path = gate.path().to_owned();
            return Err(OpenError::NotASpace { path, why: LayoutError::NotASpace { found } });
        }
    }
    gate.unlink().map_err(causes::host)
}
