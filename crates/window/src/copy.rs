//! Copies in bulk between this program's memory and memory that others write at the same time.
//!
//! For that the language has only atomics, one word each. They take two to four times as long as
//! `memcpy` to copy some hundreds of bytes. But a call of code that the compiler cannot see into is defined:
//! that code may do to shared memory what any other program may do to it. So longer copies are a call of
//! `memcpy` in assembly. (`memcpy` may read a byte twice, and copies any mixture of old and new bytes if another
//! program writes them meanwhile. No code here depends on a byte that was read twice.)
//!
//! # Invariants
//! 1. The bytes of this program are borrowed as usual. Those of the window are accessed by their address
//!    only, and were shown to lie in the window.
//! 2. Memory of a device, and programs without such a call (under Miri, or on other processors), do not use this
//!    file's call: there, copies are made word by word.

/// How the bytes of a window may be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copies {
    /// In any way, as `memcpy` does.
    Freely,
    /// By whole aligned words, each once.
    ByWords,
}

/// From so many bytes on, a call is quicker than copying word by word.
const WORTH_A_CALL: usize = 128;

/// Whether this program has a call for copies.
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
/// `to.len()` bytes from `from` on must be mapped and readable.
#[inline]
pub(crate) unsafe fn copy_out(from: *const u8, to: &mut [u8]) {
    // SAFETY: `call_memcpy` wants bytes to read, for which the caller vouches, and bytes to write that do not overlap
    // them: `to` is borrowed exclusively, so no part of it is shared memory.
    unsafe { call_memcpy(to.as_mut_ptr(), from, to.len()) }
}

/// Copies bytes into shared memory.
///
/// # Safety
/// `from.len()` bytes from `to` on must be mapped and writable.
#[inline]
pub(crate) unsafe fn copy_in(to: *mut u8, from: &[u8]) {
    // SAFETY: as in `copy_out`, in the other direction: the caller vouches for `to`; `from` is borrowed, so no part of
    // it is shared memory.
    unsafe { call_memcpy(to, from.as_ptr(), from.len()) }
}

/// # Safety
/// `len` bytes from `from` must be readable, and `len` bytes from `to` writable; they must not overlap.
#[cfg(all(not(miri), target_arch = "x86_64"))]
#[inline]
unsafe fn call_memcpy(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: `asm!` wants its operands and options to describe all that the code does. It calls a C function by the
    // C convention with three arguments, and that function writes only bytes that the caller vouches for. Without
    // `nomem`, the compiler assumes that the code reads and writes any memory that other code could reach, as these
    // bytes are.
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
/// As for the function of x86-64.
#[cfg(all(not(miri), target_arch = "aarch64"))]
#[inline]
unsafe fn call_memcpy(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: as in the function of x86-64.
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
/// As for the function of x86-64. It is never called.
#[cfg(not(all(not(miri), any(target_arch = "x86_64", target_arch = "aarch64"))))]
#[inline]
unsafe fn call_memcpy(_: *mut u8, _: *const u8, _: usize) {}

#[cfg(all(not(miri), any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe extern "C" {
    fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8;
}
