//! The userfaultfd itself: making one, and its calls, each with what its errors mean.
//!
//! # `EAGAIN`, which means three things
//! - From `read`: there is no event.
//! - From a call that reports what it has done, with a positive report: that much, so go on behind it.
//! - From any call otherwise: the address space is being changed, so once more, a little later.
//!
//! # What it does not do
//! It knows no pages and no spaces, only addresses. Whether they are the right ones is `reservation.rs`'s concern.

use std::{
    error::Error,
    fmt, io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    thread,
};

use commonhold_host::{ForkGuard, OwnFd};
use commonhold_mm::{Access, Writable};
use rustix::{
    fs::{Mode, OFlags, open},
    io::Errno,
    ioctl::{Opcode, Updater, ioctl},
    mm::{UserfaultfdFlags, userfaultfd},
};

use crate::abi::{
    API, CONTINUE, CONTINUE_PROTECTED, DONT_WAKE, FEATURES, HANDSHAKE, Handshake, Message, NEW,
    PAGE_FAULT, POISON, PROTECT, REGISTER, REGISTER_ALL, Range, Register, Resume, USER_MODE_ONLY,
    WAKE, WRITE_PROTECT, WRITES, WriteProtect,
};

/// How often a call is made again while the address space is being changed.
const PATIENCE: u32 = 1000;
/// Faults that are read at once.
pub(crate) const BATCH: usize = 16;

/// Why there is no userfaultfd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UserfaultError {
    /// The kernel was built without.
    NoSuchCall,
    /// Neither the system call nor `/dev/userfaultfd` is permitted.
    NotPermitted {
        /// What the system call said.
        code: i32,
    },
    /// The kernel is too old.
    TooOld {
        /// The feature that it lacks, as the kernel's header calls it.
        feature: &'static str,
        /// The first version of Linux that has it.
        since: &'static str,
    },
    /// A call failed.
    Call {
        /// Which.
        call: &'static str,
        /// The operating system's number for the error.
        code: i32,
    },
}

impl UserfaultError {
    pub(crate) fn call(call: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::Call { call, code: errno.raw_os_error() }
    }
}

impl fmt::Display for UserfaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoSuchCall => f.write_str("this kernel has no userfaultfd"),
            Self::NotPermitted { code } => {
                let why = io::Error::from_raw_os_error(code);
                write!(f, "userfaultfd is not permitted ({why}): it takes CAP_SYS_PTRACE, or ")?;
                f.write_str("/dev/userfaultfd to be readable and writable, or a seccomp filter that allows it")
            }
            Self::TooOld { feature, since } => {
                write!(f, "this kernel lacks {feature}: it takes Linux {since}")
            }
            Self::Call { call, code } => {
                write!(f, "{call} failed: {}", io::Error::from_raw_os_error(code))
            }
        }
    }
}

impl Error for UserfaultError {}

/// A fault that somebody waits in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FaultEvent {
    pub(crate) address: usize,
    pub(crate) access: Access,
}

/// A userfaultfd.
#[derive(Debug)]
pub(crate) struct Userfault {
    file: OwnFd,
    user_mode_only: bool,
}

impl Userfault {
    /// A userfaultfd with all that is needed, by whatever way is open.
    pub(crate) fn open(guard: ForkGuard) -> Result<Self, UserfaultError> {
        let (probe, _) = descriptor()?;
        let offered = handshake(&probe, 0)?;
        if let Some(lacking) = FEATURES.iter().find(|feature| offered & feature.bit == 0) {
            let (feature, since) = (lacking.name, lacking.since);
            return Err(UserfaultError::TooOld { feature, since });
        }
        // Features can be chosen only once.
        let (file, user_mode_only) = descriptor()?;
        let wanted = FEATURES.iter().fold(0, |all, feature| all | feature.bit);
        handshake(&file, wanted)?;
        let file = OwnFd::new(file, guard).map_err(UserfaultError::call("userfaultfd"))?;
        Ok(Self { file, user_mode_only })
    }

