//! What locks protect: values in shared bytes, and parts of them.
//!
//! # What it owns
//! How a value is copied out of shared bytes and into them, as a whole or in part.
//!
//! # Invariants
//! 1. Callers get copies of shared bytes, never references to them. A peer that was declared dead, or that ignores
//!    the lock, can tear a copy, and nothing worse.
//! 2. The place of a part is checked once, when the part is made. Reading and writing it cannot fail after that.
//! 3. A process that was declared dead writes nothing more. What it sets is dropped; freeing the lock reports that,
//!    and so does every lock that it takes later.
//! 4. Large values do not go through the stack: callers use parts of them, or a box.

mod guard;
mod slice;
mod value;

pub(crate) use guard::{reads, writes};
pub use slice::{Cursor, Slice};
pub use value::Value;

use std::{
    alloc::Layout,
    fmt,
    marker::PhantomData,
    ptr::NonNull,
    sync::atomic::{Ordering, compiler_fence},
};

use commonhold_window::{Door, Run};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use crate::{Field, RegionError, attachment::LockContext, lock::change::SeqChange};

/// A type whose values may lie in shared bytes: without pointers or padding, and with every bit pattern a valid
/// value. It is implemented for all types that have these traits of [`zerocopy`](crate::zerocopy);
/// [`plain!`](crate::plain) derives them.
///
/// # Examples
/// ```
/// use commonhold::{LockResult, Mutex, Plain, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-plain-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// fn reset<T: Plain + Default>(value: &Mutex<T>) -> LockResult<()> {
///     // All of it is written, so it does not matter what a dead owner left.
///     value.lock_repairing(|_| Ok(()))?.set(T::default());
///     Ok(())
/// }
/// let limits = space.record::<Mutex<[u32; 3]>>("limits")?;
/// reset(&limits)?;
/// # drop(limits);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
pub trait Plain: FromBytes + IntoBytes + Immutable + 'static {}

impl<T: FromBytes + IntoBytes + Immutable + 'static> Plain for T {}

/// Larger values are not passed by value.
const MOST_BY_VALUE: usize = 64 << 10;
/// Larger values are copied into a box for `with` and `with_mut`.
const MOST_ON_STACK: usize = 4 << 10;

/// Access to a [`Part`] or a [`Slice`] for reading only.
///
/// # Examples
/// ```
/// use commonhold::{Reading, RwLock, Slice, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-reading-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// fn sum(row: Slice<'_, u64, Reading>) -> u64 {
///     row.iter().sum()
/// }
/// let table = space.record::<RwLock<[u64; 8]>>("table")?;
/// let guard = table.read()?; // an error if a writer died half way
/// println!("{}", sum(guard.slice(..4)?));
/// # drop(guard);
/// # drop(table);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Reading;

/// Access to a [`Part`] or a [`Slice`] for reading and writing.
///
/// # Examples
/// ```
/// use commonhold::{RwLock, Slice, Space, Writing};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-writing-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// fn fill(row: Slice<'_, u64, Writing>) {
///     row.fill(&7);
/// }
/// let table = space.record::<RwLock<[u64; 8]>>("table")?;
/// let guard = table.write_repairing(|table| {
///     fill(table.slice(..)?);
///     Ok(())
/// })?;
/// fill(guard.slice(..)?);
/// guard.unlock()?;
/// # drop(table);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Writing;

/// What has to be checked before a write.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Gate<'g> {
    /// That no peer has declared this process dead.
    Context(&'g LockContext<'g>),
    /// The same; and before the first byte, the readers of a sequence lock are kept out.
    Change(&'g SeqChange<'g>),
}

impl<'g> Gate<'g> {
    #[inline]
    fn is_forked(self) -> bool {
        match self {
            Self::Context(context) => context.is_forked(),
            Self::Change(change) => change.is_forked(),
        }
    }

    #[inline]
    fn opens(self) -> bool {
        match self {
            Self::Context(context) => context.is_live_here(),
            Self::Change(change) => change.begin(),
        }
    }
}

/// Bytes in a run of words, from `from` on. The code that makes one has checked that they lie in the run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span<'g> {
    run: Run<'g>,
    from: usize,
    gate: Gate<'g>,
}

impl<'g> Span<'g> {
    #[inline]
    pub(crate) const fn new(run: Run<'g>, gate: Gate<'g>) -> Self {
        Self { run, from: 0, gate }
    }

    /// The part that begins `offset` bytes further on. The caller has checked that it lies in these bytes.
    #[inline]
    const fn on(self, offset: usize) -> Self {
        Self { from: self.from.saturating_add(offset), ..self }
    }

    #[inline(always)]
    fn read(self, to: &mut [u8]) {
        if self.gate.is_forked() {
            in_a_child();
        }
        let read = self.run.read(self.from, to);
        debug_assert!(read.is_ok(), "a part that does not lie in its whole");
    }

    #[inline(always)]
    fn write(self, bytes: &[u8]) {
        if self.gate.opens() {
            // Repairs rely on the order of writes: what a dead owner wrote is there in the order of its `set`
            // calls, up to some instant. (Of the bytes of one `set`, any may be there.)
            compiler_fence(Ordering::Release);
            let written = self.run.write(self.from, bytes);
            debug_assert!(written.is_ok(), "a part that does not lie in its whole");
        }
    }

    const fn as_ptr(self) -> *mut u8 {
        self.run.as_ptr().wrapping_add(self.from)
    }
}

/// In a forked child the memory is not mapped, and reading has no error to return.
#[cold]
#[allow(clippy::panic, reason = "the documented panic of reading in a forked child")]
fn in_a_child() -> ! {
    panic!("a guard of the parent process was used in a forked child: open the space anew there")
}

