//! The numbers and structures of the kernel's header `include/uapi/linux/userfaultfd.h`, which neither `libc` nor
//! `rustix` has.

use rustix::ioctl::{Opcode, opcode};

/// `USERFAULTFD_IOC` and `UFFDIO`: the group of all its ioctls.
const GROUP: u8 = 0xAA;

/// `UFFD_API`.
pub(crate) const API: u64 = 0xAA;
/// `UFFD_USER_MODE_ONLY`: faults of the kernel itself, in system calls, are errors.
pub(crate) const USER_MODE_ONLY: u32 = 1;

/// `UFFDIO_API`.
pub(crate) const HANDSHAKE: Opcode = opcode::read_write::<Handshake>(GROUP, 0x3F);
/// `UFFDIO_REGISTER`.
pub(crate) const REGISTER: Opcode = opcode::read_write::<Register>(GROUP, 0x00);
/// `UFFDIO_WAKE`. The header defines it as an ioctl that reads, though it writes.
pub(crate) const WAKE: Opcode = opcode::read::<Range>(GROUP, 0x02);
/// `UFFDIO_WRITEPROTECT`.
pub(crate) const WRITE_PROTECT: Opcode = opcode::read_write::<WriteProtect>(GROUP, 0x06);
/// `UFFDIO_CONTINUE`.
pub(crate) const CONTINUE: Opcode = opcode::read_write::<Resume>(GROUP, 0x07);
/// `UFFDIO_POISON`.
pub(crate) const POISON: Opcode = opcode::read_write::<Resume>(GROUP, 0x08);
/// `USERFAULTFD_IOC_NEW`, of `/dev/userfaultfd`.
pub(crate) const NEW: Opcode = opcode::none(GROUP, 0x00);

/// `UFFDIO_REGISTER_MODE_MISSING`, `_WP` and `_MINOR`.
pub(crate) const REGISTER_ALL: u64 = 1 | 2 | 4;
/// `UFFDIO_CONTINUE_MODE_WP`.
pub(crate) const CONTINUE_PROTECTED: u64 = 2;
/// `UFFDIO_WRITEPROTECT_MODE_WP`.
pub(crate) const PROTECT: u64 = 1;
/// `UFFDIO_WRITEPROTECT_MODE_DONTWAKE`.
pub(crate) const DONT_WAKE: u64 = 2;

/// `UFFD_EVENT_PAGEFAULT`.
pub(crate) const PAGE_FAULT: u8 = 0x12;
/// `UFFD_PAGEFAULT_FLAG_WRITE` and `_WP`: either means that the access is a write.
pub(crate) const WRITES: u64 = 1 | 2;

/// A required feature.
#[derive(Debug)]
pub(crate) struct Feature {
    pub(crate) bit: u64,
    pub(crate) name: &'static str,
    pub(crate) since: &'static str,
}

/// The required features, the newest first. `CONTINUE_PROTECTED` has no bit of its own; Linux 6.4 introduced it.
///
/// With `UFFD_FEATURE_EVENT_REMAP`, memory stays registered when `mremap` moves it; without, it does not. The call waits
/// until its event is read.
pub(crate) const FEATURES: [Feature; 7] = [
    Feature { bit: 1 << 14, name: "UFFD_FEATURE_POISON", since: "6.6" },
    Feature { bit: 1 << 12, name: "UFFD_FEATURE_WP_HUGETLBFS_SHMEM", since: "5.19" },
    Feature { bit: 1 << 10, name: "UFFD_FEATURE_MINOR_SHMEM", since: "5.14" },
    Feature { bit: 1 << 8, name: "UFFD_FEATURE_THREAD_ID", since: "4.14" },
    Feature { bit: 1 << 5, name: "UFFD_FEATURE_MISSING_SHMEM", since: "4.11" },
    Feature { bit: 1 << 2, name: "UFFD_FEATURE_EVENT_REMAP", since: "4.11" },
    Feature { bit: 1 << 0, name: "UFFD_FEATURE_PAGEFAULT_FLAG_WP", since: "5.7" },
];

/// `struct uffdio_api`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Handshake {
    pub(crate) api: u64,
    pub(crate) features: u64,
    pub(crate) ioctls: u64,
}

/// `struct uffdio_range`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Range {
    pub(crate) start: u64,
    pub(crate) len: u64,
}

/// `struct uffdio_register`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Register {
    pub(crate) range: Range,
    pub(crate) mode: u64,
    pub(crate) ioctls: u64,
}

/// `struct uffdio_writeprotect`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct WriteProtect {
    pub(crate) range: Range,
    pub(crate) mode: u64,
}

/// `struct uffdio_continue`, and `struct uffdio_poison`, which has the same form.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Resume {
    pub(crate) range: Range,
    pub(crate) mode: u64,
    /// How many bytes the call has done, or a negative error number.
    pub(crate) done: i64,
}

/// `struct uffd_msg`, with the arguments of a page fault.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Message {
    pub(crate) event: u8,
    reserved: [u8; 7],
    pub(crate) flags: u64,
    pub(crate) address: u64,
    /// The number of the thread that faulted.
    pub(crate) thread: u32,
    rest: u32,
}

const _: () = assert!(size_of::<Message>() == 32);
