//! Bytes that must not be touched, as AddressSanitizer knows them. Without it, nothing happens.

#[cfg(asan)]
mod asan {
    use std::sync::atomic::AtomicU64;

    unsafe extern "C" {
        fn __asan_poison_memory_region(address: *const u8, size: usize);
        fn __asan_unpoison_memory_region(address: *const u8, size: usize);
    }

    pub(crate) fn forbid(words: &[AtomicU64]) {
        // SAFETY: the runtime needs a range of the caller's memory: this is one, and only the code under test reads
        // it.
        unsafe { __asan_poison_memory_region(words.as_ptr().cast(), size_of_val(words)) }
    }

    pub(crate) fn allow(words: &[AtomicU64]) {
        // SAFETY: as above; the whole of it was allocated as words.
        unsafe { __asan_unpoison_memory_region(words.as_ptr().cast(), size_of_val(words)) }
    }
}

#[cfg(asan)]
pub(crate) use asan::{allow, forbid};

#[cfg(not(asan))]
pub(crate) fn forbid(_: &[std::sync::atomic::AtomicU64]) {}

#[cfg(not(asan))]
pub(crate) fn allow(_: &[std::sync::atomic::AtomicU64]) {}
