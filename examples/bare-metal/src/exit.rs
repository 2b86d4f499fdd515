//! The end of the machine.

use core::panic::PanicInfo;

use crate::{
    cpu::{halt, out8, out16},
    say,
};

/// How the guest ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Everything was done.
    Done,
    /// Something failed; the reason has been printed.
    Failed,
}

/// Ends QEMU.
///
/// With `-device isa-debug-exit,iobase=0xf4,iosize=0x04` QEMU's exit status is 33 if everything was done, and 35 if
/// not (`2 n + 1`, where n was written to the port). Without that device the machine is switched off, and QEMU's
/// status is always 0.
pub(crate) fn exit(end: End) -> ! {
    const DEBUG_EXIT: u16 = 0xf4;
    /// The port of power management, as QEMU's firmware sets it up for PC machines.
    const POWER_CONTROL: u16 = 0x604;
    /// Enters the deepest sleep state now.
    const OFF: u16 = 1 << 13;
    out8(DEBUG_EXIT, if end == End::Done { 16 } else { 17 });
    out16(POWER_CONTROL, OFF);
    halt()
}

#[panic_handler]
fn panicked(info: &PanicInfo<'_>) -> ! {
    say!("error: {info}");
    exit(End::Failed)
}
