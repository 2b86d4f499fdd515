//! Whether atomic operations are atomic here.
//!
//! QEMU without hardware help (TCG) translates an atomic instruction of a guest that has one processor
//! into a plain read and a plain write: within the guest nobody could tell. Host processes and other
//! guests can: two of them get the same lock. So with one processor this guest does not take part.
//! (The same goes for `-accel tcg,thread=single`, which cannot be seen from inside.)

use crate::{
    cpu::{hypervisor, in8, out16},
    failure::Failure,
};

/// "TCGTCGTCGTCG", as three little-endian words.
const TCG: [u32; 3] = [0x5447_4354, 0x4354_4743, 0x4743_5447];

// QEMU's channel for the firmware: a selector and a port of bytes (docs/specs/fw_cfg in its sources).
const SELECTOR: u16 = 0x510;
const DATA: u16 = 0x511;
const PROCESSORS: u16 = 5;

/// Refuses where atomic operations are not.
///
/// # Errors
/// [`Failure::OneProcessor`].
pub(crate) fn check() -> Result<(), Failure> {
    let emulated = hypervisor().is_some_and(|(name, _)| name == TCG);
    if emulated && count() < 2 { Err(Failure::OneProcessor) } else { Ok(()) }
}

/// Processors of a QEMU machine.
fn count() -> u16 {
    out16(SELECTOR, PROCESSORS);
    u16::from(in8(DATA)) | u16::from(in8(DATA)) << 8
}
