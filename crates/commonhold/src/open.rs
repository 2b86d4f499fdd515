//! Opening, formatting and removing spaces.

use std::{path::PathBuf, time::Duration};

use commonhold_host::{
    CreateError, DeviceError, HostError, LinuxPlatform, MappedWindow, NewWindow, Peek, Url, Victim,
};
use commonhold_layout::{Geometry, MAGIC, OpenError as LayoutError, PeerPhase, PeerRef};
use commonhold_space::{AttachError, DirectoryError, MakeError, MediumError, Space as Core, View};
use commonhold_sync::Verdict;

use crate::{FormatOptions, OpenError, Removal, Space, attachment::Attachment};

/// What a window gets if nobody says otherwise.
const DEFAULT_CAPACITY: u64 = 64 << 30;
const DEFAULT_MODE: u32 = 0o600;

/// What stands where a space is to be made.
enum Ground {
    Nothing,
    /// A file without bytes.
    Empty,
    /// A file of this many bytes that are all zero, as far as was looked.
    Blank(u64),
    Space,
    Other,
}

pub(crate) fn parse(url: &str) -> Result<Url, OpenError> {
    url.parse::<Url>().map_err(|error| OpenError::Url { url: url.to_owned(), why: error.why() })
}

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
        HostError::Call { call, source, .. } if full => OpenError::NoMemory { call, source },
        HostError::Call { call, path, source } => OpenError::Os { call, path, source },
        error => unexpected("open", PathBuf::new(), &error),
    }
}

/// An error that has no name of its own here: its message says it all.
fn unexpected(call: &'static str, path: PathBuf, error: &dyn std::error::Error) -> OpenError {
    OpenError::Os { call, path, source: std::io::Error::other(error.to_string()) }
}

pub(crate) fn medium(error: MediumError, path: PathBuf) -> OpenError {
    match error {
        MediumError::Full { errno } => OpenError::NoMemory {
            call: "fallocate",
            source: std::io::Error::from_raw_os_error(errno),
        },
        MediumError::Failed { call, errno } => {
            OpenError::Os { call, path, source: std::io::Error::from_raw_os_error(errno) }
        }
        error => unexpected("fallocate", path, &error),
    }
}

fn attach_error(error: AttachError, path: PathBuf) -> OpenError {
    match error {
        AttachError::Open(why) => OpenError::NotASpace { path, why },
        AttachError::NoSlot { peers } => OpenError::NoPeerSlot { peers },
        AttachError::Medium(error) | AttachError::Directory(DirectoryError::Medium(error)) => {
            medium(error, path)
        }
        AttachError::Directory(DirectoryError::Damaged(damage)) => {
            OpenError::NotASpace { path, why: LayoutError::Damaged(damage) }
        }
        error => {
            OpenError::Os { call: "attach", path, source: std::io::Error::other(error.to_string()) }
        }
    }
}

/// The view of a space, without attaching to it.
fn view(url: &Url) -> Result<View<LinuxPlatform>, OpenError> {
    let path = || window_path(url);
    let not_a_space = |why| OpenError::NotASpace { path: path(), why };
    let check = |peek: Peek| Geometry::check(&peek.words, peek.size).map_err(not_a_space);
    let mapped = if url.is_device() {
        let mapped = commonhold_host::open(url).map_err(host)?;
        let peek = mapped.peek().map_err(host)?;
        if peek.is_all_ones() {
            return Err(OpenError::Device(DeviceError::AllOnes));
        }
        check(peek)?;
        mapped
    } else {
        // Looked at by reading first: touching the pages of a file that is cut short, or of holes on
        // a full file system, would end the process.
        check(commonhold_host::peek(url).map_err(host)?)?;
        commonhold_host::open(url).map_err(host)?
    };
    let platform = LinuxPlatform::new(mapped).map_err(host)?;
    View::open(platform).map_err(not_a_space)
}

pub(crate) fn window_path(url: &Url) -> PathBuf {
    commonhold_host::path_of(url).unwrap_or_else(|| PathBuf::from(url.to_string()))
}

pub(crate) fn open(url: &str) -> Result<Space, OpenError> {
    let parsed = parse(url)?;
    let view = view(&parsed)?;
    let identity = view.platform().identity();
    let core =
        Core::attach(view, &identity).map_err(|error| attach_error(error, window_path(&parsed)))?;
    Ok(Space::of(Attachment::new(parsed.to_string(), core)))
}

