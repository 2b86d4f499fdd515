//! Shared values whose allocation may fail without ending the program.
//!
//! `Arc::new` has no stable fallible form yet. So memory of the same size is allocated first, fallibly, and freed
//! at once: the allocator then has a block that fits. Another thread may take it before `Arc::new` does. A kernel of
//! several processors that must survive that as well lets its allocator keep [`Manager::RESERVE`] bytes for each
//! processor, which only allocations that may not fail get.

use alloc::{sync::Arc, vec::Vec};

use crate::{
    Error, Manager, Mmu, budget::BudgetCore, budget::Budgets, manager::Core, object::ObjectCore,
    reads::size_of_request, reference::Reference, space::SpaceCore,
};

/// As large as the block of an `Arc`: two counters, and the value.
type Block<T> = ([usize; 2], T);

/// `value` in an `Arc`.
///
/// # Errors
/// [`Error::NoMemory`]; the value is dropped.
pub(crate) fn share<T>(value: T) -> Result<Arc<T>, Error> {
    let mut room = Vec::<Block<T>>::new();
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

impl<M: Mmu> Manager<M> {
    /// Bytes of the largest allocation of the manager that may not fail. Just before each, an allocation of the same
    /// size has succeeded and was freed; only another thread can have taken that memory since. All other allocations
    /// fail with [`Error::NoMemory`].
    pub const RESERVE: usize = largest(&[
        size_of::<Block<Core<M>>>(),
        size_of::<Block<Budgets<M>>>(),
        size_of::<Block<BudgetCore<M>>>(),
        size_of::<Block<ObjectCore<M>>>(),
        size_of::<Block<SpaceCore<M>>>(),
        size_of::<Block<Reference<M>>>(),
        size_of::<Block<M::Space>>(),
        size_of_request::<M>(),
    ]);
}

const fn largest(mut sizes: &[usize]) -> usize {
    let mut largest = 0;
    while let [size, rest @ ..] = sizes {
        if *size > largest {
            largest = *size;
        }
        sizes = rest;
    }
    largest
}
