//! What the kernel's header `include/uapi/linux/userfaultfd.h` says, of which neither `libc` nor `rustix` has
//! anything: numbers and structures, as they stand there.

use rustix::ioctl::{Opcode, opcode};

/// `USERFAULTFD_IOC` and `UFFDIO`: the group of all its ioctls.
const GROUP: u8 = 0xAA;

/// `UFFD_API`.
pub(super) const API: u64 = 0xAA;
/// `UFFD_USER_MODE_ONLY`: faults of the kernel itself, in system calls, are errors.
pub(super) const USER_MODE_ONLY: u32 = 1;

/// `UFFDIO_API`.
pub(super) const HANDSHAKE: Opcode = opcode::read_write::<Handshake>(GROUP, 0x3F);
/// `UFFDIO_REGISTER`.
pub(super) const REGISTER: Opcode = opcode::read_write::<Register>(GROUP, 0x00);
/// `UFFDIO_WAKE`; the header says that it reads, though it writes.
pub(super) const WAKE: Opcode = opcode::read::<Range>(GROUP, 0x02);
/// `UFFDIO_WRITEPROTECT`.
pub(super) const WRITE_PROTECT: Opcode = opcode::read_write::<WriteProtect>(GROUP, 0x06);
/// `UFFDIO_CONTINUE`.
pub(super) const CONTINUE: Opcode = opcode::read_write::<Resume>(GROUP, 0x07);
/// `UFFDIO_POISON`.
pub(super) const POISON: Opcode = opcode::read_write::<Resume>(GROUP, 0x08);
/// `USERFAULTFD_IOC_NEW`, of `/dev/userfaultfd`.
pub(super) const NEW: Opcode = opcode::none(GROUP, 0x00);

/// `UFFDIO_REGISTER_MODE_MISSING`, `_WP` and `_MINOR`.
pub(super) const REGISTER_ALL: u64 = 1 | 2 | 4;
/// `UFFDIO_CONTINUE_MODE_WP`.
pub(super) const CONTINUE_PROTECTED: u64 = 2;
/// `UFFDIO_WRITEPROTECT_MODE_WP`.
pub(super) const PROTECT: u64 = 1;
/// `UFFDIO_WRITEPROTECT_MODE_DONTWAKE`.
pub(super) const DONT_WAKE: u64 = 2;

/// `UFFD_EVENT_PAGEFAULT`.
pub(super) const PAGE_FAULT: u8 = 0x12;
/// `UFFD_PAGEFAULT_FLAG_WRITE` and `_WP`: either means that somebody wants to write.
pub(super) const WRITES: u64 = 1 | 2;

/// A feature that is needed.
#[derive(Debug)]
pub(super) struct Feature {
    pub(super) bit: u64,
    pub(super) name: &'static str,
    pub(super) since: &'static str,
}

/// What is needed, the youngest first. `CONTINUE_PROTECTED` has no bit of its own; it is of Linux 6.4.
pub(super) const FEATURES: [Feature; 5] = [
    Feature { bit: 1 << 14, name: "UFFD_FEATURE_POISON", since: "6.6" },
    Feature { bit: 1 << 12, name: "UFFD_FEATURE_WP_HUGETLBFS_SHMEM", since: "5.19" },
    Feature { bit: 1 << 10, name: "UFFD_FEATURE_MINOR_SHMEM", since: "5.14" },
    Feature { bit: 1 << 5, name: "UFFD_FEATURE_MISSING_SHMEM", since: "4.11" },
    Feature { bit: 1 << 0, name: "UFFD_FEATURE_PAGEFAULT_FLAG_WP", since: "5.7" },
];

/// `struct uffdio_api`.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Handshake {
    pub(super) api: u64,
    pub(super) features: u64,
    pub(super) ioctls: u64,
}

/// `struct uffdio_range`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Range {
    pub(super) start: u64,
    pub(super) len: u64,
}

/// `struct uffdio_register`.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Register {
    pub(super) range: Range,
    pub(super) mode: u64,
    pub(super) ioctls: u64,
}

/// `struct uffdio_writeprotect`.
#[derive(Debug)]
#[repr(C)]
pub(super) struct WriteProtect {
    pub(super) range: Range,
    pub(super) mode: u64,
}

/// `struct uffdio_continue`, and `struct uffdio_poison`, which has the same form.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Resume {
    pub(super) range: Range,
    pub(super) mode: u64,
    /// Bytes that were done, or a negative error number.
    pub(super) done: i64,
}

/// `struct uffd_msg`, with the arguments of a page fault.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Message {
    pub(super) event: u8,
    reserved: [u8; 7],
    pub(super) flags: u64,
    pub(super) address: u64,
    thread: u32,
    rest: u32,
}

const _: () = assert!(size_of::<Message>() == 32);
