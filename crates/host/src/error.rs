//! Why the operating system did not give what was asked.

use std::{
    error::Error,
    fmt, io,
    path::{Path, PathBuf},
};

use rustix::io::Errno;

use crate::url::PciAddress;

/// Why a window could not be had, made or removed.
#[derive(Debug)]
#[non_exhaustive]
pub enum HostError {
    /// There is nothing at the path.
    NotFound {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// There is already something at the path.
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// The file has no bytes: it was made, but never formatted.
    Empty {
        /// Which file.
        path: PathBuf,
    },
    /// It is neither a regular file nor another thing that holds a window.
    NotAWindow {
        /// What is not.
        path: PathBuf,
    },
    /// The URL is good, but this version cannot use what it names.
    NotSupported {
        /// The scheme of the URL, with its colon.
        scheme: &'static str,
    },
    /// What it names is no file: it cannot be made, replaced or removed.
    NotAFile {
        /// The scheme of the URL, with its colon.
        scheme: &'static str,
    },
    /// A window that is memory of a device cannot be used.
    Device(DeviceError),
    /// The process inherited the window by `fork`, and must open it anew.
    Forked,
    /// A system call failed.
    Call {
        /// Which call.
        call: &'static str,
        /// What it was about.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl HostError {
    pub(crate) fn call(call: &'static str, path: &Path, errno: Errno) -> Self {
        Self::Call { call, path: path.to_owned(), source: errno.into() }
    }

    /// The operating system's error number, if a call failed.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Call { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// Whether the cause is that memory, address space or room on the file system ran out.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.errno().is_some_and(|errno| is_full(Errno::from_raw_os_error(errno)))
    }
}

/// Whether an error number means that there is no memory or no room.
pub(crate) fn is_full(errno: Errno) -> bool {
    matches!(errno, Errno::NOSPC | Errno::DQUOT | Errno::NOMEM)
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { path } => write!(f, "{} does not exist", path.display()),
            Self::Exists { path } => write!(f, "{} already exists", path.display()),
            Self::Empty { path } => {
                write!(f, "{} is empty: `space format` makes a space of it", path.display())
            }
            Self::NotAWindow { path } => write!(
                f,
                "{} is not a regular file, and no other kind of memory can be used yet",
                path.display()
            ),
            Self::NotSupported { scheme } => write!(f, "{scheme} is not supported yet"),
            Self::NotAFile { scheme } => write!(
                f,
                "{scheme} names memory and no file: it can be formatted, but neither made nor removed"
            ),
            Self::Device(error) => error.fmt(f),
            Self::Forked => {
                f.write_str("the space was opened before the process forked: open it anew")
            }
            Self::Call { call, path, source } => {
                write!(f, "{call} failed on {}: {source}", path.display())?;
                match (*call, source.raw_os_error()) {
                    ("mmap", Some(libc::ENOMEM)) => f.write_str(
                        "; is the address space limited (`ulimit -v`)? a smaller capacity may fit",
                    ),
                    _ => Ok(()),
                }
            }
        }
    }
}

