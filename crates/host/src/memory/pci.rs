//! `pci:ADDRESS` and `pci:auto`: the memory of an ivshmem device, as sysfs shows it.
//!
//! # What it owns
//! Finding the devices that can hold windows, and their files in sysfs.
//!
//! # Invariants
//! 1. Only a device that says it is ivshmem is ever mapped: writing to another device could do anything.
//! 2. It is mapped through `resource2`, never `resource2_wc`: write-combining delays stores without a limit, and
//!    locks cannot work with that.
//!
//! # What it does not do
//! It binds no driver and unbinds none. Mapping through sysfs works beside a driver.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{device::DeviceRange, kind::MemoryKind, rights::variable, url::PciAddress};
use crate::error::{DeviceError, HostError};

/// The variable that names a directory to use instead of `/sys/bus/pci/devices`.
const DIRECTORY: &str = "COMMONHOLD_PCI_DIR";
/// Vendor and device of ivshmem.
const IVSHMEM: (u32, u32) = (0x1af4, 0x1110);
/// The base address register whose memory is the window: the third line of `resource`.
const BAR: usize = 2;

/// An ivshmem device.
///
/// # Examples
/// ```
/// # use commonhold_host::{PciDevice, pci_devices};
/// for PciDevice { address, size, .. } in pci_devices() {
///     println!("pci:{address}: {size} bytes");
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PciDevice {
    /// Its address.
    pub address: PciAddress,
    /// Bytes of its memory; 0 if it has none.
    pub size: u64,
    /// Whether it answers to its addresses.
    pub enabled: bool,
    /// The driver it is bound to.
    pub driver: Option<String>,
    directory: PathBuf,
}

fn devices() -> PathBuf {
    let directory = variable(DIRECTORY);
    directory.map_or_else(|| PathBuf::from("/sys/bus/pci/devices"), PathBuf::from)
}

/// All ivshmem devices, in the order of their addresses. Without sysfs there are none.
#[must_use]
pub fn pci_devices() -> Vec<PciDevice> {
    all(&devices())
}

pub(crate) fn place(address: Option<PciAddress>) -> Result<DeviceRange, HostError> {
    place_in(&devices(), address)
}

fn place_in(devices: &Path, address: Option<PciAddress>) -> Result<DeviceRange, HostError> {
    let device = match address {
        Some(address) => named(devices, address)?,
        None => only(devices)?,
    };
    if device.size == 0 {
        return Err(DeviceError::PciWithoutMemory { address: device.address }.into());
    }
    if !device.enabled {
        enable(&device)?;
    }
    Ok(DeviceRange {
        path: device.directory.join(format!("resource{BAR}")),
        start: 0,
        size: device.size,
        kind: MemoryKind::Pci { address: device.address },
    })
}

/// The device of this address.
fn named(devices: &Path, address: PciAddress) -> Result<PciDevice, HostError> {
    let directory = devices.join(address.to_string());
    if fs::symlink_metadata(&directory).is_err() {
        let devices = devices.to_owned();
        return Err(DeviceError::PciAbsent { address, devices }.into());
    }
    let (vendor, device) = ids(&directory);
    if (vendor, device) != IVSHMEM {
        return Err(DeviceError::PciOther { address, vendor, device }.into());
    }
    Ok(look(directory, address))
}

/// The only device there is.
fn only(devices: &Path) -> Result<PciDevice, HostError> {
    let mut found = all(devices);
    match (found.pop(), found.is_empty()) {
        (Some(device), true) => Ok(device),
        (None, _) => Err(DeviceError::PciNone { devices: devices.to_owned() }.into()),
        (Some(last), false) => {
            let addresses = found.iter().chain([&last]).map(|device| device.address).collect();
            Err(DeviceError::PciSeveral { addresses }.into())
        }
    }
}

fn all(devices: &Path) -> Vec<PciDevice> {
    let entries = fs::read_dir(devices).into_iter().flatten().flatten();
    let mut found: Vec<PciDevice> = entries
        .filter_map(|entry| {
            let address = entry.file_name().to_str()?.parse().ok()?;
            (ids(&entry.path()) == IVSHMEM).then(|| look(entry.path(), address))
        })
        .collect();
    found.sort_by_key(|device| device.address);
    found
}

fn text(path: PathBuf) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn ids(directory: &Path) -> (u32, u32) {
    let id = |file: &str| {
        let text = text(directory.join(file))?;
        u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
    };
    (id("vendor").unwrap_or(0), id("device").unwrap_or(0))
}

fn look(directory: PathBuf, address: PciAddress) -> PciDevice {
    let resources = text(directory.join("resource")).unwrap_or_default();
    let driver = fs::read_link(directory.join("driver")).ok();
    let driver = driver.and_then(|link| Some(link.file_name()?.to_str()?.to_owned()));
    // Without the file (before Linux 2.6.17), the memory can be read and written.
    let enabled = text(directory.join("enable")).is_none_or(|text| text != "0");
    let size = resources.lines().nth(BAR).and_then(size).unwrap_or(0);
    PciDevice { address, size, enabled, driver, directory }
}

/// Bytes of a resource: `0xSTART 0xEND 0xFLAGS`, all 0 if there is none.
fn size(line: &str) -> Option<u64> {
    /// `IORESOURCE_MEM` of the kernel.
    const MEMORY: u64 = 0x200;
    let mut numbers = line.split_whitespace().map(|text| {
        let digits = text.strip_prefix("0x")?;
        u64::from_str_radix(digits, 16).ok()
    });
    let (start, end) = (numbers.next()??, numbers.next()??);
    let flags = numbers.next()??;
    if flags & MEMORY == 0 { None } else { end.checked_sub(start)?.checked_add(1) }
}

