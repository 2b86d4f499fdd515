//! The handle of a space: opening and removing, and what concerns all of it.

mod changes;
mod regions;

pub use regions::Region;

use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

use commonhold_layout::PeerName;
use commonhold_space::Patience;

use crate::{
    FormatOptions, OpenError, OpenOptions, Owners, PeerInfoBrief, Reaped, RegionError, Removal,
    attachment::Attachment, open,
};

/// A space that this process is attached to.
///
/// Clones share one attachment: to others they are one peer. It detaches when the last clone, and the
/// last mapping, goes.
///
/// What it does with the table of regions takes three seconds at most beyond the work itself, whatever other
/// peers do: if one of them is stopped in the middle of a change, the error is [`RegionError::Busy`] and says
/// which. [`within`](Self::within) gives a handle with another limit.
///
/// # Examples
/// ```
/// use commonhold::{Mutex, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-space-{}", std::process::id());
/// let space = Space::open_or_format(&url)?;
/// let clone = space.clone(); // to others both are one peer
/// let thread = std::thread::spawn(move || {
///     let count = clone.record::<Mutex<u64>>("count")?;
///     let guard = count.lock_repairing(|_| Ok(()))?; // one number is never half changed
///     guard.with_mut(|count| *count += 1);
///     guard.unlock()
/// });
/// thread.join().map_err(|_| "the thread panicked")??;
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Space {
    attachment: Arc<Attachment>,
    patience: Patience,
}

impl Space {
    const fn new(attachment: Arc<Attachment>) -> Self {
        Self { attachment, patience: Patience::DEFAULT }
    }

    pub(crate) const fn attachment(&self) -> &Arc<Attachment> {
        &self.attachment
    }

