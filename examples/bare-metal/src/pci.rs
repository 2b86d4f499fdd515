//! Finding the window: bar 2 of a PCI device.
//!
//! `ivshmem-plain` is memory of the host, which QEMU shows to a guest as a bar (docs/specs/ivshmem-spec in QEMU's
//! sources). The firmware has already given the bar an address; only its size must be found out.

use core::{fmt, iter};

use crate::{
    cpu::{in32, out32},
    failure::Failure,
};

const IVSHMEM: u32 = 0x1110_1af4;
const NOBODY: u32 = 0xffff_ffff;

// Registers of the configuration space.
const ID: u8 = 0x00;
const COMMAND: u8 = 0x04;
const HEADER: u8 = 0x0c;
const BUSES: u8 = 0x18;
const BAR_2: u8 = 0x18;
const BAR_3: u8 = 0x1c;

/// Bit of the command register: the device answers to memory accesses.
const ANSWER_MEMORY: u32 = 1 << 1;
/// The lower half of the command register. The upper half is the status, in which writing a one clears the bit.
const COMMAND_BITS: u32 = 0xffff;

/// The address of a device on the PCI bus.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    bus: u8,
    device: u8,
    function: u8,
}

/// The memory of a device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bar {
    /// Its physical address.
    pub(crate) base: u64,
    /// Bytes.
    pub(crate) size: u64,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{:x}", self.bus, self.device, self.function)
    }
}

impl Address {
    fn select(self, register: u8) {
        const ENABLE: u32 = 1 << 31;
        let place = u32::from(self.bus) << 16
            | u32::from(self.device) << 11
            | u32::from(self.function) << 8;
        out32(0xcf8, ENABLE | place | u32::from(register));
    }

    fn read(self, register: u8) -> u32 {
        self.select(register);
        in32(0xcfc)
    }

    fn write(self, register: u8, value: u32) {
        self.select(register);
        out32(0xcfc, value);
    }

    fn exists(self) -> bool {
        self.read(ID) != NOBODY
    }

    /// The type of its header; the top bit says that the device has more functions.
    fn header(self) -> u8 {
        let [_, _, kind, _] = self.read(HEADER).to_le_bytes();
        kind
    }

    /// The last bus behind it, if it is a bridge.
    fn last_bus(self) -> Option<u8> {
        let [_, _, last, _] = self.read(BUSES).to_le_bytes();
        (self.header() & 0x7f == 1).then_some(last)
    }

    /// Writes all ones to a register, and returns which of them stick. The old value is written back.
    fn probe(self, register: u8) -> u32 {
        let held = self.read(register);
        self.write(register, NOBODY);
        let stuck = self.read(register);
        self.write(register, held);
        stuck
    }

    /// The address and size of bar 2. `None` if it is not memory, or has no address.
    fn bar_2(self) -> Option<Bar> {
        let low = self.read(BAR_2);
        let (is_memory, is_wide) = (low & 1 == 0, low & 0b110 == 0b100);
        if !is_memory {
            return None;
        }
        // While its size is probed, the bar has another address: the device must not answer there.
        let command = self.read(COMMAND) & COMMAND_BITS;
        self.write(COMMAND, command & !ANSWER_MEMORY);
        let mask = u64::from(self.probe(BAR_2) & !0xf);
        let (high, high_mask) =
            if is_wide { (self.read(BAR_3), self.probe(BAR_3)) } else { (0, NOBODY) };
        self.write(COMMAND, command | ANSWER_MEMORY);

        let base = u64::from(high) << 32 | u64::from(low & !0xf);
        let mask = u64::from(high_mask) << 32 | mask;
        let bar = Bar { base, size: mask.wrapping_neg() };
        (bar.base != 0 && bar.size != 0).then_some(bar)
    }
}

/// All devices, bus by bus. A bridge comes before the buses behind it, so the last bus number is known in time.
fn devices() -> impl Iterator<Item = Address> {
    let mut last_bus = 0;
    let mut next = Some(Address { bus: 0, device: 0, function: 0 });
    iter::from_fn(move || {
        while let Some(here) = next {
            let exists = here.exists();
            let alone = here.function == 0 && (!exists || here.header() & 0x80 == 0);
            if exists && let Some(behind) = here.last_bus() {
                last_bus = last_bus.max(behind);
            }
            next = after(here, alone, last_bus);
            if exists {
                return Some(here);
            }
        }
        None
    })
}

fn after(here: Address, alone: bool, last_bus: u8) -> Option<Address> {
    let Address { bus, device, function } = here;
    if !alone && function < 7 {
        Some(Address { function: function + 1, ..here })
    } else if device < 31 {
        Some(Address { device: device + 1, function: 0, ..here })
    } else {
        (bus < last_bus).then_some(Address { bus: bus.saturating_add(1), device: 0, function: 0 })
    }
}

/// Finds the first ivshmem device and its bar 2, and enables it.
///
/// # Errors
/// [`Failure::NoDevice`], [`Failure::NoBar`].
pub(crate) fn find_window() -> Result<(Address, Bar), Failure> {
    let device = devices().find(|device| device.read(ID) == IVSHMEM).ok_or(Failure::NoDevice)?;
    let bar = device.bar_2().ok_or(Failure::NoBar { device })?;
    Ok((device, bar))
}
