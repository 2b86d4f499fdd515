//! Text output on the first serial port, which QEMU's `-serial stdio` shows.

use core::fmt::{self, Write};

use crate::cpu::{in8, out8};

const COM1: u16 = 0x3f8;
const LINE_STATUS: u16 = COM1 + 5;
const READY: u8 = 1 << 5;
/// How often to wait for the port. A port that is not read, or does not exist, must not block the guest.
const PATIENCE: u32 = 100_000;

/// Prints a line.
#[macro_export]
macro_rules! say {
    ($($what:tt)*) => { $crate::serial::line(format_args!($($what)*)) };
}

struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            let mut looks = 0;
            while in8(LINE_STATUS) & READY == 0 && looks < PATIENCE {
                looks += 1;
            }
            out8(COM1, byte);
        }
        Ok(())
    }
}

/// Sets the port to 115200 bits a second, eight bits, no parity.
pub(crate) fn prepare() {
    for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (2, 0xc7)] {
        out8(COM1 + register, value);
    }
}

/// Prints a line; see [`say`].
pub(crate) fn line(what: fmt::Arguments<'_>) {
    // It cannot fail, because `write_str` cannot.
    let _ = Serial.write_fmt(what);
    let _ = Serial.write_str("\n");
}
