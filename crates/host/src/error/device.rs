//! Why device memory cannot be a window, and what to do about it.

use std::{error::Error, fmt, io, path::PathBuf};

use crate::{memory::PciAddress, shown};

/// Why device memory cannot be a window.
///
/// # Examples
/// ```
/// # use commonhold_host::DeviceError;
/// fn tell(error: &DeviceError) {
///     match error {
///         DeviceError::PciSeveral { addresses } => {
///             addresses.iter().for_each(|address| println!("choose one: pci:{address}"));
///         }
///         error => println!("{error}"),
///     }
/// }
/// tell(&DeviceError::KeepsNothing);
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum DeviceError {
    /// There is no ivshmem device.
    PciNone {
        /// Where it was looked for.
        devices: PathBuf,
    },
    /// There is no device at the address.
    PciAbsent {
        /// The address asked for.
        address: PciAddress,
        /// Where it was looked for.
        devices: PathBuf,
    },
    /// The device at the address is not ivshmem.
    PciOther {
        /// The address asked for.
        address: PciAddress,
        /// The vendor number of the device that is there.
        vendor: u32,
        /// The device number of the device that is there.
        device: u32,
    },
    /// There are several devices to choose from.
    PciSeveral {
        /// All of them.
        addresses: Vec<PciAddress>,
    },
    /// The device has no memory to share.
    PciWithoutMemory {
        /// The device's address.
        address: PciAddress,
    },
    /// The device does not answer to its addresses, and could not be enabled.
    PciDisabled {
        /// The device's address.
        address: PciAddress,
        /// The file that enables it.
        path: PathBuf,
        /// Why it could not be written.
        source: io::Error,
    },
    /// This user may not open the device.
    Denied {
        /// The device's path.
        path: PathBuf,
        /// The call's error.
        source: io::Error,
    },
    /// There is no device file for physical memory.
    NoDevice {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A range of physical memory is not made of whole pages.
    Misaligned {
        /// Its first byte.
        base: u64,
        /// Its length in bytes.
        size: u64,
        /// The bytes of a page.
        page: u64,
    },
    /// The kernel uses the range as its own memory.
    SystemRam {
        /// The first byte of the range asked for.
        base: u64,
        /// The length in bytes of the range asked for.
        size: u64,
        /// The first byte of the kernel's range.
        first: u64,
        /// The last byte of the kernel's range.
        last: u64,
    },
    /// The kernel does not let the range be mapped.
    Forbidden {
        /// Its first byte.
        base: u64,
        /// Its length in bytes.
        size: u64,
        /// The call's error.
        source: io::Error,
    },
    /// One atomic operation in this memory ends the process that does it.
    Kills {
        /// The signal that ends it.
        signal: i32,
    },
    /// The memory reads as ones only, as addresses do that no device answers.
    AllOnes,
    /// The memory does not keep what is written.
    KeepsNothing,
    /// Atomic additions of two threads got lost.
    NotAtomic {
        /// How many were lost.
        lost: usize,
        /// How many were done.
        of: usize,
    },
    /// This machine is emulated with one processor: its atomic operations are not atomic for other machines.
    EmulatedAlone,
    /// This machine is emulated in one thread: its atomic operations are not atomic for other machines.
    EmulatedInTurn,
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PciNone { .. }
            | Self::PciAbsent { .. }
            | Self::PciOther { .. }
            | Self::PciSeveral { .. }
            | Self::PciWithoutMemory { .. }
            | Self::PciDisabled { .. } => self.fmt_device(f),
            Self::Denied { .. }
            | Self::NoDevice { .. }
            | Self::Misaligned { .. }
            | Self::SystemRam { .. }
            | Self::Forbidden { .. } => self.fmt_access(f),
            _ => self.fmt_memory(f),
        }
    }
}

