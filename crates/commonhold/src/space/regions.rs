//! Regions of a space: creating, finding and mapping them.

use std::{
    thread,
    time::{Duration, Instant},
};

use commonhold_layout::RegionPhase;
use commonhold_space::{Demand, RegionHandle};

use super::Space;
use crate::{
    Access, CreateOptions, Mapping, Record, RegionError, RegionKey,
    error::causes::{checked, region_error},
};

impl Space {
    /// Creates a region of `size` bytes, all zero. It stays until it is destroyed, also when no peer is attached.
    ///
    /// # Errors
    /// [`RegionError::Exists`], [`RegionError::NoSpace`], [`RegionError::NoMemory`], [`RegionError::NoRoom`] if
    /// there is not enough memory, and the others. Then nothing has been created.
    ///
    /// # Examples
    /// Of several processes that need a region, the first creates it:
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

    /// Creates a region, with options.
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

    /// Maps the region of this name, and creates it first if there is none. While another thread is creating or
    /// destroying it, this waits for the outcome: three seconds at most, or as long as [`within`](Self::within)
    /// says.
    ///
    /// A region that existed keeps its size, and `size` is ignored: look at [`Mapping::size`].
    ///
    /// # Errors
    /// As for [`create`](Self::create) and [`map`](Self::map), but neither `Exists` nor `NotFound`;
    /// [`RegionError::Unsettled`] if it was still being created or destroyed when the time was up.
    pub fn map_or_create(&self, name: &str, size: u64) -> Result<Mapping, RegionError> {
        /// Between two looks at a region that another thread is creating or destroying.
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

    /// The record at the beginning of the region of this name. Region and record are made if there is none.
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
    /// // A number is written in one piece and never half changed, so there is nothing to repair.
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
        if record.phase != RegionPhase::Active {
            return Err(RegionError::NotFound { name: name.to_owned() });
        }
        Ok(Region {
            space: self.clone(),
            name: name.into(),
            handle: record.handle,
            size: record.size,
        })
    }

    /// Finds and maps an active region. This needs no lock and no system call (a read-only mapping needs one),
    /// however many regions there are. When this process first maps a region that it has not created, it also asks
    /// the kernel whether the memory is there: 10 ms for each GiB, and microseconds for a small region.
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
}

const fn demand(force: bool) -> Demand {
    if force { Demand::Forced } else { Demand::Fitting }
}

/// A region that was found or created: its identity, not a mapping.
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

    /// The key that tells it from every other region that had, or will have, its name.
    #[must_use]
    pub const fn key(&self) -> RegionKey {
        RegionKey::new(self.handle)
    }

    /// Its size in bytes when it was found or created.
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
