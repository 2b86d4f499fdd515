//! The atomics of the walk: those of the machine, or of a model checker.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

#[cfg(not(any(loom, shuttle)))]
pub(crate) use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Orders a store of ours before a load of ours, against another party that does the same the other way
/// round: Dekker's pattern. All four accesses are `SeqCst`, which is enough by the language's memory model.
/// Loom treats `SeqCst` accesses as `AcqRel`, so for it, and only for it, the order is spelt out as a fence.
#[inline(always)]
pub(crate) fn store_then_load() {
    #[cfg(loom)]
    loom::sync::atomic::fence(Ordering::SeqCst);
}
