//! Changes of translations that are noted under the manager's locks and made after them.
//!
//! A change waits for the kernel's lock of the address space, and other threads may keep that for long. So the manager
//! must not wait for it with an object locked. Until [`Reservation`] makes the change, the range may have come to
//! show something else; it knows, and then does nothing.

use std::sync::Arc;

use commonhold_mm::{MmuError, ObjectPage, VirtualSpan};
use smallvec::SmallVec;

use crate::{
    object::{UffdObject, mmu_error},
    reservation::{Reservation, Right},
};

/// How many changes take no memory from the heap.
const INLINE: usize = 8;

#[derive(Debug)]
struct Change {
    reservation: Arc<Reservation>,
    span: VirtualSpan,
    /// The object's number, and its page at the beginning of `span`.
    shown: (u64, ObjectPage),
    right: Right,
}

/// Changes of translations to pages of one object.
#[derive(Debug, Default)]
pub struct UffdGather {
    changes: SmallVec<[Change; INLINE]>,
}

impl UffdGather {
    /// Notes a change.
    pub(crate) fn note(
        &mut self,
        reservation: &Arc<Reservation>,
        span: VirtualSpan,
        (object, first): (&UffdObject, ObjectPage),
        right: Right,
    ) -> Result<(), MmuError> {
        self.changes.try_reserve(1).map_err(|_| MmuError::NoMemory)?;
        let (reservation, shown) = (Arc::clone(reservation), (object.number(), first));
        self.changes.push(Change { reservation, span, shown, right });
        Ok(())
    }

    /// Makes all changes, even if one fails, and returns the first error.
    pub(crate) fn make(self) -> Result<(), MmuError> {
        let mut said = Ok(());
        for Change { reservation, span, shown, right } in self.changes {
            said = said.and(reservation.take_away(span, shown, right).map_err(mmu_error));
        }
        said
    }
}