impl Error for HostError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Call { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Why memory of a device cannot be a window.
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
        /// What is there: vendor.
        vendor: u32,
        /// What is there: device.
        device: u32,
    },
    /// There are several devices to choose from.
    PciSeveral {
        /// All of them.
        addresses: Vec<PciAddress>,
    },
    /// The device has no memory to share.
    PciWithoutMemory {
        /// Which device.
        address: PciAddress,
    },
    /// The device does not answer to its addresses, and could not be told to.
    PciDisabled {
        /// Which device.
        address: PciAddress,
        /// Where it would be told.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// This user may not open it.
    Denied {
        /// What.
        path: PathBuf,
        /// What the call said.
        source: io::Error,
    },
    /// There is no device for physical memory.
    NoDevice {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A range of physical memory is not made of whole pages.
    Misaligned {
        /// Its first byte.
        base: u64,
        /// Its bytes.
        size: u64,
        /// Bytes of a page.
        page: u64,
    },
    /// The kernel uses the range as its own memory.
    SystemRam {
        /// The range asked for: its first byte.
        base: u64,
        /// The range asked for: its bytes.
        size: u64,
        /// First byte of the kernel's.
        first: u64,
        /// Last byte of the kernel's.
        last: u64,
    },
    /// The kernel does not let the range be mapped.
    Forbidden {
        /// Its first byte.
        base: u64,
        /// Its bytes.
        size: u64,
        /// What the call said.
        source: io::Error,
    },
    /// One atomic operation there ends the process that does it.
    Kills {
        /// By this signal.
        signal: i32,
    },
    /// It reads as ones only, as memory does that nothing answers for.
    AllOnes,
    /// It does not keep what is written.
    KeepsNothing,
    /// Atomic additions of two threads got lost.
    NotAtomic {
        /// How many.
        lost: usize,
        /// Of so many.
        of: usize,
    },
    /// This machine is emulated, and has one processor: its atomics are none towards others.
    EmulatedAlone,
    /// This machine is emulated, and its processors never run at once: its atomics are none towards
    /// others.
    EmulatedInTurn,
}

impl From<DeviceError> for HostError {
    fn from(error: DeviceError) -> Self {
        Self::Device(error)
    }
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PciNone { devices } => write!(
                f,
                "no ivshmem device (1af4:1110) in {}; look with `lspci -d 1af4:1110`; QEMU has one by \
                 -object memory-backend-file,id=m,share=on,mem-path=FILE,size=SIZE \
                 -device ivshmem-plain,memdev=m",
                devices.display()
            ),
            Self::PciAbsent { address, devices } => write!(
                f,
                "no device {address} in {}; `lspci -D -d 1af4:1110` lists those that can be used",
                devices.display()
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
                path.display()
            ),
            Self::Denied { path, source } => write!(
                f,
                "{}: {source}; run as root, or give this user read and write access to it (chmod, or a \
                 udev rule); /dev/mem wants CAP_SYS_RAWIO besides",
                path.display()
            ),
            Self::NoDevice { path } => write!(
                f,
                "{} does not exist: the kernel was built without CONFIG_DEVMEM, or this is a container \
                 that was not given it (--device=/dev/mem)",
                path.display()
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
            _ => self.fmt_memory(f),
        }
    }
}

impl DeviceError {
    /// What the probe of the memory says, in words.
    fn fmt_memory(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kills { signal } => write!(
                f,
                "an atomic operation in this memory ends the process (signal {signal}), so no lock can \
                 live there: on x86 boot with split_lock_detect=warn, on Arm the memory must be mapped \
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
                "{lost} of {of} atomic additions were lost in this memory, so no lock can live there: a \
                 hypervisor emulates the access (is the memory mapped into the guest directly?), or \
                 another machine that adds at the same time is emulated with one processor"
            ),
            Self::EmulatedAlone => f.write_str(
                "this machine is emulated by QEMU (TCG) with one processor, and then its atomics are \
                 none towards others; use KVM, or -smp 2 -accel tcg,thread=multi",
            ),
            Self::EmulatedInTurn => f.write_str(
                "this machine is emulated by QEMU (TCG), and its processors were not seen to run at \
                 once, so its atomics are none towards others; use KVM, or -smp 2 -accel \
                 tcg,thread=multi; on a host that is very busy, try again",
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

/// Why a new space could not be made.
#[derive(Debug)]
#[non_exhaustive]
pub enum CreateError<E> {
    /// The operating system refused.
    Host(HostError),
    /// The window was there, and formatting it failed. Nothing of it is left.
    Format(E),
}

impl<E> From<HostError> for CreateError<E> {
    fn from(error: HostError) -> Self {
        Self::Host(error)
    }
}

impl<E: fmt::Display> fmt::Display for CreateError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(error) => error.fmt(f),
            Self::Format(error) => error.fmt(f),
        }
    }
}

impl<E: Error + 'static> Error for CreateError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Host(error) => error.source(),
            Self::Format(error) => error.source(),
        }
    }
}
