//! The end of the machine.

use core::panic::PanicInfo;

use crate::{
    cpu::{halt, out8, out16},
    say,
};

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Everything was done.
    Done,
    /// Something was not; what, has been printed.
    Failed,
}

/// Ends QEMU.
///
/// With `-device isa-debug-exit,iobase=0xf4,iosize=0x04` its exit status says how it went: 33 if all
/// was done, 35 if not (QEMU makes `2 n + 1` of what is written to the port). Without that device the
/// machine is switched off, which QEMU reports as 0 in any case.
pub(crate) fn exit(end: End) -> ! {
    const DEBUG_EXIT: u16 = 0xf4;
    /// Where QEMU's firmware puts the power management of its PC machines.
    const POWER_CONTROL: u16 = 0x604;
    /// Sleep now, in the deepest state.
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
