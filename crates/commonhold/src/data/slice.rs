//! Many values in a row.

use std::{
    alloc::Layout,
    fmt, io,
    marker::PhantomData,
    ops::{Bound, RangeBounds},
    ptr::NonNull,
};

use commonhold_window::Door;
use zerocopy::IntoBytes;

use super::{Part, Plain, Reading, Span, Writing};
use crate::RegionError;

/// Values in a row in shared bytes. It borrows the guard that it comes from.
///
/// # Examples
/// ```
/// use commonhold::Mutex;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-slice-{}", std::process::id());
/// # let space = commonhold::Space::open_or_format(&url)?;
/// let table = space.record::<Mutex<[u32; 1000]>>("table")?;
/// let guard = table.lock()?;
/// guard.slice(10..14)?.copy_from(&[1, 2, 3, 4])?;
/// assert_eq!(guard.slice(..20)?.iter().sum::<u32>(), 10);
/// # drop(guard);
/// # drop(table);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
pub struct Slice<'g, F, M = Writing> {
    span: Span<'g>,
    len: usize,
    of: PhantomData<(F, M)>,
    not_send: PhantomData<*const ()>,
}

impl<F, M> Clone for Slice<'_, F, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F, M> Copy for Slice<'_, F, M> {}

impl<F, M> fmt::Debug for Slice<'_, F, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}; {}]", std::any::type_name::<F>(), self.len)
    }
}

impl<'g, F: Plain, M> Slice<'g, F, M> {
    #[inline]
    pub(crate) const fn new(span: Span<'g>, len: usize) -> Self {
        Self { span, len, of: PhantomData, not_send: PhantomData }
    }

    /// How many there are.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn outside(&self, first: usize, count: usize) -> RegionError {
        let bytes = |elements: usize| (elements as u64).saturating_mul(size_of::<F>() as u64);
        RegionError::OutOfBounds { offset: bytes(first), len: bytes(count), size: bytes(self.len) }
    }

    /// The element with this index.
    ///
    /// # Errors
    /// [`RegionError::OutOfBounds`] if there is none.
    #[inline]
    pub fn at(&self, index: usize) -> Result<Part<'g, F, M>, RegionError> {
        if index >= self.len {
            return Err(self.outside(index, 1));
        }
        Ok(Part::new(self.span.on(index * size_of::<F>())))
    }

    /// The elements in this range.
    ///
    /// # Errors
    /// [`RegionError::OutOfBounds`] if there are not so many.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Result<Self, RegionError> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => self.len,
        };
        if start > end || end > self.len {
            return Err(self.outside(start, end.saturating_sub(start)));
        }
        Ok(Self::new(self.span.on(start * size_of::<F>()), end - start))
    }

    /// Copies of the elements, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = F> + use<'g, F, M> {
        let whole = *self;
        (0..self.len).filter_map(move |index| whole.at(index).ok()).map(|part| part.get())
    }

    /// The elements, `size` at a time; the last ones may be fewer.
    pub fn chunks(&self, size: usize) -> impl Iterator<Item = Self> + use<'g, F, M> {
        let (whole, size) = (*self, size.max(1));
        (0..self.len).step_by(size).filter_map(move |start| {
            whole.slice(start..start.saturating_add(size).min(whole.len)).ok()
        })
    }

    /// Copies all elements out, in one go.
    ///
    /// # Errors
    /// [`RegionError::OutOfBounds`] if there are more or fewer than `to` has; nothing has been copied then.
    pub fn copy_to(&self, to: &mut [F]) -> Result<(), RegionError> {
        if to.len() != self.len {
            return Err(self.outside(0, to.len()));
        }
        self.span.read(to.as_mut_bytes());
        Ok(())
    }

    /// Copies of all elements, in one go.
    #[must_use]
    pub fn to_vec(&self) -> Vec<F> {
        let mut copy = match F::new_vec_zeroed(self.len) {
            Ok(copy) => copy,
            Err(_) => std::alloc::handle_alloc_error(Layout::new::<F>()),
        };
        self.span.read(copy.as_mut_slice().as_mut_bytes());
        copy
    }
}

