//! Who is in the way: what a person needs to know of a peer that holds the directory and does not go on.
//!
//! It is read after the time was up, for people: by then the peer may have gone on.

use std::fmt;

use commonhold_layout::{Name, PeerId, ThreadId};
use commonhold_space::{BackingMemoryError, DirectoryError};

use crate::{
    RegionError,
    attachment::{Attachment, region_error},
};

/// A living peer in the middle of a change of a space's directory.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use commonhold::{DirectoryHolder, RegionError, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-holder-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// fn tell(holder: &DirectoryHolder) {
///     match holder.stopped {
///         Some(true) => eprintln!("process {} is stopped: let it go on", holder.pid),
///         _ => eprintln!("{holder}"),
///     }
/// }
/// match space.within(Duration::from_millis(200)).map_or_create("table", 4096) {
///     Err(RegionError::Busy(holder)) => tell(&holder),
///     result => drop(result?),
/// }
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectoryHolder {
    /// Its slot.
    pub slot: u16,
    /// The slot of its thread.
    pub thread: u16,
    /// Its process id in its own PID namespace; 0 if the peer is gone, or has none.
    pub pid: u32,
    /// The id of its thread there; 0 if that is not known.
    pub tid: u32,
    /// Its name; empty if the peer is gone.
    pub name: String,
    /// Whether the thread is stopped, by a signal or a debugger; `None` if that cannot be seen from here.
    pub stopped: Option<bool>,
}

impl fmt::Display for DirectoryHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { slot, thread, pid, tid, name, stopped } = self;
        write!(
            f,
            "thread {thread} (tid {tid}) of the peer in slot {slot} (pid {pid}, {name:?}) is in the middle \
             of changing the table of regions"
        )?;
        match stopped {
            Some(true) => write!(
                f,
                ", and is stopped; nobody takes over from the living: let it go on (kill -CONT {pid}), or \
                 end it (kill -9 {pid})"
            ),
            Some(false) => write!(
                f,
                ", and did not end in time; try again, and if it hangs, end it (kill -9 {pid})"
            ),
            None => write!(
                f,
                ", and did not end in time; whether it is stopped cannot be seen from here: where its pid \
                 is known, let it go on (kill -CONT {pid}), or end it (kill -9 {pid})"
            ),
        }
    }
}

impl DirectoryHolder {
    /// That it is at work on one region, after a sentence about that.
    pub(crate) fn fmt_at_work(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { slot, thread, pid, tid, name, stopped } = self;
        write!(
            f,
            "; thread {thread} (tid {tid}) of the peer in slot {slot} (pid {pid}, {name:?}) is at it"
        )?;
        if *stopped == Some(true) {
            write!(
                f,
                ", and is stopped: let it go on (kill -CONT {pid}), or end it (kill -9 {pid})"
            )?;
        }
        Ok(())
    }
}

impl Attachment {
    /// Who is creating or destroying the region of a name, if that is somebody who lives.
    #[cold]
    pub(crate) fn at_work(&self, name: &Name) -> Option<Box<DirectoryHolder>> {
        let owner = self.view().ok()?.at_work(name)?;
        Some(Box::new(self.holder(owner.peer().get(), owner.thread().index())))
    }

    /// The error of an operation on the directory, with what a person needs to know besides.
    #[cold]
    pub(crate) fn error(&self, error: DirectoryError, name: &str) -> RegionError {
        match error {
            DirectoryError::Busy { slot, thread } => {
                RegionError::Busy(Box::new(self.holder(slot, thread)))
            }
            DirectoryError::BackingMemory(BackingMemoryError::Blocked { byte }) => {
                RegionError::Blocked { by: self.platform().mapped().holder_of(byte) }
            }
            other => region_error(other, name),
        }
    }

    fn holder(&self, slot: u16, thread: u16) -> DirectoryHolder {
        let view = self.view().ok();
        let record = view.and_then(|view| view.peer_record(PeerId::new(slot)));
        let tid = view
            .zip(ThreadId::new(thread))
            .and_then(|(view, thread)| view.thread_record(PeerId::new(slot), thread))
            .map_or(0, |record| record.tid);
        let Some((record, _)) = record else {
            return DirectoryHolder {
                slot,
                thread,
                pid: 0,
                tid,
                name: String::new(),
                stopped: None,
            };
        };
        DirectoryHolder {
            slot,
            thread,
            pid: record.identity.pid,
            tid,
            name: record.identity.name.to_string(),
            stopped: commonhold_host::is_stopped(&record.identity, tid),
        }
    }
}
