//! Shared values, whose making does not end the program if there is no memory for them.
//!
//! `Arc::new` has no fallible sister yet. So memory of the same size is asked for first, and given back at
//! once: an allocator that has just had a block back has one. Between the two another thread may take it;
//! whoever must be safe from that as well keeps a reserve for the allocator's error handler.

use alloc::{sync::Arc, vec::Vec};

use crate::Error;

/// `value`, to be shared.
///
/// # Errors
/// [`Error::NoMemory`]; the value is dropped.
pub(crate) fn share<T>(value: T) -> Result<Arc<T>, Error> {
    // As large as what `Arc` makes: two counters, and the value.
    let mut room = Vec::<([usize; 2], T)>::new();
    room.try_reserve_exact(1)?;
    // Or else the compiler sees that nobody needs this memory, and does not ask for it.
    drop(core::hint::black_box(room));
    Ok(Arc::new(value))
}
