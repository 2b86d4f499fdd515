//! `mem:BASE+SIZE`: a range of physical memory, through `/dev/mem`.
//!
//! # What it owns
//! The rules for ranges, and the reading of `/proc/iomem`.
//!
//! # Invariants
//! 1. Memory that the kernel uses as its own is never mapped, if the kernel tells which that is.
//! 2. The device is opened without `O_SYNC`. On x86 the kernel then maps memory as cached if the memory type
//!    registers say so (often that of PCI devices above 4 GiB, in virtual machines), and other memory as uncached.
//!    With `O_SYNC` all of it would be uncached, and each atomic operation slow. On Arm `O_SYNC` makes no
//!    difference for memory that the kernel does not know: that is mapped as device memory.
//!
//! # What it does not do
//! It knows nothing about the range except the kernel's name for it.

use std::{fs, path::PathBuf};

use super::{device::DeviceRange, kind::MemoryKind, rights::variable};
use crate::error::{DeviceError, HostError};

/// The variable that names a device to use instead of `/dev/mem`.
const DEVICE: &str = "COMMONHOLD_DEV_MEM";

/// The path of the device through which physical memory can be mapped.
#[must_use]
pub fn physical_memory() -> PathBuf {
    let device = variable(DEVICE);
    device.map_or_else(|| PathBuf::from("/dev/mem"), PathBuf::from)
}

pub(crate) fn place(base: u64, size: u64) -> Result<DeviceRange, HostError> {
    let page = rustix::param::page_size() as u64;
    if !base.is_multiple_of(page) || !size.is_multiple_of(page) {
        return Err(DeviceError::Misaligned { base, size, page }.into());
    }
    // A process that may not see addresses reads zeros there, and finds no range.
    let map = fs::read_to_string("/proc/iomem").unwrap_or_default();
    if let Some((first, last)) = system_ram(&map, base, size) {
        return Err(DeviceError::SystemRam { base, size, first, last }.into());
    }
    let kind = MemoryKind::Physical { base };
    Ok(DeviceRange { path: physical_memory(), start: base, size, kind })
}

/// The first range of the kernel's own memory that the range touches: first and last byte.
fn system_ram(map: &str, base: u64, size: u64) -> Option<(u64, u64)> {
    let end = base.saturating_add(size);
    map.lines().find_map(|line| {
        let (range, name) = line.trim().split_once(" : ")?;
        let (first, last) = range.split_once('-')?;
        let first = u64::from_str_radix(first, 16).ok()?;
        let last = u64::from_str_radix(last, 16).ok()?;
        (name == "System RAM" && last > 0 && first < end && base <= last).then_some((first, last))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
00100000-bfffffff : System RAM
  01000000-02209987 : Kernel code
c0001000-eebfffff : PCI Bus 0000:00
100000000-63fffffff : System RAM
640000000-643ffffff : Reserved
";

    #[test]
    fn memory_of_the_kernel_is_found_wherever_a_range_touches_it() {
        assert_eq!(system_ram(MAP, 0x6_4000_0000, 64 << 20), None);
        assert_eq!(system_ram(MAP, 0xc000_0000, 4096), None);
        assert_eq!(system_ram(MAP, 0xbfff_f000, 8192), Some((0x10_0000, 0xbfff_ffff)));
        let (first, last) = (0x1_0000_0000, 0x6_3fff_ffff);
        assert_eq!(system_ram(MAP, 0x6_3fff_f000, 8192), Some((first, last)));
        assert_eq!(system_ram(MAP, 0xffff_f000, 8192), Some((first, last)));
        assert_eq!(system_ram(MAP, 0, u64::MAX), Some((0x1000, 0x9_fbff)));
    }

    #[test]
    fn addresses_that_are_hidden_prove_nothing() {
        let hidden = "00000000-00000000 : Reserved\n00000000-00000000 : System RAM\n";
        assert_eq!(system_ram(hidden, 0, 1 << 30), None);
        assert_eq!(system_ram("", 0, 1 << 30), None);
        assert_eq!(system_ram("nonsense\n - : System RAM\n", 0, 1 << 30), None);
    }

    #[test]
    fn a_range_that_is_not_made_of_pages_is_refused() {
        let page = rustix::param::page_size() as u64;
        for (base, size) in [((1 << 46) + 8, page), (1 << 46, page + 8), (1 << 46, 1)] {
            let refused = place(base, size);
            assert!(
                matches!(refused, Err(HostError::Device(DeviceError::Misaligned { .. }))),
                "{refused:?}"
            );
        }
        assert!(place(1 << 46, page).is_ok());
    }
}
