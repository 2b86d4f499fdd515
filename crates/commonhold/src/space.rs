//! The space and its regions.

use std::{
    os::fd::OwnedFd,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use commonhold_layout::PeerName;
use commonhold_space::{Patience, RegionHandle};

use crate::{
    Access, CreateOptions, Destroy, FormatOptions, Mapping, OpenError, OpenOptions, Owners, Reaped,
    Record, RegionError, RegionKey, Removal,
    attachment::{Attachment, checked, region_error},
    open,
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
    pub(crate) const fn new(attachment: Arc<Attachment>) -> Self {
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
        open::open(url, &OpenOptions::default())
    }

    /// As [`open`](Self::open), with a say in how.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_with(url: &str, options: &OpenOptions) -> Result<Self, OpenError> {
        open::open(url, options)
    }

    /// As [`open`](Self::open), but waits so long at most for others who remove or replace the space.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_within(url: &str, patience: Duration) -> Result<Self, OpenError> {
        open::open(url, &OpenOptions { patience: Some(patience), ..OpenOptions::default() })
    }

    /// As [`open`](Self::open); but a `shm:` space that does not exist is formatted with defaults first.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_or_format(url: &str) -> Result<Self, OpenError> {
        open::open_or_format(url, &OpenOptions::default())
    }

    /// As [`open_or_format`](Self::open_or_format), with a say in how.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_or_format_with(url: &str, options: &OpenOptions) -> Result<Self, OpenError> {
        open::open_or_format(url, options)
    }

    /// As [`open_or_format`](Self::open_or_format), but waits so long at most for others who remove or
    /// replace the space.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_or_format_within(url: &str, patience: Duration) -> Result<Self, OpenError> {
        let options = OpenOptions { patience: Some(patience), ..OpenOptions::default() };
        open::open_or_format(url, &options)
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

    /// Creates a region of `size` bytes, all zero. It stays until it is destroyed, whoever comes and
    /// goes.
    ///
    /// # Errors
    /// [`RegionError::Exists`], [`RegionError::NoSpace`], [`RegionError::NoMemory`], [`RegionError::NoRoom`] if there
    /// is not so much memory, and the others; nothing has been created then.
    ///
    /// # Examples
    /// Of several processes that need a region, whoever comes first creates it:
    /// ```
    /// use commonhold::{Access, RegionError, Space};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let url = format!("shm:doc-create-{}", std::process::id());
    /// # let space = Space::open_or_format(&url)?;
    /// match space.create("table", 4096) {
    ///     Ok(_) | Err(RegionError::Exists { .. }) => {}
    ///     Err(error) => return Err(error.into()),
    /// }
    /// let table = space.map("table", Access::ReadWrite)?;
    /// table.set(0, &2.5_f64)?;
    /// let value: f64 = table.get(0)?;
    /// assert_eq!(value, 2.5);
    /// assert!(table.get::<u64>(4090).is_err(), "8 bytes from there do not fit");
    /// # drop(table);
    /// # drop(space);
    /// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn create(&self, name: &str, size: u64) -> Result<Region, RegionError> {
        self.create_with(name, &CreateOptions { size, ..CreateOptions::default() })
    }

    /// Creates a region, with a say in how.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub fn create_with(&self, name: &str, options: &CreateOptions) -> Result<Region, RegionError> {
        let checked = checked(name)?;
        let wanted = commonhold_space::CreateOptions {
            size: options.size,
            reserve: options.reserve.unwrap_or(0),
            lazy: options.lazy,
            demand: demand(options.force),
        };
        let me = self.attachment.me()?;
        let handle = self
            .attachment
            .core()?
            .create(&me, &checked, &wanted, self.patience)
            .map_err(|error| self.attachment.error(error, name))?;
        if !options.lazy {
            self.attachment.backing.remember(handle, options.size);
        }
        Ok(Region { space: self.clone(), name: name.into(), handle, size: options.size })
    }

    /// Maps the region of a name, and creates it first if there is none: whoever comes first does. While
    /// somebody else is creating or destroying it, this waits for the outcome, but for no longer than
    /// [`within`](Self::within) says, and three seconds otherwise.
    ///
    /// A region that was there keeps its size, whatever `size` says: look at [`Mapping::size`].
    ///
    /// # Errors
    /// As for [`create`](Self::create) and [`map`](Self::map), but neither `Exists` nor `NotFound`;
    /// [`RegionError::Unsettled`] if it was still being created or destroyed when the time was up.
    pub fn map_or_create(&self, name: &str, size: u64) -> Result<Mapping, RegionError> {
        /// Between two looks at a region that somebody else is creating or destroying.
        const PAUSE: Duration = Duration::from_millis(1);
        let mut end = None;
        loop {
            match self.map(name, Access::ReadWrite) {
                Err(RegionError::NotFound { .. }) => {}
                result => return result,
            }
            match self.create(name, size) {
                Ok(_) => continue,
                Err(RegionError::Exists { .. }) => {}
                Err(error) => return Err(error),
            }
            let now = Instant::now();
            if now >= *end.get_or_insert(now + Duration::from_nanos(self.patience.ns())) {
                let by = self.attachment.at_work(&checked(name)?);
                return Err(RegionError::Unsettled { name: name.to_owned(), by });
            }
            thread::sleep(PAUSE);
        }
    }

    /// The record that lies at the beginning of the region of a name; region and record are made if there is
    /// none.
    ///
    /// # Errors
    /// As for [`map_or_create`](Self::map_or_create) and [`Mapping::open`].
    ///
    /// # Examples
    /// ```
    /// use commonhold::{Mutex, Space};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let url = format!("shm:doc-record-{}", std::process::id());
    /// let space = Space::open_or_format(&url)?;
    /// let visits = space.record::<Mutex<u64>>("visits")?;
    /// // Written at once, a number is never half changed, so there is nothing to repair.
    /// visits.lock_repairing(|_| Ok(()))?.with_mut(|visits| *visits += 1);
    /// # drop(visits);
    /// # drop(space);
    /// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn record<R: Record>(&self, name: &str) -> Result<R, RegionError> {
        self.map_or_create(name, R::SIZE)?.open(0)
    }

    /// Finds an active region.
    ///
    /// # Errors
    /// [`RegionError::NotFound`].
    pub fn region(&self, name: &str) -> Result<Region, RegionError> {
        let checked = checked(name)?;
        let view = self.attachment.view()?;
        let record = view.stat(&checked).map_err(|error| region_error(error, name))?;
        if record.phase != commonhold_layout::RegionPhase::Active {
            return Err(RegionError::NotFound { name: name.to_owned() });
        }
        Ok(Region {
            space: self.clone(),
            name: name.into(),
            handle: record.handle,
            size: record.size,
        })
    }

    /// Finds and maps an active region. This needs no lock and no system call (a read-only mapping
    /// needs one), however many regions there are. Only the first time that this process maps a region which it has
    /// not created, it asks whether the memory is there: 10 ms for each GiB, and microseconds for small ones.
    ///
    /// # Errors
    /// [`RegionError::NotFound`].
    pub fn map(&self, name: &str, access: Access) -> Result<Mapping, RegionError> {
        let checked = checked(name)?;
        let me = self.attachment.me()?;
        let mapped = self
            .attachment
            .core()?
            .map(&me, &checked, self.patience)
            .map_err(|error| self.attachment.error(error, name))?;
        Mapping::new(&self.attachment, name, mapped, access)
    }

    /// Destroys a region, and says which one it was. Nobody can map it any more; its memory goes when
    /// nobody does, and until then its name is taken.
    ///
    /// # Errors
    /// [`RegionError::Mapped`] if this process maps it; [`RegionError::NotFound`];
    /// [`RegionError::TimedOut`], after which it is active again; [`RegionError::Busy`]: also without a timeout
    /// only those who map it are waited for without a limit.
    ///
    /// # Examples
    /// ```
    /// use commonhold::{Access, Destroy, RegionError, Space};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let url = format!("shm:doc-destroy-{}", std::process::id());
    /// # let space = Space::open_or_format(&url)?;
    /// # use std::time::Duration;
    /// space.map_or_create("scratch", 4096)?;
    /// let neighbour = Space::open(&url)?; // another process, as a rule
    /// let theirs = neighbour.map("scratch", Access::ReadWrite)?;
    ///
    /// let briefly = Destroy::Within(Duration::from_millis(10));
    /// let busy = space.destroy("scratch", briefly);
    /// assert!(matches!(busy, Err(RegionError::TimedOut { .. }))); // and it is active again
    ///
    /// space.destroy("scratch", Destroy::Deferred)?; // at once; they keep what they have
    /// assert!(space.map("scratch", Access::ReadOnly).is_err());
    /// drop(theirs); // the last: now it is gone
    /// space.create("scratch", 8192)?;
    /// # drop(neighbour);
    /// # drop(space);
    /// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn destroy(&self, name: &str, how: Destroy) -> Result<RegionKey, RegionError> {
        let checked = checked(name)?;
        let me = self.attachment.me()?;
        let (how, patience) = match how {
            Destroy::Wait => (commonhold_space::Destroy::Wait, self.patience),
            Destroy::Within(timeout) => (
                commonhold_space::Destroy::Until(self.attachment.deadline(timeout)),
                patience(timeout),
            ),
            Destroy::Deferred => (commonhold_space::Destroy::Deferred, self.patience),
        };
        let destroyed = self.attachment.core()?.destroy(&me, &checked, how, patience);
        match destroyed {
            Ok(handle) => Ok(RegionKey::new(handle)),
            Err(commonhold_space::DirectoryError::Mapped) => Err(self.mapped(name)),
            Err(error) => Err(self.attachment.error(error, name)),
        }
    }

    /// Gives a region another size, within its reserve. Mappings see it after
    /// [`Mapping::refresh`](crate::Mapping::refresh).
    ///
    /// # Errors
    /// [`RegionError::BeyondReserve`]; [`RegionError::Mapped`] if it is to shrink while mapped;
    /// [`RegionError::NoMemory`]; [`RegionError::NoRoom`]. The size is as before then.
    ///
    /// # Examples
    /// ```
    /// use commonhold::{Access, CreateOptions, RegionError, Space};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let url = format!("shm:doc-resize-{}", std::process::id());
    /// # let space = Space::open_or_format(&url)?;
    /// let options = CreateOptions { size: 4096, reserve: Some(1 << 20), ..CreateOptions::default() };
    /// match space.create_with("log", &options) {
    ///     Ok(_) | Err(RegionError::Exists { .. }) => {}
    ///     Err(error) => return Err(error.into()),
    /// }
    /// let log = space.map("log", Access::ReadWrite)?;
    /// space.resize("log", 8192)?; // also while it is mapped
    /// assert_eq!(log.refresh()?, 8192); // until then it sees 4096
    /// # drop(log);
    /// # drop(space);
    /// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn resize(&self, name: &str, size: u64) -> Result<(), RegionError> {
        self.resize_as(name, size, commonhold_space::Demand::Fitting)
    }

    /// As [`resize`](Self::resize), but takes memory even if it does not seem to be there: as
    /// [`CreateOptions::force`] does.
    ///
    /// # Errors
    /// As for [`resize`](Self::resize), but never [`RegionError::NoRoom`].
    pub fn resize_by_force(&self, name: &str, size: u64) -> Result<(), RegionError> {
        self.resize_as(name, size, commonhold_space::Demand::Forced)
    }

    fn resize_as(
        &self,
        name: &str,
        size: u64,
        demand: commonhold_space::Demand,
    ) -> Result<(), RegionError> {
        let checked = checked(name)?;
        let me = self.attachment.me()?;
        match self.attachment.core()?.resize(&me, &checked, size, demand, self.patience) {
            Err(commonhold_space::DirectoryError::Mapped) => Err(self.mapped(name)),
            result => result.map_err(|error| self.attachment.error(error, name)),
        }
    }

    fn mapped(&self, name: &str) -> RegionError {
        RegionError::Mapped { name: name.to_owned(), handles: self.attachment.handles(name) }
    }

    /// Looks for dead peers now, and frees what they left; and gives back memory that lies where no region is.
    ///
    /// # Errors
    /// [`RegionError::Damaged`]; what could not be freed is left for the next time.
    pub fn reap(&self) -> Result<Reaped, RegionError> {
        let me = self.attachment.me()?;
        let mut reaped = Reaped::default();
        let tell = |record: &commonhold_space::PeerRecord| {
            reaped.peers.push(crate::snapshot::dead_peer(record))
        };
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

const fn demand(force: bool) -> commonhold_space::Demand {
    if force { commonhold_space::Demand::Forced } else { commonhold_space::Demand::Fitting }
}

fn patience(limit: Duration) -> Patience {
    Patience::of_ns(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX))
}

/// A region that was found or created: which one, not a mapping of it.
///
/// # Examples
/// ```
/// use commonhold::{Access, Region, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-region-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// # drop(space.map_or_create("table", 4096)?);
/// let region: Region = space.region("table")?;
/// // This very region, and never a later one of that name.
/// let table = region.map(Access::ReadWrite)?;
/// assert_eq!(table.key(), region.key());
/// # drop((table, region));
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Region {
    space: Space,
    name: Box<str>,
    handle: RegionHandle,
    size: u64,
}

impl Region {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What tells it from every other region that had, or will have, its name.
    #[must_use]
    pub const fn key(&self) -> RegionKey {
        RegionKey::new(self.handle)
    }

    /// Bytes that a mapping saw when it was found.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Maps this very region.
    ///
    /// # Errors
    /// [`RegionError::NotFound`] if it is no longer active, even if another has its name.
    pub fn map(&self, access: Access) -> Result<Mapping, RegionError> {
        let attachment = self.space.attachment();
        let me = attachment.me()?;
        let mapped = attachment
            .core()?
            .map_handle(&me, self.handle)
            .map_err(|error| region_error(error, &self.name))?;
        Mapping::new(attachment, &self.name, mapped, access)
    }
}
