//! Formatting a file. It gets its name when it is complete, and replaces another file only if no process uses that
//! one.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use commonhold_host::{
    CreateError, ExclusiveGate, HostError, MappedWindow, NewWindow, Owners, Peek, Url,
};
use commonhold_layout::{FormatError, Geometry, MAGIC};
use commonhold_space::{Demand, MakeError};

use super::{
    PATIENCE,
    unused::{refuse_locked, refuse_used},
    view::window_path,
};
use crate::{FormatOptions, OpenError, error::causes};

/// Defaults of [`FormatOptions`].
const DEFAULT_CAPACITY: u64 = 64 << 30;
const DEFAULT_MODE: u32 = 0o600;

/// What a formatter finds at the path of the new space.
enum Existing {
    Nothing,
    /// A file of 0 bytes.
    Empty,
    /// A file of this many bytes, all zero as far as it was read.
    Blank(u64),
    Space,
    Other,
}

pub(super) fn format(url: &Url, options: &FormatOptions) -> Result<(), OpenError> {
    if options.capacity == Some(0) {
        let (least, most) = (1, 1 << 48);
        return Err(OpenError::Format(FormatError::OutOfRange {
            option: "capacity",
            asked: 0,
            least,
            most,
        }));
    }
    let began = Instant::now();
    loop {
        let found = look(url, options.owners)?;
        let made = format_over(url, &found, options);
        // Whether the file that was found is gone, or one has appeared where none was.
        let changed = match (&made, found) {
            (Err(OpenError::NotFound { .. }), Existing::Nothing) => false,
            (Err(OpenError::NotFound { .. }), _) => true,
            (Err(OpenError::Exists { .. }), Existing::Nothing) => options.force,
            _ => false,
        };
        if !changed || began.elapsed() > PATIENCE {
            return made;
        }
    }
}

fn format_over(url: &Url, found: &Existing, options: &FormatOptions) -> Result<(), OpenError> {
    let path = || window_path(url);
    found.allow(options, path)?;
    let size = if let Existing::Blank(size) = found { Some(*size) } else { None };
    let new = NewWindow {
        capacity: options.capacity.or(size).unwrap_or(DEFAULT_CAPACITY),
        mode: options.mode.unwrap_or(DEFAULT_MODE),
    };
    let uuid = commonhold_host::random_u128().map_err(causes::host)?;
    let make = |mapped: &MappedWindow| {
        make(mapped, options, uuid).map_err(|error| causes::make(error, path()))
    };
    let made = match found {
        Existing::Nothing => commonhold_host::create(url, new, make).map(drop),
        _ => {
            let allow = |gate: &ExclusiveGate| may_replace(url, gate, options);
            commonhold_host::replace(url, (options.owners, PATIENCE), new, make, allow).map(drop)
        }
    };
    made.map_err(|error| match error {
        CreateError::Host(error) => causes::host(error),
        CreateError::Format(error) => error,
        error => causes::unexpected("format", path(), &error),
    })
}

/// Refuses the file whose gate is held, unless it may be formatted over as it is now.
fn may_replace(url: &Url, gate: &ExclusiveGate, options: &FormatOptions) -> Result<(), OpenError> {
    let peek = gate.peek().map_err(causes::host)?;
    let ground = ground_of(url, options.owners, &peek)?;
    ground.allow(options, || gate.path().to_owned())?;
    match ground {
        // An empty or blank file names no owners; but a peer may still use a file that was cut or wiped while it
        // was attached.
        Existing::Nothing | Existing::Empty | Existing::Blank(_) => refuse_locked(gate),
        Existing::Space | Existing::Other => refuse_used(gate),
    }
}

fn look(url: &Url, owners: Owners) -> Result<Existing, OpenError> {
    match commonhold_host::peek(url, owners) {
        Ok(peek) => ground_of(url, owners, &peek),
        Err(HostError::NotFound { .. }) => Ok(Existing::Nothing),
        Err(error) => Err(causes::host(error)),
    }
}

fn ground_of(url: &Url, owners: Owners, peek: &Peek) -> Result<Existing, OpenError> {
    Ok(if peek.size == 0 {
        Existing::Empty
    } else if peek.words[0] == MAGIC {
        Existing::Space
    } else if commonhold_host::is_blank(url, owners).map_err(causes::host)? {
        Existing::Blank(peek.size)
    } else {
        Existing::Other
    })
}

impl Existing {
    /// Refuses a space, or other data, unless `force` is set.
    fn allow(
        &self,
        options: &FormatOptions,
        path: impl FnOnce() -> PathBuf,
    ) -> Result<(), OpenError> {
        let found = match self {
            Self::Space => "a space",
            Self::Other => "data that is no space",
            Self::Nothing | Self::Empty | Self::Blank(_) => return Ok(()),
        };
        if options.force { Ok(()) } else { Err(OpenError::Exists { path: path(), found }) }
    }
}

fn make(mapped: &MappedWindow, options: &FormatOptions, uuid: u128) -> Result<Geometry, MakeError> {
    let plan = plan(mapped, options, mapped.window().len(), uuid);
    let demand = if options.force { Demand::Forced } else { Demand::Fitting };
    commonhold_space::format(mapped.window(), mapped, &plan, demand)
}

pub(super) fn plan(
    mapped: &MappedWindow,
    options: &FormatOptions,
    capacity: u64,
    uuid: u128,
) -> commonhold_layout::FormatOptions {
    let lease = options
        .lease
        .map_or(0, |lease: Duration| u64::try_from(lease.as_millis()).unwrap_or(u64::MAX).max(1));
    commonhold_layout::FormatOptions {
        capacity,
        page: mapped.page_size(),
        peers: options.peers,
        threads: options.threads,
        regions: options.regions,
        lease_ms: lease,
        uuid,
        created_ms: commonhold_host::unix_ms(),
    }
}