    /// The same attachment, as a handle that waits so long at most for peers who are changing the table of
    /// regions; but always a tenth of a second, which is more than one that is not stopped needs.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use commonhold::{RegionError, Space};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let url = format!("shm:doc-within-{}", std::process::id());
    /// # let space = Space::open_or_format(&url)?;
    /// match space.within(Duration::from_millis(200)).map_or_create("table", 4096) {
    ///     Err(RegionError::Busy(holder)) => eprintln!("{holder}"),
    ///     result => drop(result?),
    /// }
    /// # drop(space);
    /// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn within(&self, limit: Duration) -> Self {
        Self { attachment: Arc::clone(&self.attachment), patience: patience(limit) }
    }

    /// Attaches to an existing space, named by a URL: `shm:NAME`, `file:PATH`, `pci:ADDRESS` or
    /// `pci:auto`, `mem:BASE+SIZE`.
    ///
    /// The process has one more thread until the space is closed: it shows others that this peer lives. It
    /// takes no signals.
    ///
    /// The name means this space until this peer can be seen to live in it. For whoever removes or replaces the
    /// space at this moment it waits, 2 s at most.
    ///
    /// # Errors
    /// [`OpenError::NotFound`], [`OpenError::NotASpace`], [`OpenError::NoPeerSlot`], [`OpenError::Stranger`] if it
    /// is another user's who does not share it with a group of this one,
    /// [`OpenError::TimedOut`] (mostly since somebody was stopped in the middle), and the others.
    pub fn open(url: &str) -> Result<Self, OpenError> {
        open::open(url, &OpenOptions::default()).map(Self::new)
    }

    /// As [`open`](Self::open), with a say in how.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_with(url: &str, options: &OpenOptions) -> Result<Self, OpenError> {
        open::open(url, options).map(Self::new)
    }

    /// As [`open`](Self::open), but waits so long at most for others who remove or replace the space.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_within(url: &str, patience: Duration) -> Result<Self, OpenError> {
        let options = OpenOptions { patience: Some(patience), ..OpenOptions::default() };
        open::open(url, &options).map(Self::new)
    }

    /// As [`open`](Self::open); but a `shm:` space that does not exist is formatted with defaults first.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_or_format(url: &str) -> Result<Self, OpenError> {
        open::open_or_format(url, &OpenOptions::default()).map(Self::new)
    }

    /// As [`open_or_format`](Self::open_or_format), with a say in how.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_or_format_with(url: &str, options: &OpenOptions) -> Result<Self, OpenError> {
        open::open_or_format(url, options).map(Self::new)
    }

    /// As [`open_or_format`](Self::open_or_format), but waits so long at most for others who remove or
    /// replace the space.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_or_format_within(url: &str, patience: Duration) -> Result<Self, OpenError> {
        let options = OpenOptions { patience: Some(patience), ..OpenOptions::default() };
        open::open_or_format(url, &options).map(Self::new)
    }

    /// Formats a space, and does not attach to it. Of a file, the name appears at once and whole, or
    /// not at all; memory of a device is refused by all until it is whole.
    ///
    /// # Errors
    /// [`OpenError::Exists`] if something is there and `force` is not set; [`OpenError::InUse`] if
    /// live peers are attached even so; [`OpenError::Held`] or [`OpenError::Unknowable`] if what is there
    /// cannot be read, and somebody uses it or may; [`OpenError::TimedOut`] if somebody was opening it for
    /// more than 2 s; [`OpenError::Format`] for sizes that are not possible.
    pub fn format(url: &str, options: &FormatOptions) -> Result<(), OpenError> {
        open::format(url, options)
    }

    /// Removes a `shm:` or `file:` space. Looking for those who live in it and taking its name away are one
    /// step: nobody opens it by this name in between.
    ///
    /// # Errors
    /// [`OpenError::InUse`] if live peers are attached, [`OpenError::Held`] or [`OpenError::Unknowable`] if
    /// it cannot be read and somebody uses it or may, unless forced; [`OpenError::TimedOut`] if somebody was
    /// opening it for more than 2 s; [`OpenError::NotFound`].
    pub fn remove(url: &str, removal: Removal) -> Result<(), OpenError> {
        open::remove(url, removal, Owners::Trusted)
    }

    /// As [`remove`](Self::remove), with a say in whose spaces are touched at all.
    ///
    /// # Errors
    /// As for [`remove`](Self::remove).
    pub fn remove_of(url: &str, removal: Removal, owners: Owners) -> Result<(), OpenError> {
        open::remove(url, removal, owners)
    }

    /// Names this peer for people; the default is the name of the command.
    ///
    /// # Errors
    /// [`RegionError::Forked`].
    pub fn set_name(&self, name: &str) -> Result<(), RegionError> {
        self.attachment.core()?.rename(&PeerName::new(name));
        Ok(())
    }

    /// This peer's slot and generation.
    #[must_use]
    pub fn peer(&self) -> (u16, u32) {
        self.attachment.peer()
    }

    /// Looks for dead peers now, and frees what they left; and gives back memory that lies where no region is.
    ///
    /// # Errors
    /// [`RegionError::Damaged`]; what could not be freed is left for the next time.
    pub fn reap(&self) -> Result<Reaped, RegionError> {
        let me = self.attachment.me()?;
        let mut reaped = Reaped::default();
        let tell =
            |record: &commonhold_space::PeerRecord| reaped.peers.push(PeerInfoBrief::new(record));
        let counts = self
            .attachment
            .core()?
            .reap_with(&me, self.patience, tell)
            .map_err(|error| self.attachment.error(error, ""))?;
        reaped.settled = counts.settled;
        reaped.given_back = counts.given_back;
        Ok(reaped)
    }

    /// Whether the space has lost its name, as this process has seen it within the last second: it was removed
    /// by force, or by hand. Who opens the name finds another space, or none, and meets nobody here. One
    /// load. Never so for memory of a device.
    #[must_use]
    pub fn is_orphaned(&self) -> bool {
        self.attachment.platform().mapped().was_seen_nameless()
    }

    /// A descriptor of the space's file that may be handed to others: it carries nothing by which
    /// this peer is known to live.
    ///
    /// # Errors
    /// [`RegionError::Forked`], or the operating system's.
    pub fn duplicate_fd(&self) -> Result<OwnedFd, RegionError> {
        let platform = self.attachment.core()?.view().platform();
        let file = platform.mapped().file().ok_or(RegionError::Forked)?;
        file.try_clone_to_owned().map_err(|source| RegionError::Os { call: "dup", source })
    }

    /// Checks every invariant of the space's tables: a test for tests, and for suspicious minds.
    ///
    /// # Errors
    /// [`RegionError::Damaged`] names what does not hold.
    pub fn check(&self) -> Result<(), RegionError> {
        let me = self.attachment.me()?;
        self.attachment
            .core()?
            .check(&me, self.patience)
            .map(drop)
            .map_err(|error| self.attachment.error(error, ""))
    }
}

fn patience(limit: Duration) -> Patience {
    Patience::of_ns(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX))
}
