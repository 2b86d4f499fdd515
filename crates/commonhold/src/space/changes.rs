//! Destroying and resizing regions.

use commonhold_space::{Demand, DirectoryError};

use super::{Space, patience};
use crate::{Destroy, RegionError, RegionKey, error::causes::checked};

impl Space {
    /// Destroys a region, and returns its key. No peer can map it any more. Its memory and its name become free
    /// when the last mapping of it ends.
    ///
    /// # Errors
    /// [`RegionError::Mapped`] if this process maps it; [`RegionError::NotFound`]; [`RegionError::TimedOut`], after
    /// which it is active again; [`RegionError::Busy`]: only the wait for its mappers has no limit, and not the
    /// wait for peers that change the table of regions.
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
    /// space.destroy("scratch", Destroy::Deferred)?; // at once; the neighbour keeps its mapping
    /// assert!(space.map("scratch", Access::ReadOnly).is_err());
    /// drop(theirs); // the last mapping: now the region is gone
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
            Err(DirectoryError::Mapped) => Err(self.mapped(name)),
            Err(error) => Err(self.attachment.error(error, name)),
        }
    }

    /// Gives a region another size, within its reserve. Mappings see it after
    /// [`Mapping::refresh`](crate::Mapping::refresh).
    ///
    /// # Errors
    /// [`RegionError::BeyondReserve`]; [`RegionError::Mapped`] if it is to shrink while mapped;
    /// [`RegionError::NoMemory`]; [`RegionError::NoRoom`]. Then the size is as before.
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
        self.resize_as(name, size, Demand::Fitting)
    }

    /// As [`resize`](Self::resize), but takes memory even if there does not seem to be enough, as with
    /// [`CreateOptions::force`](crate::CreateOptions::force).
    ///
    /// # Errors
    /// As for [`resize`](Self::resize), but never [`RegionError::NoRoom`].
    pub fn resize_by_force(&self, name: &str, size: u64) -> Result<(), RegionError> {
        self.resize_as(name, size, Demand::Forced)
    }

    fn resize_as(&self, name: &str, size: u64, demand: Demand) -> Result<(), RegionError> {
        let checked = checked(name)?;
        let me = self.attachment.me()?;
        match self.attachment.core()?.resize(&me, &checked, size, demand, self.patience) {
            Err(DirectoryError::Mapped) => Err(self.mapped(name)),
            result => result.map_err(|error| self.attachment.error(error, name)),
        }
    }

    fn mapped(&self, name: &str) -> RegionError {
        RegionError::Mapped { name: name.to_owned(), handles: self.attachment.handles(name) }
    }
}
