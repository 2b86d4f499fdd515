//! An event in the bytes of a region.

use std::{sync::Arc, time::Duration};

use commonhold_sync as sync;
use yoke::Yokeable;

use super::Site;
use crate::{
    LockError, LockResult, RegionError,
    region::{Handle, MappedRegion},
};

/// An event, with the address of its word.
#[derive(Debug, Clone, Copy, Yokeable)]
pub(crate) struct EventWord<'a> {
    region: &'a MappedRegion,
    event: sync::Event<'a>,
}

/// An event in the bytes of a region: a number that signals move, and that threads wait for.
///
/// # Examples
/// A waiter reads the number first and then checks its condition, so that it cannot miss a signal in between.
/// ```
/// use commonhold::Space;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-event-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// # let neighbour = space.clone();
/// # let thread = std::thread::spawn(move || {
/// #     let theirs = neighbour.map_or_create("queue", 16)?;
/// #     theirs.set(8, &1_u64)?;
/// #     theirs.event(0)?.signal()
/// # });
/// let queue = space.map_or_create("queue", 16)?;
/// let event = queue.event(0)?;
/// loop {
///     let seen = event.sequence();
///     let filled: u64 = queue.get(8)?; // a neighbour sets it, and then signals
///     if filled > 0 {
///         break;
///     }
///     event.wait(seen)?; // returns at once if the event has moved since `sequence`
/// }
/// # thread.join().map_err(|_| "panic")??;
/// # drop((event, queue));
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Event {
    word: Handle<EventWord<'static>>,
}

impl Event {
    pub(crate) fn new(
        region: &Arc<MappedRegion>,
        find: impl FnOnce(&MappedRegion) -> Result<sync::Event<'_>, RegionError>,
    ) -> Result<Self, RegionError> {
        let word =
            MappedRegion::find(region, |region| Ok(EventWord { region, event: find(region)? }))?;
        Ok(Self { word })
    }

    /// The number now; pass it to [`wait`](Self::wait).
    #[must_use]
    pub fn sequence(&self) -> u64 {
        let EventWord { region, event } = self.word.get();
        // In a forked child the memory is not mapped. Any number will do, because waiting fails there.
        if region.attachment().is_forked() { 0 } else { event.sequence() }
    }

    /// Moves the number, and wakes one waiter.
    ///
    /// # Errors
    /// [`LockError::Forked`], [`LockError::Fenced`].
    pub fn signal(&self) -> LockResult<()> {
        let EventWord { region, event } = self.word.get();
        let attachment = region.attachment();
        event.signal(&attachment.me()?, attachment.my_view());
        Ok(())
    }

    /// Moves the number, and wakes all waiters.
    ///
    /// # Errors
    /// As for [`signal`](Self::signal).
    pub fn broadcast(&self) -> LockResult<()> {
        let EventWord { region, event } = self.word.get();
        let attachment = region.attachment();
        event.broadcast(&attachment.me()?, attachment.my_view());
        Ok(())
    }

    /// Waits until the number is not `seen`, and returns it.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if this process was declared dead, [`LockError::Forked`].
    pub fn wait(&self, seen: u64) -> LockResult<u64> {
        self.wait_until(seen, None)
    }

    /// As [`wait`](Self::wait), but waits for `timeout` at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`], and as for [`wait`](Self::wait).
    pub fn wait_for(&self, seen: u64, timeout: Duration) -> LockResult<u64> {
        let deadline = self.word.get().region.attachment().deadline(timeout);
        self.wait_until(seen, Some(deadline))
    }

    fn wait_until(&self, seen: u64, deadline: Option<u64>) -> LockResult<u64> {
        let EventWord { region, event } = self.word.get();
        let attachment = region.attachment();
        let me = attachment.me()?;
        let site = Site { region, at: Some(event.at()) };
        event
            .wait(&me, attachment.my_view(), seen, deadline)
            .map_err(|error| -> LockError { site.error(error.into(), None) })
    }
}
