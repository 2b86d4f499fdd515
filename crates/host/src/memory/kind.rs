//! The kinds of memory of windows, and what works there: futexes, and locks as proof.
//!
//! # What it owns
//! The list of file systems that are local to this kernel.
//!
//! # Invariants
//! 1. An unknown file system counts as one that other kernels may share: there a futex does not wake threads of
//!    other kernels, and a missing lock proves nothing.

use std::fmt;

use rustix::fs::StatFs;

use super::url::PciAddress;

/// The page of ordinary memory, to which extents are aligned unless the window has larger ones.
pub(crate) const PAGE: u64 = 4096;

/// The kind of memory of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryKind {
    /// A file in memory.
    Tmpfs,
    /// A file in memory, of huge pages.
    Hugetlbfs {
        /// Bytes of a page.
        page_size: u64,
    },
    /// A file on a disk or a network.
    File {
        /// Its file system.
        file_system: FileSystem,
    },
    /// Memory of a PCI device, which other kernels may share.
    Pci {
        /// The device.
        address: PciAddress,
    },
    /// A range of physical memory, which other kernels may share.
    Physical {
        /// Its first byte.
        base: u64,
    },
}

/// A file system, by its magic number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSystem {
    magic: u32,
}

/// Magic number, name, and whether all its users are processes of this kernel.
const KNOWN: &[(u32, &str, bool)] = &[
    (0x0102_1994, "tmpfs", true),
    (0x9584_58f6, "hugetlbfs", true),
    (0xef53, "ext4", true),
    (0x5846_5342, "xfs", true),
    (0x9123_683e, "btrfs", true),
    (0xf2f5_2010, "f2fs", true),
    (0xca45_1a4e, "bcachefs", true),
    (0x794c_7630, "overlayfs", true),
    (0x2fc1_2fc1, "zfs", true),
    (0x6969, "nfs", false),
    (0x0102_1997, "9p", false),
    (0x6573_5546, "fuse or virtiofs", false),
    (0xff53_4d42, "cifs", false),
    (0xfe53_4d42, "smb2", false),
    (0x00c3_6400, "ceph", false),
    (0x4d44, "vfat", false),
];

impl FileSystem {
    /// The file system with this magic number, as `statfs` reports it.
    #[must_use]
    pub const fn from_magic(magic: u32) -> Self {
        Self { magic }
    }

    fn known(self) -> Option<(&'static str, bool)> {
        let row = KNOWN.iter().find(|(magic, _, _)| *magic == self.magic);
        row.map(|(_, name, local)| (*name, *local))
    }

    /// Whether all its users are processes of this kernel.
    #[must_use]
    pub fn is_local(self) -> bool {
        self.known().is_some_and(|(_, local)| local)
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.known() {
            Some((name, _)) => f.pad(name),
            None => write!(f, "file system {:#x}", self.magic),
        }
    }
}

impl MemoryKind {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the magic number has 32 bits, in a field that is wider and signed on some machines"
    )]
    pub(crate) fn of_file(statfs: &StatFs) -> Self {
        let file_system = FileSystem::from_magic(statfs.f_type as u32);
        match file_system.known() {
            Some(("tmpfs", _)) => Self::Tmpfs,
            Some(("hugetlbfs", _)) => Self::Hugetlbfs { page_size: statfs.f_bsize as u64 },
            _ => Self::File { file_system },
        }
    }

    /// The alignment of extents in bytes: a page.
    #[must_use]
    pub const fn page_size(self) -> u64 {
        match self {
            Self::Hugetlbfs { page_size } => page_size,
            Self::Tmpfs | Self::File { .. } | Self::Pci { .. } | Self::Physical { .. } => PAGE,
        }
    }

    fn is_local_file(self) -> bool {
        match self {
            Self::Tmpfs | Self::Hugetlbfs { .. } => true,
            Self::File { file_system } => file_system.is_local(),
            Self::Pci { .. } | Self::Physical { .. } => false,
        }
    }

    /// Whether a futex in it reaches all processes that can map it.
    #[must_use]
    pub fn futex_works(self) -> bool {
        self.is_local_file()
    }

    /// Whether a missing OFD lock proves that its owner is gone.
    #[must_use]
    pub fn locks_are_proof(self) -> bool {
        self.is_local_file()
    }
}

impl fmt::Display for MemoryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tmpfs => f.write_str("tmpfs"),
            Self::Hugetlbfs { page_size } => {
                write!(f, "hugetlbfs, pages of {} KiB", page_size >> 10)
            }
            Self::File { file_system } => write!(f, "file on {file_system}"),
            Self::Pci { address } => write!(f, "PCI device {address}"),
            Self::Physical { base } => write!(f, "physical memory at {base:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_file_system_is_not_trusted() {
        for magic in [0x6969, 0x6573_5546, 0x0102_1997, 0xff53_4d42, 0xdead_beef] {
            let kind = MemoryKind::File { file_system: FileSystem::from_magic(magic) };
            assert!(!kind.futex_works(), "{kind}");
            assert!(!kind.locks_are_proof(), "{kind}");
        }
        let ext4 = MemoryKind::File { file_system: FileSystem::from_magic(0xef53) };
        assert!(ext4.futex_works() && ext4.locks_are_proof());
        assert_eq!(ext4.to_string(), "file on ext4");
    }

    #[test]
    fn in_memory_of_several_kernels_neither_futexes_work_nor_are_locks_proof() {
        let pci = MemoryKind::Pci { address: "00:04.0".parse().unwrap() };
        let physical = MemoryKind::Physical { base: 4 << 30 };
        for (kind, name) in
            [(pci, "PCI device 0000:00:04.0"), (physical, "physical memory at 0x100000000")]
        {
            assert!(!kind.futex_works() && !kind.locks_are_proof());
            assert_eq!(kind.to_string(), name);
        }
    }
}
