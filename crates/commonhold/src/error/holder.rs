//! The peer that holds the directory mutex of a space.

use std::fmt;

/// A living peer in the middle of a change of the table of regions.
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
    /// Appends, to a sentence about a region, that this peer is at work on it.
    pub(crate) fn fmt_at_work(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { slot, thread, pid, tid, name, stopped } = self;
        write!(
            f,
            "; thread {thread} (tid {tid}) of the peer in slot {slot} (pid {pid}, {name:?}) is doing it"
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