impl DeviceError {
    /// Errors of finding a PCI device.
    fn fmt_device(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PciNone { devices } => write!(
                f,
                "no ivshmem device (1af4:1110) in {}; look with `lspci -d 1af4:1110`; QEMU has one by \
                 -object memory-backend-file,id=m,share=on,mem-path=FILE,size=SIZE \
                 -device ivshmem-plain,memdev=m",
                shown(devices)
            ),
            Self::PciAbsent { address, devices } => write!(
                f,
                "no device {address} in {}; `lspci -D -d 1af4:1110` lists those that can be used",
                shown(devices)
            ),
            Self::PciOther { address, vendor, device } => write!(
                f,
                "the device {address} is {vendor:04x}:{device:04x}, and only ivshmem (1af4:1110) is \
                 used; `lspci -D -d 1af4:1110` lists those"
            ),
            Self::PciSeveral { addresses } => {
                f.write_str("several ivshmem devices: choose one of")?;
                for (index, address) in addresses.iter().enumerate() {
                    write!(f, "{} pci:{address}", if index == 0 { "" } else { "," })?;
                }
                Ok(())
            }
            Self::PciWithoutMemory { address } => write!(
                f,
                "the device {address} has no memory in BAR 2: the firmware placed none (is the size a \
                 power of two?), or the server of ivshmem-doorbell has sent none"
            ),
            Self::PciDisabled { address, path, source } => write!(
                f,
                "the device {address} does not answer to its addresses, and writing 1 to {} failed: \
                 {source}; do that as root",
                shown(path)
            ),
            _ => Ok(()),
        }
    }

    /// Errors of opening or mapping memory.
    fn fmt_access(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied { path, source } => write!(
                f,
                "{}: {source}; run as root, or give this user read and write access to it (chmod, or a \
                 udev rule); /dev/mem needs CAP_SYS_RAWIO as well",
                shown(path)
            ),
            Self::NoDevice { path } => write!(
                f,
                "{} does not exist: the kernel was built without CONFIG_DEVMEM, or this is a container \
                 that was not given it (--device=/dev/mem)",
                shown(path)
            ),
            Self::Misaligned { base, size, page } => write!(
                f,
                "mem:{base:#x}+{size:#x} is not made of whole pages: base and size must be multiples \
                 of {page:#x}"
            ),
            Self::SystemRam { base, size, first, last } => write!(
                f,
                "mem:{base:#x}+{size:#x} touches {first:#x}-{last:#x}, which the kernel uses as its own \
                 memory (System RAM in /proc/iomem); keep it away from the kernel at boot: mem= or \
                 memmap=SIZE$BASE on x86, reserved-memory with no-map in a device tree"
            ),
            Self::Forbidden { base, size, source } => write!(
                f,
                "the kernel does not let mem:{base:#x}+{size:#x} be mapped: {source}; either it was \
                 built with STRICT_DEVMEM and the range is its own memory, or a driver has claimed the \
                 range (see /proc/iomem, and unbind it), or the kernel is locked down, or the process \
                 is not root"
            ),
            _ => Ok(()),
        }
    }

    /// Errors that the probe of the memory found.
    fn fmt_memory(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kills { signal } => write!(
                f,
                "an atomic operation in this memory ends the process (signal {signal}), so locks do not \
                 work there: on x86 boot with split_lock_detect=warn, on Arm the memory must be mapped \
                 as normal memory; if the memory is shorter than its device says, make it longer"
            ),
            Self::AllOnes => f.write_str(
                "the memory reads as ones only: the device is gone, does not answer to its addresses \
                 (`enable` in its directory in sysfs), or the range belongs to nothing; if it is \
                 ordinary memory that was never formatted, `space format --force` formats it",
            ),
            Self::KeepsNothing => f.write_str(
                "the memory does not keep what is written: it is read-only, or nothing is there; is it \
                 the right address, and shared for writing (QEMU: share=on)?",
            ),
            Self::NotAtomic { lost, of } => write!(
                f,
                "{lost} of {of} atomic additions were lost in this memory, so locks do not work there: a \
                 hypervisor emulates the access (is the memory mapped into the guest directly?), or \
                 another machine that adds at the same time is emulated with one processor"
            ),
            Self::EmulatedAlone => f.write_str(
                "this machine is emulated by QEMU (TCG) with one processor, so its atomic operations \
                 are not atomic for other machines; use KVM, or -smp 2 -accel tcg,thread=multi",
            ),
            Self::EmulatedInTurn => f.write_str(
                "this machine is emulated by QEMU (TCG) in one thread, so its atomic operations are \
                 not atomic for other machines; use KVM, or -smp 2 -accel tcg,thread=multi",
            ),
            _ => Ok(()),
        }
    }
}

impl Error for DeviceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::PciDisabled { source, .. }
            | Self::Denied { source, .. }
            | Self::Forbidden { source, .. } => Some(source),
            _ => None,
        }
    }
}
