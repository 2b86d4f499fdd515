//! Copies in bulk between this program's memory and memory that others write at the same time.
//!
//! The language has no operation for that but atomics, one word each, which take two to four times as long as
//! `memcpy` where some hundreds of bytes are copied. What it does define is the call of code that it cannot
//! see into: that may do to shared memory what any other program may do to it. So longer copies are a call of
//! `memcpy` in assembly. (It copies as it likes: a byte may be read twice, and of bytes that somebody writes
//! meanwhile any mixture may come. Nothing here looks at a byte twice.)
//!
//! # Invariants
//! 1. The bytes of this program are its own, borrowed as such; those of the window are reached by their address
//!    only, and were shown to lie in the window.
//! 2. On memory that is no plain memory (of a device), and where there is no such call (under Miri, or on other
//!    processors), nobody comes here: copies are made word by word there.

/// How the bytes of a window may be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copies {
    /// As `memcpy` likes.
    Freely,
    /// By whole aligned words, each once.
    ByWords,
}

/// From so many bytes on a call is quicker than the words that are copied in line.
const WORTH_A_CALL: usize = 128;

/// Whether there is a call for copies here.
const HAS_CALL: bool =
    cfg!(all(not(miri), not(loom), any(target_arch = "x86_64", target_arch = "aarch64")));

impl Copies {
    /// Whether so many bytes are to be copied by a call.
    #[inline]
    pub(crate) const fn by_call(self, len: usize) -> bool {
        HAS_CALL && len >= WORTH_A_CALL && matches!(self, Self::Freely)
    }
}

/// Copies `to.len()` bytes out of shared memory.
///
/// # Safety
/// So many bytes from `from` must be mapped and readable.
#[inline]
pub(crate) unsafe fn copy_out(from: *const u8, to: &mut [u8]) {
    // SAFETY: `call_memcpy` wants bytes that can be read, which the caller answers for, and bytes that can be
    // written, which are borrowed for that; what was borrowed exclusively is no part of them.
    unsafe { call_memcpy(to.as_mut_ptr(), from, to.len()) }
}

/// Copies bytes into shared memory.
///
/// # Safety
/// So many bytes from `to` must be mapped and writable.
#[inline]
pub(crate) unsafe fn copy_in(to: *mut u8, from: &[u8]) {
    // SAFETY: as in `copy_out`, the other way round.
    unsafe { call_memcpy(to, from.as_ptr(), from.len()) }
}

/// # Safety
/// `len` bytes from `from` must be readable and `len` bytes from `to` writable, and none of both.
#[cfg(all(not(miri), target_arch = "x86_64"))]
#[inline]
unsafe fn call_memcpy(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: `asm!` wants what it does to be said: it calls a C function by the C convention, with its three
    // arguments, and that writes what the caller answers for. Without `nomem` the compiler takes any memory to
    // have been read and written that others could reach, which these bytes can.
    unsafe {
        core::arch::asm!(
            "call {memcpy}",
            memcpy = sym memcpy,
            inout("rdi") to => _,
            inout("rsi") from => _,
            inout("rdx") len => _,
            clobber_abi("C"),
        );
    }
}

/// # Safety
/// As for the other.
#[cfg(all(not(miri), target_arch = "aarch64"))]
#[inline]
unsafe fn call_memcpy(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: as for the other.
    unsafe {
        core::arch::asm!(
            "bl {memcpy}",
            memcpy = sym memcpy,
            inout("x0") to => _,
            inout("x1") from => _,
            inout("x2") len => _,
            clobber_abi("C"),
        );
    }
}

/// # Safety
/// As for the others. It is never called.
#[cfg(not(all(not(miri), any(target_arch = "x86_64", target_arch = "aarch64"))))]
#[inline]
unsafe fn call_memcpy(_: *mut u8, _: *const u8, _: usize) {}

#[cfg(all(not(miri), any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe extern "C" {
    fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8;
}
