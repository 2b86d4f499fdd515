//! The functions that the compiler expects in every program: copy, fill and compare bytes, and a name for unwinding.
//!
//! On Linux the byte functions come from the C library. Here each is a single instruction: slower than possible for
//! large copies, but obviously right. If they were loops in Rust, the compiler would replace each loop by a call of
//! the same function.

use core::arch::asm;

/// Copies bytes between ranges that do not overlap.
///
/// # Safety
/// As in C: `len` bytes at `from` are readable, and at `to` writable.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: `rep movsb` wants what this function demands of its caller; the direction flag is clear
    // everywhere in Rust.
    unsafe {
        asm!("rep movsb", inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags));
    }
    to
}

/// Copies bytes between ranges that may overlap.
///
/// # Safety
/// As for [`memcpy`].
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if to.addr().wrapping_sub(from.addr()) >= len {
        // SAFETY: `memcpy`, which goes upwards, wants readable and writable bytes, as our caller
        // promised; going upwards is right unless `to` lies within the bytes to be copied.
        return unsafe { memcpy(to, from, len) };
    }
    let (last_to, last_from) = (to.wrapping_add(len - 1), from.wrapping_add(len - 1));
    // SAFETY: `rep movsb` wants what this function demands of its caller, here from the last byte
    // down; the direction flag is cleared again.
    unsafe {
        asm!("std", "rep movsb", "cld",
            inout("rcx") len => _, inout("rdi") last_to => _, inout("rsi") last_from => _,
            options(nostack));
    }
    to
}

/// Fills bytes.
///
/// # Safety
/// As in C: `len` bytes at `to` are writable.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, len: usize) -> *mut u8 {
    // SAFETY: `rep stosb` wants what this function demands of its caller.
    unsafe {
        asm!("rep stosb", inout("rcx") len => _, inout("rdi") to => _, in("eax") value,
            options(nostack, preserves_flags));
    }
    to
}

/// Compares bytes. The result is less than, equal to or greater than 0, like the first difference.
///
/// # Safety
/// As in C: `len` bytes are readable at both places.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, len: usize) -> i32 {
    let difference: i32;
    // SAFETY: `repe cmpsb` wants what this function demands of its caller. Without bytes it changes no
    // flag, and `xor` has left "equal".
    unsafe {
        asm!("xor eax, eax", "repe cmpsb", "je 2f",
            "movzx eax, byte ptr [rsi - 1]", "movzx ecx, byte ptr [rdi - 1]", "sub eax, ecx", "2:",
            inout("rcx") len => _, inout("rsi") one => _, inout("rdi") other => _,
            out("eax") difference, options(nostack, readonly));
    }
    difference
}

/// Whether bytes differ.
///
/// # Safety
/// As for [`memcmp`].
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, len: usize) -> i32 {
    // SAFETY: `memcmp` wants readable bytes at both places, as our caller promised.
    unsafe { memcmp(one, other, len) }
}

/// The precompiled `core` refers to it for unwinding. Nothing here unwinds, so it is never called.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