    /// Whether system calls that touch a missing page fail, because only faults of programs are served.
    pub(crate) const fn user_mode_only(&self) -> bool {
        self.user_mode_only
    }

    /// The descriptor, to wait for events; none in a forked child.
    pub(crate) fn descriptor(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.file.get().ok_or(Errno::BADF)
    }

    /// All faults in these bytes are told from now on.
    pub(crate) fn register(&self, start: usize, len: usize) -> Result<(), Errno> {
        let range = range(start, len);
        let mut register = Register { range, mode: REGISTER_ALL, ioctls: 0 };
        self.call::<REGISTER, _>(&mut register)
    }

    /// Maps what the memfd has, and wakes who waits for it. `EXIST`: it is mapped already, and nobody was
    /// woken. `FAULT`: the memfd has nothing there.
    pub(crate) fn resume(&self, start: usize, len: usize, writable: Writable) -> Result<(), Errno> {
        let mode = if writable == Writable::Yes { 0 } else { CONTINUE_PROTECTED };
        self.go_on(start, len, |range| {
            let mut resume = Resume { range, mode, done: 0 };
            (self.call::<CONTINUE, _>(&mut resume), resume.done)
        })
    }

    /// Accesses give SIGBUS from now on; wakes who waits. `EXIST`: something is mapped or marked there. `NOENT`:
    /// the bytes are not registered.
    pub(crate) fn poison(&self, start: usize, len: usize) -> Result<(), Errno> {
        self.go_on(start, len, |range| {
            let mut poison = Resume { range, mode: 0, done: 0 };
            (self.call::<POISON, _>(&mut poison), poison.done)
        })
    }

    /// Writes fault from now on: when this returns, none is under way.
    pub(crate) fn write_protect(&self, start: usize, len: usize) -> Result<(), Errno> {
        self.set_protection(start, len, PROTECT)
    }

    /// Writes are let through again, and who waits to write is woken.
    pub(crate) fn allow_writes(&self, start: usize, len: usize) -> Result<(), Errno> {
        self.set_protection(start, len, 0)
    }

    /// Takes the mark away that a page without memory can have of its former protection. Wakes nobody.
    pub(crate) fn clear_mark(&self, start: usize, len: usize) -> Result<(), Errno> {
        self.set_protection(start, len, DONT_WAKE)
    }

    fn set_protection(&self, start: usize, len: usize, mode: u64) -> Result<(), Errno> {
        self.go_on(start, len, |range| {
            let mut protect = WriteProtect { range, mode };
            (self.call::<WRITE_PROTECT, _>(&mut protect), 0)
        })
    }

    /// Whoever waits in these bytes tries again.
    pub(crate) fn wake(&self, start: usize, len: usize) {
        let mut range = range(start, len);
        // Nothing but the range is looked at, and that is in order.
        let _ = self.call::<WAKE, _>(&mut range);
    }

    /// The faults that wait to be read, up to a batch of them. Never blocks.
    pub(crate) fn read(&self, mut each: impl FnMut(FaultEvent)) -> Result<(), Errno> {
        let mut messages = [Message::default(); BATCH];
        let file = self.descriptor()?.as_raw_fd();
        let room = size_of_val(&messages);
        // SAFETY: `read` wants as much room as it is told: that of the whole array, whose elements may have
        // any bytes.
        let read = unsafe { libc::read(file, messages.as_mut_ptr().cast(), room) };
        let Ok(read) = usize::try_from(read) else {
            return match io::Error::last_os_error().raw_os_error().map(Errno::from_raw_os_error) {
                None | Some(Errno::AGAIN | Errno::INTR) => Ok(()),
                Some(errno) => Err(errno),
            };
        };
        for message in messages.iter().take(read / size_of::<Message>()) {
            let Ok(address) = usize::try_from(message.address) else { continue };
            let access = if message.flags & WRITES == 0 { Access::Read } else { Access::Write };
            if message.event == PAGE_FAULT {
                each(FaultEvent { address, access });
            }
        }
        Ok(())
    }

