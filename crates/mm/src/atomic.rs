//! Atomics: those of the processor, or in the shuttle suite those of shuttle, which decides which thread runs next.

#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[cfg(not(shuttle))]
pub(crate) use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
