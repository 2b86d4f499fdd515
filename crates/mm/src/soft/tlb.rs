//! The translations that one processor remembers.
//!
//! The processor adds and uses them. The machine makes it forget some, and waits for an access that is under way.

use alloc::{collections::BTreeMap, sync::Arc};

use lock_api::{Mutex, RawMutex};

use super::{frame::Frame, table::Entry};
use crate::{VirtualPage, VirtualSpan};

/// The translations that one processor remembers, even if the page tables have changed since.
pub(super) struct Tlb<X> {
    /// By the number of the space, and the page. Locked during each access.
    pub(super) remembered: Mutex<X, BTreeMap<(u64, VirtualPage), Entry<X>>>,
}

impl<X: RawMutex> Tlb<X> {
    pub(super) fn new() -> Self {
        Self { remembered: Mutex::new(BTreeMap::new()) }
    }

    /// Forgets the translations to a frame.
    pub(super) fn forget_frame(&self, frame: &Arc<Frame<X>>) {
        self.remembered.lock().retain(|_, entry| !Arc::ptr_eq(&entry.frame, frame));
    }

    /// Forgets the translations of `span` in the space with this number.
    pub(super) fn forget(&self, space: u64, span: VirtualSpan) {
        let (first, end) = ((space, span.first()), (space, span.end()));
        let mut remembered = self.remembered.lock();
        while let Some((&key, _)) = remembered.range(first..end).next() {
            remembered.remove(&key);
        }
    }
}