    fn call<const CALL: Opcode, T>(&self, argument: &mut T) -> Result<(), Errno> {
        // SAFETY: `Updater` wants the argument that the call takes and fills: each caller in this file names
        // a call of the kernel's header together with its structure, and `ioctl` wants memory that is only
        // changed as the kernel is asked to: `reservation.rs` calls for its own ranges only.
        unsafe { update::<CALL, T>(self.descriptor()?, argument) }
    }

    /// Makes a call until all bytes are done. It says what came of it, and how much it has reported.
    fn go_on(
        &self,
        start: usize,
        len: usize,
        mut call: impl FnMut(Range) -> (Result<(), Errno>, i64),
    ) -> Result<(), Errno> {
        let (mut rest, mut patience) = (range(start, len), PATIENCE);
        while rest.len > 0 {
            match call(rest) {
                (Ok(()), _) => return Ok(()),
                (Err(Errno::AGAIN), done) if done > 0 => {
                    let done = done.unsigned_abs().min(rest.len);
                    rest = Range { start: rest.start + done, len: rest.len - done };
                }
                (Err(Errno::AGAIN), _) if patience > 0 => {
                    patience -= 1;
                    thread::yield_now();
                }
                (Err(errno), _) => return Err(errno),
            }
        }
        Ok(())
    }
}

const fn range(start: usize, len: usize) -> Range {
    Range { start: start as u64, len: len as u64 }
}

/// # Safety
/// As for the call: `T` is its structure, and what it does to memory is wanted.
unsafe fn update<const CALL: Opcode, T>(
    file: BorrowedFd<'_>,
    argument: &mut T,
) -> Result<(), Errno> {
    // SAFETY: `Updater::new` wants the structure of the call, which the caller vouches for.
    let call = unsafe { Updater::<CALL, T>::new(argument) };
    // SAFETY: `ioctl` wants a call whose effect is wanted, which the caller vouches for.
    unsafe { ioctl(file, call) }
}

/// Says which features are wanted, and is told which there are.
fn handshake(file: &OwnedFd, features: u64) -> Result<u64, UserfaultError> {
    let mut handshake = Handshake { api: API, features, ioctls: 0 };
    let file = std::os::fd::AsFd::as_fd(file);
    // SAFETY: `update` wants the structure of the call, which this is; it touches no other memory.
    let said = unsafe { update::<HANDSHAKE, _>(file, &mut handshake) };
    said.map_err(UserfaultError::call("UFFDIO_API"))?;
    Ok(handshake.features)
}

/// A new descriptor, and whether it is for faults of programs only.
fn descriptor() -> Result<(OwnedFd, bool), UserfaultError> {
    let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
    // SAFETY: what the descriptor lets its holder do to memory is done by `Userfault` alone.
    if let Ok(file) = unsafe { userfaultfd(flags) } {
        return Ok((file, false));
    }
    if let Some(file) = by_device() {
        return Ok((file, false));
    }
    let flags = flags | UserfaultfdFlags::from_bits_retain(USER_MODE_ONLY);
    // SAFETY: as above.
    match unsafe { userfaultfd(flags) } {
        Ok(file) => Ok((file, true)),
        Err(Errno::NOSYS) => Err(UserfaultError::NoSuchCall),
        Err(errno @ (Errno::PERM | Errno::ACCESS)) => {
            Err(UserfaultError::NotPermitted { code: errno.raw_os_error() })
        }
        Err(errno) => Err(UserfaultError::call("userfaultfd")(errno)),
    }
}

fn by_device() -> Option<OwnedFd> {
    let device = open("/dev/userfaultfd", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    // The kernel's call, since `ioctl` takes its second argument as another type in each C library.
    // SAFETY: `ioctl` wants the argument of the call: of this one it is a number, flags of the descriptor.
    let made = unsafe { libc::syscall(libc::SYS_ioctl, device.as_raw_fd(), NEW, flags) };
    let raw = i32::try_from(made).ok().filter(|raw| *raw >= 0)?;
    // SAFETY: `from_raw_fd` wants a descriptor that nobody else owns: the kernel has just made it.
    Some(unsafe { OwnedFd::from_raw_fd(raw) })
}