/// A value in shared bytes, or a part of one. It borrows the guard that it comes from.
///
/// # Panics
/// Reading panics in a child made by `fork`: the guard is the parent's, and the memory is not mapped in the child.
///
/// # Examples
/// ```
/// use commonhold::{Mutex, field};
///
/// commonhold::plain! {
///     struct Account { balance: i64, history: [i64; 31] }
/// }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-part-{}", std::process::id());
/// # let space = commonhold::Space::open_or_format(&url)?;
/// let account = space.record::<Mutex<Account>>("account")?;
/// let guard = account.lock()?;
/// let balance = guard.field(field!(Account, balance));
/// balance.set(balance.get() + 10);
/// guard.field(field!(Account, history)).at(3)?.set(10);
/// # drop(guard);
/// # drop(account);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
pub struct Part<'g, T, M = Writing> {
    span: Span<'g>,
    of: PhantomData<(T, M)>,
    /// A part stays in the thread of its guard.
    not_send: PhantomData<*const ()>,
}

impl<T, M> Clone for Part<'_, T, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, M> Copy for Part<'_, T, M> {}

impl<T, M> fmt::Debug for Part<'_, T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The type and not the value: printing must not read what a lock protects.
        f.write_str(std::any::type_name::<T>())
    }
}

impl<'g, T: Plain, M> Part<'g, T, M> {
    /// The value in these bytes. The caller has checked that there are enough of them.
    #[inline]
    pub(crate) const fn new(span: Span<'g>) -> Self {
        Self { span, of: PhantomData, not_send: PhantomData }
    }

    /// A copy of the value.
    #[inline]
    #[must_use]
    pub fn get(&self) -> T {
        const {
            assert!(
                size_of::<T>() <= MOST_BY_VALUE,
                "too large to be copied as one value: use `get_boxed`, `with`, or parts of it"
            );
        }
        let mut value = T::new_zeroed();
        self.span.read(value.as_mut_bytes());
        value
    }

    /// A copy of the value in a box, for large values.
    #[must_use]
    pub fn get_boxed(&self) -> Box<T> {
        let mut value = boxed::<T>();
        self.span.read(value.as_mut().as_mut_bytes());
        value
    }

    /// Calls `look` with a copy of the value, and returns its result.
    #[inline]
    pub fn with<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        if size_of::<T>() <= MOST_ON_STACK {
            self.with_on_stack(look)
        } else {
            look(&self.get_boxed())
        }
    }

    /// A function of its own: without optimisation, the frame of a function has room for the variables of all its
    /// branches.
    #[inline]
    fn with_on_stack<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        let mut value = T::new_zeroed();
        self.span.read(value.as_mut_bytes());
        look(&value)
    }

    /// A [field](crate::field) of the value.
    #[inline]
    #[must_use]
    pub const fn field<F: Plain>(&self, field: Field<T, F>) -> Part<'g, F, M> {
        Part::new(self.span.on(field.offset()))
    }
}

impl<'g, T: Plain> Part<'g, T, Writing> {
    /// Writes the value.
    #[inline]
    pub fn set(&self, value: T) {
        const {
            assert!(
                size_of::<T>() <= MOST_BY_VALUE,
                "too large to be handed over as one value: use `set_from`, `with_mut`, or parts of it"
            );
        }
        self.span.write(value.as_bytes());
    }

    /// Writes the value from a reference, for large values.
    #[inline]
    pub fn set_from(&self, value: &T) {
        self.span.write(value.as_bytes());
    }

    /// Writes the value and returns what was there before.
    #[inline]
    pub fn replace(&self, value: T) -> T {
        let before = self.get();
        self.set(value);
        before
    }

    /// Calls `change` with a copy of the value, and writes the copy back. If `change` panics, nothing is written.
    #[inline]
    pub fn with_mut<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        if size_of::<T>() <= MOST_ON_STACK {
            self.with_mut_on_stack(change)
        } else {
            let mut value = self.get_boxed();
            let result = change(&mut value);
            self.span.write(value.as_ref().as_bytes());
            result
        }
    }

    /// As [`with_on_stack`](Self::with_on_stack).
    #[inline]
    fn with_mut_on_stack<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let mut value = T::new_zeroed();
        self.span.read(value.as_mut_bytes());
        let result = change(&mut value);
        self.span.write(value.as_bytes());
        result
    }

    /// The address of the value, for callers that make a reference by `unsafe` code of their own.
    #[must_use]
    pub fn door(self) -> Door<'g, T> {
        const { assert!(align_of::<T>() <= 8) };
        Door::new(NonNull::new(self.span.as_ptr().cast()).unwrap_or(NonNull::dangling()))
    }
}

impl<'g, F: Plain, M, const N: usize> Part<'g, [F; N], M> {
    /// The element with this index.
    ///
    /// # Errors
    /// [`RegionError::OutOfBounds`] if there is none.
    #[inline]
    pub fn at(&self, index: usize) -> Result<Part<'g, F, M>, RegionError> {
        self.as_slice().at(index)
    }

    /// The elements in this range.
    ///
    /// # Errors
    /// [`RegionError::OutOfBounds`] if there are not so many.
    pub fn slice(
        &self,
        range: impl std::ops::RangeBounds<usize>,
    ) -> Result<Slice<'g, F, M>, RegionError> {
        self.as_slice().slice(range)
    }

    /// All elements.
    #[inline]
    #[must_use]
    pub const fn as_slice(&self) -> Slice<'g, F, M> {
        Slice::new(self.span, N)
    }
}

fn boxed<T: FromZeros>() -> Box<T> {
    match T::new_box_zeroed() {
        Ok(value) => value,
        Err(_) => std::alloc::handle_alloc_error(Layout::new::<T>()),
    }
}
