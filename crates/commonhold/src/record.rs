//! Records: locks with their data, and a tag that says what they are.
//!
//! # What it owns
//! How a record is opened, and how its data are copied in and out. The bytes are those of
//! `commonhold_layout`'s `record`.
//!
//! # Invariants
//! 1. A record is used only after its tag was checked: it has the kind and the size that the caller wants.
//! 2. Data are reached only through a guard, so only while it is held, and only by its thread (`data.rs`).
//! 3. A record keeps its region mapped, and can be kept, cloned and sent like any other value.
//!
//! # What it does not do
//! It implements no lock: `lock` and the locks of `commonhold_sync` do.

mod barrier;
mod condvar;
mod event;
mod fields;
mod mutex;
mod once;
mod records;
mod reset;
mod rwlock;
mod semaphore;
mod seqlock;
mod takes;
mod upgradable;

pub use barrier::{Barrier, Participant};
pub use commonhold_sync::Waited;
pub use condvar::Condvar;
pub use fields::Field;
pub use mutex::{Mutex, MutexGuard};
pub use once::{OnceLock, OnceLockGuard, Turn};
pub use records::Records;
pub use rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use semaphore::{Permit, Semaphore};
pub use seqlock::{SeqLock, SeqLockGuard};
pub use upgradable::{RwLockUpgradableGuard, RwLockUpgradedGuard};

use std::sync::atomic::{AtomicU64, Ordering};

use commonhold_layout::{Offset, PLACES_MOST, RecordKind, RecordTag};
use commonhold_space::{FoundRecord, Patience};
use commonhold_window::{OutOfWindow, Run};

use crate::{Mapping, RegionError, region::MappedRegion};

/// What [`Mapping::open`] can open: a lock with its data, or a struct of them made by
/// [`records!`](crate::records).
///
/// # Examples
/// ```
/// use commonhold::{Mutex, Record, Records, RegionError, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-record-trait-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// fn table<R: Record>(space: &Space, name: &str, rows: u32) -> Result<Records<R>, RegionError> {
///     space.map_or_create(name, R::SIZE * u64::from(rows))?.open_array(0, rows as usize)
/// }
/// let counts = table::<Mutex<u64>>(&space, "counts", 100)?;
/// // One number is never half changed.
/// counts.get(7)?.lock_repairing(|_| Ok(()))?.with_mut(|count| *count += 1);
/// # drop(counts);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
pub trait Record: Sized {
    /// Its size in bytes, a multiple of 8: the next record may begin behind it.
    const SIZE: u64;

    /// Opens the record at `offset`. Use [`Mapping::open`] instead, which reads better.
    ///
    /// # Errors
    /// As for [`Mapping::open`].
    fn open(mapping: &Mapping, offset: u64) -> Result<Self, RegionError>;
}

