//! Shared values whose allocation may fail without ending the program.
//!
//! `Arc::new` has no stable fallible form yet. So memory of the same size is allocated first, fallibly, and freed
//! at once: the allocator then has a block that fits. Another thread may take it before `Arc::new` does; a program
//! that must survive that as well keeps a reserve for the allocator's error handler.

use alloc::{sync::Arc, vec::Vec};

use crate::Error;

/// `value` in an `Arc`.
///
/// # Errors
/// [`Error::NoMemory`]; the value is dropped.
pub(crate) fn share<T>(value: T) -> Result<Arc<T>, Error> {
    // As large as the block of an `Arc`: two counters, and the value.
    let mut room = Vec::<([usize; 2], T)>::new();
    room.try_reserve_exact(1)?;
    // Without `black_box`, the compiler sees that the memory is unused, and drops the allocation.
    drop(core::hint::black_box(room));
    Ok(Arc::new(value))
}

/// Whether there is memory for a `Box` of this type. The same holds as for [`share`].
pub(crate) fn has_room<T>() -> bool {
    let mut room = Vec::<T>::new();
    let found = room.try_reserve_exact(1).is_ok();
    // As above.
    drop(core::hint::black_box(room));
    found
}
