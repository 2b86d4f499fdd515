//! References to shared bytes, for callers that can guarantee that no other thread uses the bytes.

use core::{fmt, marker::PhantomData, ptr::NonNull};

/// The address of a `T` in shared memory, which the holder of a lock has for itself.
///
/// All other access is by copies: a peer that was declared dead, or that breaks the rules, may write bytes
/// while another holds their lock. A caller that trusts all peers can turn the address into a reference.
///
/// # Examples
/// A guard gives one, by `door`, of what its lock protects:
/// ```
/// # use commonhold_window::Door;
/// # use std::ptr::NonNull;
/// fn sort(door: Door<'_, [u64; 3]>) {
///     // SAFETY: all processes that use the lock are trusted, and none of them is declared dead while it is stopped.
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
    /// nothing else may read or write the bytes: no other thread of this process by another handle; no peer that was
    /// declared dead while it was stopped, and runs again (so the space must have no lease); and no peer that writes
    /// without the lock. The memory must be ordinary memory.
    #[must_use]
    pub unsafe fn into_mut(self) -> &'g mut T {
        let mut to = self.to;
        // SAFETY: `as_mut` wants an aligned, valid value without other users for the lifetime: the caller guarantees
        // that.
        unsafe { to.as_mut() }
    }
}