impl Mapping {
    /// Opens a record at `offset`, a multiple of 8: a lock with its data, such as a [`Mutex`](crate::Mutex) or a
    /// [`RwLock`](crate::RwLock), or a struct of several made by [`records!`](crate::records). If a region holds
    /// one record only, [`Space::record`](crate::Space::record) creates, maps and opens it.
    ///
    /// All zeros are a free lock of any kind, with zeros as its data. The first thread to open it makes it a record
    /// of the kind that it asks for, for good: a tag beside the lock says which kind it is, and how large its data
    /// are. (The tag cannot tell two types of the same size apart.)
    ///
    /// A record keeps its region mapped. While one is open, `destroy` may be called for the region, but its memory
    /// stays, and its locks work as before. A new region, of the same or another name, begins with zeros.
    ///
    /// A [`SeqLock`](crate::SeqLock) that has been made can be opened through a read-only mapping, for reading.
    ///
    /// # Errors
    /// [`RegionError::OtherRecord`] if it is of another kind, or its data are of another size;
    /// [`RegionError::NotARecord`] if other bytes lie there; [`RegionError::NotMade`] if nothing has been opened
    /// there and the mapping is read-only; [`RegionError::Misaligned`], [`RegionError::OutOfBounds`],
    /// [`RegionError::ReadOnly`], [`RegionError::Forked`]. Then nothing has been written; but if several records
    /// are opened at once, those before the refused one may have been made.
    ///
    /// # Examples
    /// ```
    /// use commonhold::{Mutex, RwLock, Space};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let url = format!("shm:doc-open-{}", std::process::id());
    /// # let space = Space::open_or_format(&url)?;
    /// let two = space.map_or_create("two", Mutex::<u64>::SIZE + RwLock::<[f64; 8]>::SIZE)?;
    /// let count = two.open::<Mutex<u64>>(0)?;
    /// let table = two.open::<RwLock<[f64; 8]>>(Mutex::<u64>::SIZE)?;
    /// count.lock()?.with_mut(|count| *count += 1);
    /// table.write()?.set([0.5; 8]);
    /// let wrong = two.open::<RwLock<u64>>(0).unwrap_err();
    /// assert_eq!(
    ///     wrong.to_string(),
    ///     "at offset 0 lies a mutex with 8 bytes of data, not a reader/writer lock with 8 bytes of data"
    /// );
    /// # drop((count, table, two));
    /// # drop(space);
    /// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn open<R: Record>(&self, offset: u64) -> Result<R, RegionError> {
        R::open(self, offset)
    }

    /// As [`open`](Self::open), for `count` records in a row: a table with locks in each row.
    ///
    /// # Errors
    /// [`RegionError::Misaligned`], [`RegionError::OutOfBounds`].
    pub fn open_array<R: Record>(
        &self,
        offset: u64,
        count: usize,
    ) -> Result<Records<R>, RegionError> {
        Records::new(self, offset, count)
    }
}

/// The layout of a record with `N` words before its tag, and a `T` behind it.
pub(crate) struct Plan<T, const N: usize>(T);

impl<T, const N: usize> Plan<T, N> {
    /// Words of data.
    const DATA_WORDS: usize = {
        assert!(align_of::<T>() <= 8, "data of a record are aligned to 8 bytes at most");
        size_of::<T>().div_ceil(8)
    };
    /// Bytes before the data.
    pub(crate) const DATA: u64 = 8 * (N as u64 + 1);
    /// Bytes of the whole record.
    pub(crate) const SIZE: u64 = Self::DATA + 8 * Self::DATA_WORDS as u64;

    #[allow(clippy::cast_possible_truncation, reason = "checked in the same breath")]
    const fn tag(kind: RecordKind) -> RecordTag {
        const { assert!(size_of::<T>() <= u32::MAX as usize, "data of a record are below 4 GiB") };
        RecordTag { kind, size: size_of::<T>() as u32 }
    }
}

/// A record whose tag was checked.
pub(crate) struct Opened<'a, const N: usize> {
    pub(crate) words: &'a [AtomicU64; N],
    /// Where its first word lies.
    pub(crate) at: Offset,
    pub(crate) data: Run<'a>,
}

/// Opens the record at `offset` of a mapping that may be written, and tags it if it was never used.
pub(crate) fn open<T, const N: usize>(
    region: &MappedRegion,
    offset: u64,
    kind: RecordKind,
) -> Result<Opened<'_, N>, RegionError> {
    open_tagged(region, offset, Plan::<T, N>::tag(kind))
}

/// Opens a record whose data are owner slots, one word each. A slot of zeros is free.
pub(crate) fn open_places<const N: usize>(
    region: &MappedRegion,
    offset: u64,
    kind: RecordKind,
    places: usize,
) -> Result<Opened<'_, N>, RegionError> {
    let size = u32::try_from(places).ok().filter(|_| (1..=PLACES_MOST).contains(&places));
    let size = size.ok_or(RegionError::BadCount { asked: places, most: PLACES_MOST })?;
    open_tagged(region, offset, RecordTag { kind, size: 8 * size })
}