/// Makes the device answer to its addresses.
fn enable(device: &PciDevice) -> Result<(), HostError> {
    let path = device.directory.join("enable");
    let refused = |source: io::Error| DeviceError::PciDisabled {
        address: device.address,
        path: path.clone(),
        source,
    };
    fs::write(&path, "1").map_err(|source| refused(source).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use std::os::unix::fs::symlink;

    fn sysfs(scratch: &Scratch, address: &str, ids: (&str, &str), bytes: u64) -> PathBuf {
        let directory = scratch.path(address);
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("vendor"), ids.0).unwrap();
        fs::write(directory.join("device"), ids.1).unwrap();
        fs::write(directory.join("enable"), "1\n").unwrap();
        let none = "0x0000000000000000 0x0000000000000000 0x0000000000000000\n";
        let end = 0x8_0000_0000 + bytes - 1;
        let memory = format!("{:#018x} {end:#018x} 0x000000000014220c\n", 0x8_0000_0000_u64);
        fs::write(directory.join("resource"), format!("{none}{none}{memory}")).unwrap();
        fs::write(directory.join("resource2"), vec![0; usize::try_from(bytes).unwrap()]).unwrap();
        directory
    }

    fn ivshmem(scratch: &Scratch, address: &str) -> PathBuf {
        sysfs(scratch, address, ("0x1af4\n", "0x1110\n"), 1 << 20)
    }

    fn refusal(result: Result<DeviceRange, HostError>) -> DeviceError {
        match result {
            Err(HostError::Device(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_device_is_found_by_its_address_or_as_the_only_one() {
        let scratch = Scratch::new();
        let devices = scratch.path("");
        assert!(matches!(refusal(place_in(&devices, None)), DeviceError::PciNone { .. }));
        let directory = ivshmem(&scratch, "0000:00:04.0");
        sysfs(&scratch, "0000:00:01.0", ("0x1af4\n", "0x1000\n"), 4096);
        let address = "00:04.0".parse().unwrap();
        for wanted in [None, Some(address)] {
            let place = place_in(&devices, wanted).unwrap();
            assert_eq!(place.path, directory.join("resource2"));
            assert_eq!((place.start, place.size), (0, 1 << 20));
            assert_eq!(place.kind, MemoryKind::Pci { address });
        }
    }

    #[test]
    fn several_devices_are_listed_and_others_are_never_taken() {
        let scratch = Scratch::new();
        let devices = scratch.path("");
        ivshmem(&scratch, "0001:00:05.0");
        ivshmem(&scratch, "0000:00:04.0");
        sysfs(&scratch, "0000:00:01.0", ("0x8086\n", "0x100e\n"), 4096);
        let error = refusal(place_in(&devices, None)).to_string();
        assert!(error.contains("pci:0000:00:04.0, pci:0001:00:05.0"), "{error}");
        let error = refusal(place_in(&devices, Some("00:01.0".parse().unwrap())));
        assert!(error.to_string().contains("8086:100e"), "{error}");
        let error = refusal(place_in(&devices, Some("00:07.0".parse().unwrap())));
        assert!(matches!(error, DeviceError::PciAbsent { .. }), "{error}");
    }

    #[test]
    fn a_disabled_device_is_enabled() {
        let scratch = Scratch::new();
        let directory = ivshmem(&scratch, "0000:00:04.0");
        fs::write(directory.join("enable"), "0\n").unwrap();
        symlink("/sys/bus/pci/drivers/uio_pci_generic", directory.join("driver")).unwrap();
        let found = all(&scratch.path(""));
        assert_eq!((found[0].enabled, found[0].size), (false, 1 << 20));
        assert_eq!(found[0].driver.as_deref(), Some("uio_pci_generic"));
        place_in(&scratch.path(""), None).unwrap();
        assert_eq!(fs::read_to_string(directory.join("enable")).unwrap(), "1");
    }

    #[test]
    fn a_device_that_cannot_be_enabled_is_refused() {
        let scratch = Scratch::new();
        let directory = ivshmem(&scratch, "0000:00:04.0");
        let [device] = &all(&scratch.path(""))[..] else { panic!("not one device") };
        fs::remove_file(directory.join("enable")).unwrap();
        fs::create_dir(directory.join("enable")).unwrap();
        let error = enable(device).unwrap_err();
        assert!(matches!(error, HostError::Device(DeviceError::PciDisabled { .. })), "{error}");
    }

    #[test]
    fn a_register_without_memory_holds_no_window() {
        assert_eq!(size("0x10 0x1f 0x40101"), None);
        assert_eq!(size("0x10 0x1f 0x40200"), Some(16));
        assert_eq!(size("0x0 0xffffffffffffffff 0x200"), None);
        assert_eq!(size("0x10 0xf"), None);
        let scratch = Scratch::new();
        let directory = ivshmem(&scratch, "0000:00:04.0");
        fs::write(directory.join("resource"), "0x0 0x0 0x0\n").unwrap();
        let error = refusal(place_in(&scratch.path(""), None));
        assert!(matches!(error, DeviceError::PciWithoutMemory { .. }), "{error}");
    }
}
