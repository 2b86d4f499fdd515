//! Opening, formatting and removing spaces.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use commonhold_host::{
    CreateError, DeviceError, ExclusiveGate, HostError, LinuxPlatform, MappedWindow, NewWindow,
    Owners, Peek, Url,
};
use commonhold_layout::{FormatError, Geometry, MAGIC, OpenError as LayoutError};
use commonhold_space::{
    AttachError, Attached, BackingMemoryError, Demand, DirectoryError, MakeError, View,
};

use crate::{
    FormatOptions, OpenError, OpenOptions, Removal, Space,
    attachment::Attachment,
    unused::{refuse_locked, refuse_used},
};

/// How long those who open a space wait for one who removes or replaces it, and the other way round. Each of
/// them needs less than a millisecond, unless it is stopped. A fuzzer has better things to do.
pub(crate) const PATIENCE: Duration = Duration::from_millis(if cfg!(fuzzing) { 50 } else { 2000 });

/// What a window gets if nobody says otherwise.
const DEFAULT_CAPACITY: u64 = 64 << 30;
const DEFAULT_MODE: u32 = 0o600;

/// What stands where a space is to be made.
enum Existing {
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
        HostError::NotAWindow { path, found } => OpenError::NotAWindow { path, found },
        HostError::Denied(denied) => OpenError::Denied(denied),
        HostError::Stranger { path, rights } => OpenError::Stranger { path, rights },
        HostError::Busy { path, holder } => OpenError::TimedOut { path, by: holder },
        HostError::Call { call, source, .. } if full => OpenError::NoMemory { call, source },
        HostError::Call { call, path, source } => OpenError::Os { call, path, source },
        error => unexpected("open", PathBuf::new(), &error),
    }
}

/// An error that has no name of its own here: its message says it all.
fn unexpected(call: &'static str, path: PathBuf, error: &dyn std::error::Error) -> OpenError {
    OpenError::Os { call, path, source: std::io::Error::other(error.to_string()) }
}

pub(crate) fn medium(error: BackingMemoryError, path: PathBuf) -> OpenError {
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

fn attach_error(error: AttachError, path: PathBuf) -> OpenError {
    match error {
        AttachError::Open(why) => OpenError::NotASpace { path, why },
        AttachError::NoSlot { peers, .. } => OpenError::NoPeerSlot { peers },
        AttachError::BackingMemory(error)
        | AttachError::Directory(DirectoryError::BackingMemory(error)) => medium(error, path),
        AttachError::Directory(DirectoryError::Damaged(damage)) => {
            OpenError::NotASpace { path, why: LayoutError::Damaged(damage) }
        }
        error => {
            OpenError::Os { call: "attach", path, source: std::io::Error::other(error.to_string()) }
        }
    }
}

/// The view of a space on a device, without attaching to it.
pub(crate) fn device_view(url: &Url) -> Result<View<LinuxPlatform>, OpenError> {
    let mapped = commonhold_host::open(url, Owners::Any).map_err(host)?;
    let peek = mapped.peek().map_err(host)?;
    if peek.is_all_ones() {
        return Err(OpenError::Device(DeviceError::AllOnes));
    }
    view(peek, || Ok(mapped), window_path(url), View::open)
}

/// The view of a space that has been peeked at. A file is looked at by reading first: touching the pages of
/// one that is cut short, or of holes on a full file system, would end the process. `open` is [`View::open`], or
/// [`View::look`] where no memory is to be taken.
pub(crate) fn view(
    peek: Peek,
    map: impl FnOnce() -> Result<MappedWindow, HostError>,
    path: PathBuf,
    open: impl FnOnce(LinuxPlatform) -> Result<View<LinuxPlatform>, AttachError>,
) -> Result<View<LinuxPlatform>, OpenError> {
    let not_a_space = |why| OpenError::NotASpace { path: path.clone(), why };
    Geometry::check(&peek.words, peek.size).map_err(not_a_space)?;
    let platform = map().and_then(LinuxPlatform::new).map_err(host)?;
    open(platform).map_err(|error| attach_error(error, path))
}

pub(crate) fn window_path(url: &Url) -> PathBuf {
    commonhold_host::path_of(url).unwrap_or_else(|| PathBuf::from(url.to_string()))
}

pub(crate) fn open(url: &str, options: &OpenOptions) -> Result<Space, OpenError> {
    let parsed = parse(url)?;
    let path = || window_path(&parsed);
    let attach = |view: View<LinuxPlatform>| {
        let identity = view.platform().identity();
        Attached::attach(view, &identity)
    };
    let core = if parsed.is_device() {
        attach(device_view(&parsed)?).map_err(|error| attach_error(error, path()))?
    } else {
        let patience = options.patience.unwrap_or(PATIENCE);
        let gate = commonhold_host::enter(&parsed, options.owners, patience).map_err(host)?;
        let peek = gate.peek().map_err(host)?;
        // The gate is held until the peer is live: whoever removes the space sees it then.
        let core =
            attach(view(peek, || gate.map(), path(), View::open)?).map_err(
                |error| match error {
                    AttachError::NoSlot { locked: Some(slot), .. } => {
                        let slot = slot.get();
                        OpenError::SlotLocked { path: path(), slot, by: gate.holder_of_slot(slot) }
                    }
                    error => attach_error(error, path()),
                },
            )?;
        drop(gate);
        core
    };
    Ok(Space::new(Attachment::new(parsed.to_string(), core)))
}

pub(crate) fn open_or_format(url: &str, options: &OpenOptions) -> Result<Space, OpenError> {
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
            // Also if somebody else was faster: theirs is as good.
            Ok(()) | Err(OpenError::Exists { .. }) => {}
            Err(error) => return Err(error),
        }
        // What was made just now can have been removed by now.
        if left.is_zero() {
            return open(url, &within);
        }
    }
}

