//! An event in the bytes of a region.

use std::time::Duration;

use commonhold_sync as sync;

use crate::{Mapping, RegionError};

/// An event in the bytes of a region: a number that moves, and can be waited for.
///
/// # Examples
/// The number is read before the condition is looked at: then no signal can be missed in between.
/// ```
/// use commonhold::{Access, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-event-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// # space.create("queue", 16)?;
/// # let neighbour = space.clone();
/// # let thread = std::thread::spawn(move || {
/// #     let theirs = neighbour.map("queue", Access::ReadWrite)?;
/// #     theirs.set(8, &1_u64)?;
/// #     theirs.event(0)?.signal()
/// # });
/// let queue = space.map("queue", Access::ReadWrite)?;
/// let event = queue.event(0)?;
/// loop {
///     let seen = event.sequence();
///     let filled: u64 = queue.get(8)?; // a neighbour sets it, and then signals
///     if filled > 0 {
///         break;
///     }
///     event.wait(seen, None)?; // returns at once if the event has moved since `sequence`
/// }
/// # thread.join().map_err(|_| "panic")??;
/// # drop(queue);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    mapping: &'a Mapping,
    event: sync::Event<'a>,
}

impl<'a> Event<'a> {
    pub(crate) const fn of(mapping: &'a Mapping, event: sync::Event<'a>) -> Self {
        Self { mapping, event }
    }

    /// The number now; pass it to [`wait`](Self::wait).
    #[must_use]
    pub fn sequence(&self) -> u64 {
        // In a forked child the memory is not mapped; any number will do, since waiting fails there.
        if self.mapping.attachment().is_forked() { 0 } else { self.event.sequence() }
    }

    /// Moves the number and wakes one who waits.
    ///
    /// # Errors
    /// [`RegionError::Forked`].
    pub fn signal(&self) -> Result<(), RegionError> {
        let attachment = self.mapping.attachment();
        self.event.signal(&attachment.me()?, attachment.view()?);
        Ok(())
    }

    /// Moves the number and wakes all who wait.
    ///
    /// # Errors
    /// [`RegionError::Forked`].
    pub fn broadcast(&self) -> Result<(), RegionError> {
        let attachment = self.mapping.attachment();
        self.event.broadcast(&attachment.me()?, attachment.view()?);
        Ok(())
    }

    /// Waits until the number is not `seen`, and returns it; `None` when the time is up.
    ///
    /// # Errors
    /// [`RegionError::Fenced`] if this process was declared dead, [`RegionError::Forked`].
    pub fn wait(&self, seen: u64, timeout: Option<Duration>) -> Result<Option<u64>, RegionError> {
        let attachment = self.mapping.attachment();
        let deadline = timeout.map(|timeout| attachment.deadline(timeout));
        match self.event.wait(&attachment.me()?, attachment.view()?, seen, deadline) {
            Ok(number) => Ok(Some(number)),
            Err(sync::LockError::TimedOut) => Ok(None),
            Err(_) => Err(RegionError::Fenced),
        }
    }
}
