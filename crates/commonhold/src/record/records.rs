//! Records in a row.

use std::{fmt, marker::PhantomData};

use super::Record;
use crate::{Mapping, RegionError};

/// Records in a row: a table with locks in each row. It needs no memory for each row: a row is opened when it is
/// used.
///
/// # Examples
/// ```
/// use commonhold::{Mutex, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-array-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let table = space.map_or_create("table", 1000 * Mutex::<u64>::SIZE)?;
/// let rows = table.open_array::<Mutex<u64>>(0, 1000)?;
/// rows.get(7)?.lock()?.with_mut(|count| *count += 1);
/// assert!(rows.get(1000).is_err());
/// # drop((rows, table));
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
pub struct Records<R> {
    mapping: Mapping,
    offset: u64,
    count: usize,
    of: PhantomData<fn() -> R>,
}

impl<R> Clone for Records<R> {
    fn clone(&self) -> Self {
        Self { mapping: self.mapping.clone(), ..*self }
    }
}

impl<R> fmt::Debug for Records<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records")
            .field("offset", &self.offset)
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

impl<R: Record> Records<R> {
    pub(crate) fn new(mapping: &Mapping, offset: u64, count: usize) -> Result<Self, RegionError> {
        let len = R::SIZE.saturating_mul(count as u64);
        mapping.region().words(offset, len)?;
        Ok(Self { mapping: mapping.clone(), offset, count, of: PhantomData })
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Opens the record with this index.
    ///
    /// # Errors
    /// [`RegionError::OutOfBounds`] if there is none, and as for [`Mapping::open`].
    pub fn get(&self, index: usize) -> Result<R, RegionError> {
        let at = |index: usize| R::SIZE.saturating_mul(index as u64);
        if index >= self.count {
            let (offset, size) = (at(index), at(self.count));
            return Err(RegionError::OutOfBounds { offset, len: R::SIZE, size });
        }
        R::open(&self.mapping, self.offset.saturating_add(at(index)))
    }
}