pub(crate) fn open_or_format(url: &str) -> Result<Space, OpenError> {
    match open(url) {
        Err(OpenError::NotFound { .. }) if matches!(parse(url)?, Url::Shm { .. }) => {
            match format(url, &FormatOptions::default()) {
                // Somebody else was faster; theirs is as good.
                Ok(()) | Err(OpenError::Exists { .. }) => open(url),
                Err(error) => Err(error),
            }
        }
        result => result,
    }
}

pub(crate) fn format(url: &str, options: &FormatOptions) -> Result<(), OpenError> {
    let parsed = parse(url)?;
    if parsed.is_device() {
        return crate::device::format(&parsed, options);
    }
    let path = window_path(&parsed);
    let (ground, victim) = match look(&parsed)? {
        Ground::Space if !options.force => {
            return Err(OpenError::Exists { path, found: "a space" });
        }
        Ground::Other if !options.force => {
            return Err(OpenError::Exists { path, found: "data that is no space" });
        }
        Ground::Space => {
            refuse_live(&parsed)?;
            (None, Some(Victim::Any))
        }
        Ground::Other => (None, Some(Victim::Any)),
        Ground::Empty => (None, Some(Victim::Empty)),
        Ground::Blank(size) => (Some(size), Some(Victim::Any)),
        Ground::Nothing => (None, None),
    };
    let new = NewWindow {
        capacity: options.capacity.or(ground).unwrap_or(DEFAULT_CAPACITY),
        mode: options.mode.unwrap_or(DEFAULT_MODE),
    };
    let uuid = commonhold_host::random_u128().map_err(host)?;
    let make = |mapped: &MappedWindow| make(mapped, options, uuid);
    let made = match victim {
        None => commonhold_host::create(&parsed, new, make).map(drop),
        Some(victim) => commonhold_host::replace(&parsed, victim, new, make).map(drop),
    };
    made.map_err(|error| match error {
        CreateError::Host(error) => host(error),
        CreateError::Format(error) => unmade(error, path),
        error => unexpected("format", path, &error),
    })
}

pub(crate) fn unmade(error: MakeError, path: PathBuf) -> OpenError {
    match error {
        MakeError::Format(why) => OpenError::Format(why),
        MakeError::Medium(error) => medium(error, path),
        MakeError::Contested => OpenError::Formatting { path },
        error => unexpected("format", path, &error),
    }
}

fn look(url: &Url) -> Result<Ground, OpenError> {
    let peek = match commonhold_host::peek(url) {
        Ok(peek) => peek,
        Err(HostError::NotFound { .. }) => return Ok(Ground::Nothing),
        Err(error) => return Err(host(error)),
    };
    Ok(if peek.size == 0 {
        Ground::Empty
    } else if peek.words[0] == MAGIC {
        Ground::Space
    } else if commonhold_host::is_blank(url).map_err(host)? {
        Ground::Blank(peek.size)
    } else {
        Ground::Other
    })
}

fn make(mapped: &MappedWindow, options: &FormatOptions, uuid: u128) -> Result<Geometry, MakeError> {
    let plan = plan(mapped, options, mapped.window().len(), uuid);
    commonhold_space::format(mapped.window(), mapped, &plan)
}

pub(crate) fn plan(
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

/// Refuses if anybody lives in the space; one that cannot be read has nobody to be considered.
pub(crate) fn refuse_live(url: &Url) -> Result<(), OpenError> {
    let view = match view(url) {
        Ok(view) => view,
        Err(OpenError::NotASpace { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    let peers = view
        .peer_ids()
        .filter(|peer| {
            let state = view.peer_state(*peer);
            matches!(state.phase, PeerPhase::Live | PeerPhase::Attaching)
                && view.verdict_of(PeerRef::new(*peer, state.generation)) != Verdict::Dead
        })
        .count();
    if peers > 0 {
        return Err(OpenError::InUse { path: window_path(url), peers });
    }
    Ok(())
}

pub(crate) fn remove(url: &str, removal: Removal) -> Result<(), OpenError> {
    let parsed = parse(url)?;
    if parsed.is_device() {
        return Err(OpenError::NotAFile { url: url.to_owned() });
    }
    if removal == Removal::IfUnused {
        match look(&parsed)? {
            Ground::Nothing => return Err(OpenError::NotFound { path: window_path(&parsed) }),
            Ground::Space => refuse_live(&parsed)?,
            _ => {
                let peek = commonhold_host::peek(&parsed).map_err(host)?;
                return Err(OpenError::NotASpace {
                    path: window_path(&parsed),
                    why: LayoutError::NotASpace { found: peek.words[0] },
                });
            }
        }
    }
    commonhold_host::remove(&parsed).map_err(host)
}