impl<'g, F: Plain> Slice<'g, F, Writing> {
    /// Copies all elements in, in one go.
    ///
    /// # Errors
    /// [`RegionError::OutOfBounds`] if there are more or fewer than `from` has; nothing has been written then.
    pub fn copy_from(&self, from: &[F]) -> Result<(), RegionError> {
        if from.len() != self.len {
            return Err(self.outside(0, from.len()));
        }
        self.span.write(from.as_bytes());
        Ok(())
    }

    /// Writes the same value to all elements.
    pub fn fill(&self, value: &F) {
        for index in 0..self.len {
            self.span.on(index * size_of::<F>()).write(value.as_bytes());
        }
    }

    /// The address of the elements, for callers that make references by `unsafe` code of their own.
    #[must_use]
    pub fn door(self) -> Door<'g, [F]> {
        const { assert!(align_of::<F>() <= 8) };
        let first = NonNull::new(self.span.as_ptr().cast::<F>()).unwrap_or(NonNull::dangling());
        Door::new(NonNull::slice_from_raw_parts(first, self.len))
    }
}

impl<'g, M> Slice<'g, u8, M> {
    /// The bytes as a file, with a position to read, write and seek.
    #[must_use]
    pub const fn cursor(&self) -> Cursor<'g, M> {
        Cursor { bytes: *self, at: 0 }
    }
}

/// Bytes in shared memory as a file, whose length is fixed.
///
/// # Examples
/// ```
/// use std::io::{Read as _, Seek as _, Write as _};
/// use commonhold::{Mutex, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-cursor-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let text = space.record::<Mutex<[u8; 64]>>("text")?.repaired_by(|text| {
///     text.slice(..)?.fill(&0);
///     Ok(())
/// });
/// let guard = text.lock()?;
/// let mut file = guard.slice(..)?.cursor();
/// write!(file, "{} of {}", 3, 4)?;
/// file.rewind()?;
/// let mut read = [0; 6];
/// file.read_exact(&mut read)?;
/// assert_eq!(&read, b"3 of 4");
/// # drop(guard);
/// # drop(text);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Cursor<'g, M = Writing> {
    bytes: Slice<'g, u8, M>,
    at: u64,
}

impl<'g, M> Cursor<'g, M> {
    /// Where the next byte is read or written.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.at
    }

    /// At most `wanted` bytes from the position on, as many as there are. Moves the position behind them.
    fn next(&mut self, wanted: usize) -> Slice<'g, u8, M> {
        let start = usize::try_from(self.at).unwrap_or(usize::MAX).min(self.bytes.len);
        let end = start.saturating_add(wanted).min(self.bytes.len);
        self.at = self.at.saturating_add((end - start) as u64);
        self.bytes.slice(start..end).unwrap_or(Slice::new(self.bytes.span, 0))
    }
}

impl io::Read for Cursor<'_, Reading> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        read(self, to)
    }
}

impl io::Read for Cursor<'_, Writing> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        read(self, to)
    }
}

fn read<M>(cursor: &mut Cursor<'_, M>, to: &mut [u8]) -> io::Result<usize> {
    let part = cursor.next(to.len());
    if let Some(to) = to.get_mut(..part.len()) {
        part.copy_to(to).map_err(io::Error::other)?;
    }
    Ok(part.len())
}

impl io::Write for Cursor<'_, Writing> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        let part = self.next(from.len());
        if let Some(from) = from.get(..part.len()) {
            part.copy_from(from).map_err(io::Error::other)?;
        }
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<M> io::Seek for Cursor<'_, M> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let at = match to {
            io::SeekFrom::Start(at) => Some(at),
            io::SeekFrom::End(by) => (self.bytes.len as u64).checked_add_signed(by),
            io::SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "a place before the first byte")
        })?;
        Ok(self.at)
    }
}
