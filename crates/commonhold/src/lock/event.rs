//! An event in the bytes of a region.

use std::time::Duration;

use commonhold_sync as sync;

use crate::{Mapping, RegionError};

/// An event in the bytes of a region: a number that moves, and can be waited for.
///
/// ```no_run
/// # fn ready() -> bool { true }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let space = commonhold::Space::open("shm:default")?;
/// # let mapping = space.map("queue", commonhold::Access::ReadWrite)?;
/// let event = mapping.event(0)?;
/// loop {
///     let seen = event.sequence();
///     if ready() {
///         break;
///     }
///     event.wait(seen, None)?; // returns at once if the event moved since `sequence`
/// }
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