pub(crate) fn format(url: &str, options: &FormatOptions) -> Result<(), OpenError> {
    let parsed = parse(url)?;
    if parsed.is_device() {
        return crate::device::format(&parsed, options);
    }
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
        let found = look(&parsed, options.owners)?;
        let made = format_over(&parsed, &found, options);
        // What was found has been removed, or there is something where nothing was.
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
    let uuid = commonhold_host::random_u128().map_err(host)?;
    let make =
        |mapped: &MappedWindow| make(mapped, options, uuid).map_err(|error| unmade(error, path()));
    let made = match found {
        Existing::Nothing => commonhold_host::create(url, new, make).map(drop),
        _ => {
            let allow = |gate: &ExclusiveGate| may_replace(url, gate, options);
            commonhold_host::replace(url, (options.owners, PATIENCE), new, make, allow).map(drop)
        }
    };
    made.map_err(|error| match error {
        CreateError::Host(error) => host(error),
        CreateError::Format(error) => error,
        error => unexpected("format", path(), &error),
    })
}

/// Whether the file whose gate is held may be formatted over, as it is now.
fn may_replace(url: &Url, gate: &ExclusiveGate, options: &FormatOptions) -> Result<(), OpenError> {
    let peek = gate.peek().map_err(host)?;
    let ground = ground_of(url, options.owners, &peek)?;
    ground.allow(options, || gate.path().to_owned())?;
    match ground {
        // Without a bit that is set there is no owner of anything; but somebody may hold a file that was
        // cut, or wiped, under its feet.
        Existing::Nothing | Existing::Empty | Existing::Blank(_) => refuse_locked(gate),
        Existing::Space | Existing::Other => refuse_used(gate),
    }
}

pub(crate) fn unmade(error: MakeError, path: PathBuf) -> OpenError {
    match error {
        MakeError::Format(why) => OpenError::Format(why),
        MakeError::BackingMemory(error) => medium(error, path),
        MakeError::Contested => OpenError::Formatting { path },
        error => unexpected("format", path, &error),
    }
}

fn look(url: &Url, owners: Owners) -> Result<Existing, OpenError> {
    match commonhold_host::peek(url, owners) {
        Ok(peek) => ground_of(url, owners, &peek),
        Err(HostError::NotFound { .. }) => Ok(Existing::Nothing),
        Err(error) => Err(host(error)),
    }
}

fn ground_of(url: &Url, owners: Owners, peek: &Peek) -> Result<Existing, OpenError> {
    Ok(if peek.size == 0 {
        Existing::Empty
    } else if peek.words[0] == MAGIC {
        Existing::Space
    } else if commonhold_host::is_blank(url, owners).map_err(host)? {
        Existing::Blank(peek.size)
    } else {
        Existing::Other
    })
}

impl Existing {
    /// Refuses what is replaced by force only.
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

pub(crate) fn remove(url: &str, removal: Removal, owners: Owners) -> Result<(), OpenError> {
    let parsed = parse(url)?;
    if parsed.is_device() {
        return Err(OpenError::NotAFile { url: url.to_owned() });
    }
    let gate = commonhold_host::seize(&parsed, owners, PATIENCE).map_err(host)?;
    if removal == Removal::IfUnused {
        let found = gate.peek().map_err(host)?.words[0];
        if found == MAGIC {
            refuse_used(&gate)?;
        } else {
            refuse_locked(&gate)?;
            let path = gate.path().to_owned();
            return Err(OpenError::NotASpace { path, why: LayoutError::NotASpace { found } });
        }
    }
    gate.unlink().map_err(host)
}
