//! The way to references to shared bytes, for those who answer for it.

use core::{fmt, marker::PhantomData, ptr::NonNull};

/// The address of a `T` in shared memory that its holder has to itself.
///
/// All other access is by copies, since a neighbour that was declared dead, or breaks the rules, may write bytes
/// whoever holds their lock. Who trusts its neighbours can have a reference instead.
///
/// # Examples
/// A guard gives one, by `door`, of what its lock protects:
/// ```
/// # use commonhold_window::Door;
/// # use std::ptr::NonNull;
/// fn sort(door: Door<'_, [u64; 3]>) {
///     // SAFETY: those who have the lock are trusted, and none of them is stopped and declared dead.
///     unsafe { door.into_mut() }.sort();
/// }
/// # let mut numbers = [3, 1, 2];
/// # sort(Door::new(NonNull::from(&mut numbers)));
/// # assert_eq!(numbers, [1, 2, 3]);
/// ```
pub struct Door<'g, T: ?Sized> {
    to: NonNull<T>,
    of: PhantomData<&'g mut T>,
}

impl<T: ?Sized> fmt::Debug for Door<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Door").field(&self.to).finish()
    }
}

impl<'g, T: ?Sized> Door<'g, T> {
    /// The door to the value at `to`, for as long as `'g`.
    #[must_use]
    pub const fn new(to: NonNull<T>) -> Self {
        Self { to, of: PhantomData }
    }

    /// The address.
    #[must_use]
    pub const fn as_ptr(&self) -> *mut T {
        self.to.as_ptr()
    }

    /// The value itself.
    ///
    /// # Safety
    /// The address must be that of a valid `T`, aligned and mapped for `'g`. For as long as the reference lives,
    /// nobody else may read or write the bytes: no other thread by another handle; no neighbour, also none that was
    /// declared dead while it was stopped and goes on (so: no lease), and none that writes where it holds no lock.
    /// The memory must be ordinary memory.
    #[must_use]
    pub unsafe fn into_mut(self) -> &'g mut T {
        let mut to = self.to;
        // SAFETY: `as_mut` wants what the caller answers for.
        unsafe { to.as_mut() }
    }
}