/// Bytes of a record with `words` words before its tag, and `places` owner slots.
pub(crate) const fn size_with_places(words: usize, places: usize) -> u64 {
    8 * (words as u64 + 1 + places as u64)
}

/// The same for a number of slots that is known at compile time.
pub(crate) const fn checked_size_with_places(words: usize, places: usize) -> u64 {
    assert!(
        places >= 1 && places <= PLACES_MOST,
        "say for how many: `Semaphore<4>` has four permits, `Barrier<4>` four participants, and 64 is the most"
    );
    size_with_places(words, places)
}

fn open_tagged<const N: usize>(
    region: &MappedRegion,
    offset: u64,
    tag: RecordTag,
) -> Result<Opened<'_, N>, RegionError> {
    let at = region.writable_words(offset, size_of_record::<N>(tag))?;
    let (opened, found) = lay_out(region, offset, at, tag)?;
    if found != tag.word() {
        make(region, offset, at, tag)?;
    }
    Ok(opened)
}

/// Opens the record at `offset` of a mapping that may be read-only, if it has been made. Writes nothing.
pub(crate) fn open_to_read<T, const N: usize>(
    region: &MappedRegion,
    offset: u64,
    kind: RecordKind,
) -> Result<Opened<'_, N>, RegionError> {
    let tag = Plan::<T, N>::tag(kind);
    let at = region.words(offset, size_of_record::<N>(tag))?;
    let (opened, found) = lay_out(region, offset, at, tag)?;
    if found == tag.word() {
        return Ok(opened);
    }
    let view = region.attachment().view()?;
    match view.find_record(at, region.end()) {
        Some(found) => Err(RegionError::OtherRecord { offset, wanted: tag, found }),
        None if found == 0 => Err(RegionError::NotMade { offset, wanted: tag }),
        None => Err(RegionError::NotARecord { offset, found }),
    }
}

/// Bytes of a record with `N` words before its tag.
fn size_of_record<const N: usize>(tag: RecordTag) -> u64 {
    8 * (N as u64 + 1 + u64::from(tag.size.div_ceil(8)))
}

/// The parts of the record at `at`, and the word that should be its tag.
fn lay_out<const N: usize>(
    region: &MappedRegion,
    offset: u64,
    at: Offset,
    tag: RecordTag,
) -> Result<(Opened<'_, N>, u64), RegionError> {
    let len = size_of_record::<N>(tag);
    let (before_data, data_words) = (8 * (N as u64 + 1), tag.size.div_ceil(8));
    let outside = |_: OutOfWindow| region.outside(offset, len);
    let missing = || region.outside(offset, len);
    let window = region.attachment().view()?.window();
    let words = window.words::<N>(at).map_err(outside)?;
    let tag_word = window.word(at.plus(8 * N as u64).ok_or_else(missing)?).map_err(outside)?;
    let data = at.plus(before_data).ok_or_else(missing)?;
    let data = window.run(data, data_words as usize).map_err(outside)?;
    // Relaxed: the tag says nothing about other words.
    Ok((Opened { words, at, data }, tag_word.load(Ordering::Relaxed)))
}

/// Makes the record: this thread may be the first to open it.
#[cold]
fn make(
    region: &MappedRegion,
    offset: u64,
    at: Offset,
    wanted: RecordTag,
) -> Result<(), RegionError> {
    let attachment = region.attachment();
    let core = attachment.core()?;
    let found = core
        .open_record(&attachment.me()?, at, region.end(), wanted, Patience::DEFAULT)
        .map_err(|error| attachment.error(error, region.name()))?;
    match found {
        FoundRecord::Wanted => Ok(()),
        FoundRecord::Other(found) => Err(RegionError::OtherRecord { offset, wanted, found }),
        FoundRecord::NoRecord(found) => Err(RegionError::NotARecord { offset, found }),
    }
}
