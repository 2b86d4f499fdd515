//! Allocations that fail.
//!
//! Only allocations of the memory manager may fail: those of the checker, of its pagers and of the machine are made
//! [`aside`](Shortage::aside).

use core::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
};

/// Limits the memory that is left, in bytes; `None` for no limit. Returns how much was left before.
pub type Limit = fn(Option<usize>) -> usize;

/// Short memory, on a machine of one thread. The default limits nothing.
#[derive(Default)]
pub struct Shortage {
    limit: Option<Limit>,
    limited: AtomicBool,
}

impl Shortage {
    /// Limits memory by this function, which sets the limit of the allocator.
    #[must_use]
    pub const fn new(limit: Limit) -> Self {
        Self { limit: Some(limit), limited: AtomicBool::new(false) }
    }

    /// Makes a call of the memory manager with `bytes` bytes left.
    pub(crate) fn with<T>(&self, bytes: usize, call: impl FnOnce() -> T) -> T {
        let Some(limit) = self.limit else { return call() };
        self.limited.store(true, Ordering::Relaxed);
        limit(Some(bytes));
        let result = call();
        limit(None);
        self.limited.store(false, Ordering::Relaxed);
        result
    }

    /// Runs code that is not the memory manager's, without the limit.
    pub fn aside<T>(&self, call: impl FnOnce() -> T) -> T {
        let Some(limit) = self.limit else { return call() };
        if !self.limited.swap(false, Ordering::Relaxed) {
            return call();
        }
        let left = limit(None);
        let result = call();
        limit(Some(left));
        self.limited.store(true, Ordering::Relaxed);
        result
    }
}

impl fmt::Debug for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shortage").field("limited", &self.limited).finish_non_exhaustive()
    }
}
