//! Instructions for which Rust has no functions: ports, `cpuid`, the time stamp counter, random numbers.
//!
//! All are safe to call: a port cannot reach this program's memory, since no device here is set up to write there.

use core::arch::{asm, x86_64::__cpuid};

/// Writes a byte to a port.
pub(crate) fn out8(port: u16, value: u8) {
    // SAFETY: `out` touches no memory of ours; no device is set up to do so on its behalf.
    unsafe {
        asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags))
    };
}

/// Writes two bytes to a port.
pub(crate) fn out16(port: u16, value: u16) {
    // SAFETY: as in `out8`.
    unsafe {
        asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack, preserves_flags))
    };
}

/// Writes four bytes to a port.
pub(crate) fn out32(port: u16, value: u32) {
    // SAFETY: as in `out8`.
    unsafe {
        asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags))
    };
}

/// Reads a byte from a port.
pub(crate) fn in8(port: u16) -> u8 {
    let value;
    // SAFETY: as in `out8`.
    unsafe {
        asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags))
    };
    value
}

/// Reads four bytes from a port.
pub(crate) fn in32(port: u16) -> u32 {
    let value;
    // SAFETY: as in `out8`.
    unsafe {
        asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags))
    };
    value
}

/// The time stamp counter.
pub(crate) fn ticks() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: `rdtsc` only reads the counter. Not `nomem`: it must stay where it stands among reads of
    // shared words.
    unsafe { asm!("rdtsc", out("eax") low, out("edx") high, options(nostack, preserves_flags)) };
    u64::from(high) << 32 | u64::from(low)
}

/// A random number from the processor, if it supports them and has one now.
pub(crate) fn random() -> Option<u64> {
    const RDRAND: u32 = 1 << 30;
    if features() & RDRAND == 0 {
        return None;
    }
    let (value, valid): (u64, u8);
    // SAFETY: the processor has said that it knows `rdrand`, which only writes the two registers.
    unsafe {
        asm!("rdrand {}", "setc {}", out(reg) value, out(reg_byte) valid, options(nomem, nostack))
    };
    (valid == 1).then_some(value)
}

/// Feature bits: `ecx` of leaf 1.
fn features() -> u32 {
    __cpuid(1).ecx
}

/// The first CPUID leaf of a hypervisor.
const HYPERVISOR_LEAF: u32 = 0x4000_0000;

/// The twelve letters of the hypervisor's name, and its last leaf; `None` without a hypervisor.
pub(crate) fn hypervisor() -> Option<([u32; 3], u32)> {
    const HYPERVISOR: u32 = 1 << 31;
    if features() & HYPERVISOR == 0 {
        return None;
    }
    let leaf = __cpuid(HYPERVISOR_LEAF);
    Some(([leaf.ebx, leaf.ecx, leaf.edx], leaf.eax))
}

/// Ticks of the time stamp counter per millisecond, if the hypervisor says it.
pub(crate) fn ticks_per_ms() -> Option<u64> {
    const TIMING: u32 = HYPERVISOR_LEAF + 0x10;
    let (_, last) = hypervisor()?;
    // No hypervisor has that many leaves: then the number is not valid.
    let known = (TIMING..TIMING + 0x100).contains(&last);
    let khz = if known { __cpuid(TIMING).eax } else { 0 };
    (khz > 0).then_some(u64::from(khz))
}

/// Stops for good.
pub(crate) fn halt() -> ! {
    loop {
        // SAFETY: `cli` and `hlt` touch no memory; without interrupts `hlt` waits for ever, as intended.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}
