//! The atomics of the walk: real ones, or those of a model checker.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

#[cfg(not(any(loom, shuttle)))]
pub(crate) use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Stands between a store and a load in Dekker's pattern: this thread stores one word and loads another, and a
/// second thread does so the other way round. All four accesses are `SeqCst`, which is enough by the language's
/// memory model. Loom treats `SeqCst` accesses as `AcqRel`, so for loom alone this is a `SeqCst` fence.
#[inline(always)]
pub(crate) fn store_then_load() {
    #[cfg(loom)]
    loom::sync::atomic::fence(Ordering::SeqCst);
}
