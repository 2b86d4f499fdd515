//! The handle of a space: opening and removing it, and operations on the space as a whole.

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
/// Clones share one attachment: other processes see one peer. It detaches when the last clone and the last mapping
/// are dropped.
///
/// An operation on the table of regions waits for other peers for three seconds at most: if one of them is stopped
/// in the middle of a change, the error is [`RegionError::Busy`] and names it. [`within`](Self::within) gives a
/// handle with another limit.
///
/// # Examples
/// ```
/// use commonhold::{Mutex, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-space-{}", std::process::id());
/// let space = Space::open_or_format(&url)?;
/// let clone = space.clone(); // other processes see one peer
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

    /// A handle of the same attachment that waits for `limit` at most for peers that are changing the table of
    /// regions. A shorter limit than a tenth of a second counts as a tenth: a peer that is not stopped needs less.
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

    /// Attaches to an existing space, which a URL names: `shm:NAME`, `file:PATH`, `pci:ADDRESS` or `pci:auto`,
    /// `mem:BASE+SIZE`.
    ///
    /// Until the space is closed, the process has one more thread, which shows others that this peer lives. That
    /// thread takes no signals.
    ///
    /// No process can remove or replace the space between the moment that the name is looked up and the moment that
    /// others can see this peer. If a process is removing or replacing it just then, this waits, 2 s at most.
    ///
    /// # Errors
    /// [`OpenError::NotFound`], [`OpenError::NotASpace`], [`OpenError::NoPeerSlot`], [`OpenError::Stranger`] if it
    /// belongs to another user who does not share it with a group of this one, [`OpenError::TimedOut`] (mostly
    /// because a process was stopped in the middle), and the others.
    pub fn open(url: &str) -> Result<Self, OpenError> {
        open::open(url, &OpenOptions::default()).map(Self::new)
    }

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_with(url: &str, options: &OpenOptions) -> Result<Self, OpenError> {
        open::open(url, options).map(Self::new)
    }

    /// As [`open`](Self::open), but waits for `patience` at most for processes that remove or replace the space.
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

    /// As [`open_or_format`](Self::open_or_format), with options.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_or_format_with(url: &str, options: &OpenOptions) -> Result<Self, OpenError> {
        open::open_or_format(url, options).map(Self::new)
    }

    /// As [`open_or_format`](Self::open_or_format), but waits for `patience` at most for processes that remove or
    /// replace the space.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_or_format_within(url: &str, patience: Duration) -> Result<Self, OpenError> {
        let options = OpenOptions { patience: Some(patience), ..OpenOptions::default() };
        open::open_or_format(url, &options).map(Self::new)
    }

    /// Formats a space, and does not attach to it. The name of a file appears only when the space in it is
    /// complete. Memory of a device cannot be opened until the space in it is complete.
    ///
    /// # Errors
    /// [`OpenError::Exists`] if something is there and `force` is not set; [`OpenError::InUse`] if live peers are
    /// attached, also with `force`; [`OpenError::Held`] or [`OpenError::Unknowable`] if what is there cannot be
    /// read, and a process uses it or may use it; [`OpenError::TimedOut`] if a process was opening it for more than
    /// 2 s; [`OpenError::Format`] for sizes that are not possible.
    pub fn format(url: &str, options: &FormatOptions) -> Result<(), OpenError> {
        open::format(url, options)
    }

    /// Removes a `shm:` or `file:` space. No process can open it between the search for live peers and the removal
    /// of its name.
    ///
    /// # Errors
    /// [`OpenError::InUse`] if live peers are attached, [`OpenError::Held`] or [`OpenError::Unknowable`] if it
    /// cannot be read and a process uses it or may use it, unless forced; [`OpenError::TimedOut`] if a process was
    /// opening it for more than 2 s; [`OpenError::NotFound`].
    pub fn remove(url: &str, removal: Removal) -> Result<(), OpenError> {
        open::remove(url, removal, Owners::Trusted)
    }

    /// As [`remove`](Self::remove), for the spaces of these owners only.
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

    /// Looks for dead peers now, and frees what they left. Also gives back memory outside of all regions.
    ///
    /// # Errors
    /// [`RegionError::Damaged`]. The next call frees what this one could not.
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

    /// Whether the space has lost its name, as of a second ago at most: it was removed by force, or by hand. A
    /// process that opens the name finds another space, or none. This costs one load. Memory of a device never
    /// loses its name.
    #[must_use]
    pub fn is_orphaned(&self) -> bool {
        self.attachment.platform().mapped().was_seen_nameless()
    }

    /// A descriptor of the space's file that may be handed to other processes: it holds none of the locks that
    /// prove that this peer lives.
    ///
    /// # Errors
    /// [`RegionError::Forked`], or [`RegionError::Os`].
    pub fn duplicate_fd(&self) -> Result<OwnedFd, RegionError> {
        let platform = self.attachment.core()?.view().platform();
        let file = platform.mapped().file().ok_or(RegionError::Forked)?;
        file.try_clone_to_owned().map_err(|source| RegionError::Os { call: "dup", source })
    }

    /// Checks every invariant of the space's tables, for tests and for diagnosis.
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
