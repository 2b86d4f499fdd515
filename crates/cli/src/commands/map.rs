//! `map`: passes a region's memory to any program, as a file descriptor.

use std::{
    fs::File,
    os::fd::{AsRawFd, OwnedFd},
};

use commonhold::{Access, Space};
use commonhold_console::{
    failure::{Doing, Failure},
    session::Session,
    signals::Signals,
};

use crate::{
    args::MapArgs,
    child::{self, Gifts},
    orphan::Watch,
};

pub(crate) fn map(session: &Session, args: &MapArgs) -> Result<u8, Failure> {
    let what = || format!("map {:?}", args.name);
    let signals = Signals::watch()?;
    let Some(space) = session.open_heeding(Space::open_with, &signals, None)? else {
        return Ok(ended_by(&signals));
    };
    let _watch = Watch::start(&space);
    let access = if args.read_only { Access::ReadOnly } else { Access::ReadWrite };
    let mapping = space.map(&args.name, access).doing(what)?;
    // A second watcher, which forwards to the command. It does not know of signals that only the first has seen.
    let signals = Signals::watch()?;
    let descriptor = descriptor(&space, access, &args.name)?;
    let gifts = Gifts {
        environment: vec![
            ("COMMONHOLD_FD", Some(descriptor.as_raw_fd().to_string())),
            ("COMMONHOLD_OFFSET", Some(mapping.offset().to_string())),
            ("COMMONHOLD_SIZE", Some(mapping.size().to_string())),
        ],
        descriptor: Some(descriptor),
    };
    if signals.last().is_some() {
        return Ok(ended_by(&signals));
    }
    let status = child::run(&space, &args.command, gifts, &signals)?;
    mapping.unmap().doing(|| format!("unmap {:?}", args.name))?;
    Ok(child::code_of(status))
}

/// The exit status after a signal.
fn ended_by(signals: &Signals) -> u8 {
    signals.last().and_then(|signal| u8::try_from(128 + signal).ok()).unwrap_or(1)
}

fn descriptor(space: &Space, access: Access, name: &str) -> Result<OwnedFd, Failure> {
    let what = || format!("hand over {name:?}");
    let descriptor = space.duplicate_fd().doing(what)?;
    if access == Access::ReadWrite {
        return Ok(descriptor);
    }
    // A descriptor opened for reading cannot be mapped for writing.
    let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
    Ok(File::open(path).doing(what)?.into())
}
