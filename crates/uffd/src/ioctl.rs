//! The userfaultfd: how it is made, its calls, and what their errors mean.
//!
//! # The three meanings of `EAGAIN`
//! - From `read`: there is no event.
//! - From a call that reports a positive number of bytes as done: continue behind these bytes.
//! - From any other call: the address space is being changed, so try again a little later. While `mremap` waits for its
//!   event to be read, all calls but waking answer so. So the thread that reads events does not repeat a call.
//!
//! # Events
//! Page faults, and `mremap` of registered memory, whose event is read and dropped: see [`Userfault::reader`].
//!
//! # What it does not do
//! It knows no pages and no spaces, only addresses. `reservation.rs` makes sure that they are the right ones.

use std::{
    error::Error,
    fmt, io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    thread,
    time::Duration,
};

use commonhold_host::{ForkGuard, OwnFd};
use commonhold_mm::{Access, Wait, Writable};
use parking_lot::{RwLock, RwLockReadGuard};
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

/// How often a call is made again while the address space is being changed: some milliseconds in all.
const PATIENCE: u32 = 120;
/// How often the thread only yields before that, and how long it sleeps then. The thread that reads events may need its
/// processor: against a program that moves memory in a loop, sleeping gets 30 times as many calls done as yielding.
const YIELDS: u32 = 20;
const PAUSE: Duration = Duration::from_micros(20);
/// The most faults in one read.
pub(crate) const BATCH: usize = 16;

/// Why there is no userfaultfd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UserfaultError {
    /// The kernel was built without userfaultfd.
    NoSuchCall,
    /// Neither the system call nor `/dev/userfaultfd` is permitted.
    NotPermitted {
        /// The error number of the system call.
        code: i32,
    },
    /// The kernel is too old.
    TooOld {
        /// The feature that it lacks, by its name in the kernel's header.
        feature: &'static str,
        /// The first version of Linux that has it.
        since: &'static str,
    },
    /// A call failed.
    Call {
        /// The call's name.
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
                write!(f, "userfaultfd is not permitted ({why}): it needs CAP_SYS_PTRACE, or ")?;
                f.write_str("/dev/userfaultfd to be readable and writable, or a seccomp filter that allows it")
            }
            Self::TooOld { feature, since } => {
                write!(f, "this kernel lacks {feature}: use Linux {since} or later")
            }
            Self::Call { call, code } => {
                write!(f, "{call} failed: {}", io::Error::from_raw_os_error(code))
            }
        }
    }
}

impl Error for UserfaultError {}

/// A fault, in which a thread waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FaultEvent {
    pub(crate) address: usize,
    pub(crate) access: Access,
    /// The number of that thread, as `gettid` tells it.
    pub(crate) thread: u32,
}

/// A userfaultfd.
#[derive(Debug)]
pub(crate) struct Userfault {
    file: OwnFd,
    user_mode_only: bool,
    /// Whether a thread reads events.
    is_read: RwLock<bool>,
}

impl Userfault {
    /// A userfaultfd with all required features, by the system call or the device.
    pub(crate) fn open(guard: ForkGuard) -> Result<Self, UserfaultError> {
        let (probe, _) = descriptor()?;
        let offered = handshake(&probe, 0)?;
        if let Some(lacking) = FEATURES.iter().find(|feature| offered & feature.bit == 0) {
            let (feature, since) = (lacking.name, lacking.since);
            return Err(UserfaultError::TooOld { feature, since });
        }
        // Features can be chosen only once for a descriptor, so this takes a new one.
        let (file, user_mode_only) = descriptor()?;
        let wanted = FEATURES.iter().fold(0, |all, feature| all | feature.bit);
        handshake(&file, wanted)?;
        let file = OwnFd::new(file, guard).map_err(UserfaultError::call("userfaultfd"))?;
        Ok(Self { file, user_mode_only, is_read: RwLock::new(false) })
    }

    /// Whether system calls that touch a missing page fail, because only faults of the program itself are served.
    pub(crate) const fn user_mode_only(&self) -> bool {
        self.user_mode_only
    }

    /// Permits to move registered memory by `mremap`, which waits for the thread that reads events: that thread does not
    /// end while this is held. `None` if there is no such thread.
    pub(crate) fn reader(&self) -> Option<RwLockReadGuard<'_, bool>> {
        let is_read = self.is_read.read();
        is_read.then_some(is_read)
    }

    /// Says whether a thread reads events. Waits for moves under way.
    pub(crate) fn set_read(&self, is_read: bool) {
        *self.is_read.write() = is_read;
    }

    /// The descriptor, for calls that no other file understands; an error in a forked child.
    pub(crate) fn descriptor(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.file.get().ok_or(Errno::BADF)
    }

    /// The descriptor, to wait for events and to read them; an error in a forked child, and if the program has closed it.
    pub(crate) fn to_read(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.file.checked().ok_or(Errno::BADF)
    }

    /// Reports all faults in these bytes from now on.
    pub(crate) fn register(&self, start: usize, len: usize) -> Result<(), Errno> {
        let range = range(start, len);
        let mut register = Register { range, mode: REGISTER_ALL, ioctls: 0 };
        self.call::<REGISTER, _>(&mut register)
    }

    /// Maps the memory that the memfd has, and wakes the waiting threads. `EXIST`: it is mapped already, and no thread
    /// was woken. `FAULT`: the memfd has no memory there. `AGAIN`: the address space is being changed.
    pub(crate) fn resume(
        &self,
        start: usize,
        len: usize,
        writable: Writable,
        wait: Wait,
    ) -> Result<(), Errno> {
        let mode = if writable == Writable::Yes { 0 } else { CONTINUE_PROTECTED };
        self.go_on(start, len, wait, |range| {
            let mut resume = Resume { range, mode, done: 0 };
            (self.call::<CONTINUE, _>(&mut resume), resume.done)
        })
    }

    /// Makes accesses give SIGBUS, and wakes the waiting threads. `EXIST`: something is mapped or marked there.
    /// `NOENT`: the bytes are not registered. `AGAIN`: the address space is being changed.
    pub(crate) fn poison(&self, start: usize, len: usize) -> Result<(), Errno> {
        self.go_on(start, len, Wait::Never, |range| {
            let mut poison = Resume { range, mode: 0, done: 0 };
            (self.call::<POISON, _>(&mut poison), poison.done)
        })
    }

    /// Makes writes fault. When this returns, no write is under way.
    pub(crate) fn write_protect(&self, start: usize, len: usize) -> Result<(), Errno> {
        self.set_protection(start, len, PROTECT, Wait::Briefly)
    }

    /// Lets writes through again, and wakes the threads that wait to write.
    pub(crate) fn allow_writes(&self, start: usize, len: usize, wait: Wait) -> Result<(), Errno> {
        self.set_protection(start, len, 0, wait)
    }

    /// Clears the write-protection mark that a page without memory may have kept. Wakes no thread.
    pub(crate) fn clear_mark(&self, start: usize, len: usize) -> Result<(), Errno> {
        self.set_protection(start, len, DONT_WAKE, Wait::Never)
    }

    fn set_protection(&self, start: usize, len: usize, mode: u64, wait: Wait) -> Result<(), Errno> {
        self.go_on(start, len, wait, |range| {
            let mut protect = WriteProtect { range, mode };
            (self.call::<WRITE_PROTECT, _>(&mut protect), 0)
        })
    }

    /// Wakes the threads that wait in these bytes: they try again.
    pub(crate) fn wake(&self, start: usize, len: usize) {
        let mut range = range(start, len);
        // The kernel checks only the range, which is valid, so this cannot fail.
        let _ = self.call::<WAKE, _>(&mut range);
    }

    /// The faults that wait to be read, up to a batch of them. Never blocks. Other events end by being read.
    pub(crate) fn read(&self, mut each: impl FnMut(FaultEvent)) -> Result<(), Errno> {
        let mut messages = [Message::default(); BATCH];
        let file = self.to_read()?.as_raw_fd();
        let room = size_of_val(&messages);
        // SAFETY: `read` wants as much room as it is told: `room` is the size of the whole array, and any bytes are
        // valid for its elements.
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
                each(FaultEvent { address, access, thread: message.thread });
            }
        }
        Ok(())
    }

    fn call<const CALL: Opcode, T>(&self, argument: &mut T) -> Result<(), Errno> {
        // SAFETY: `update` wants the structure of the call: each caller in this file names a call of the kernel's
        // header together with its structure. It also wants that the call's effect on memory is wanted:
        // `reservation.rs` passes its own ranges only.
        unsafe { update::<CALL, T>(self.descriptor()?, argument) }
    }

    /// Repeats `call` until all bytes are done; while the address space is being changed, only if it may wait. `call`
    /// returns its result, and how many bytes it has reported as done.
    fn go_on(
        &self,
        start: usize,
        len: usize,
        wait: Wait,
        mut call: impl FnMut(Range) -> (Result<(), Errno>, i64),
    ) -> Result<(), Errno> {
        let mut rest = range(start, len);
        let (mut tries, patience) = (0, if wait == Wait::Never { 0 } else { PATIENCE });
        while rest.len > 0 {
            match call(rest) {
                (Ok(()), _) => return Ok(()),
                (Err(Errno::AGAIN), done) if done > 0 => {
                    let done = done.unsigned_abs().min(rest.len);
                    rest = Range { start: rest.start + done, len: rest.len - done };
                }
                (Err(Errno::AGAIN), _) if tries < patience => {
                    tries += 1;
                    if tries <= YIELDS { thread::yield_now() } else { thread::sleep(PAUSE) }
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
/// `T` must be the structure of the call, and the call's effect on memory must be wanted.
unsafe fn update<const CALL: Opcode, T>(
    file: BorrowedFd<'_>,
    argument: &mut T,
) -> Result<(), Errno> {
    // SAFETY: `Updater::new` wants the structure of the call, which the caller vouches for.
    let call = unsafe { Updater::<CALL, T>::new(argument) };
    // SAFETY: `ioctl` wants a call whose effect is wanted, which the caller vouches for.
    unsafe { ioctl(file, call) }
}

/// Asks for `features`, and returns the features that the kernel has.
fn handshake(file: &OwnedFd, features: u64) -> Result<u64, UserfaultError> {
    let mut handshake = Handshake { api: API, features, ioctls: 0 };
    let file = std::os::fd::AsFd::as_fd(file);
    // SAFETY: `update` wants the structure of the call, which this is; it touches no other memory.
    let said = unsafe { update::<HANDSHAKE, _>(file, &mut handshake) };
    said.map_err(UserfaultError::call("UFFDIO_API"))?;
    Ok(handshake.features)
}

/// A new descriptor, and whether it serves only faults of the program itself.
fn descriptor() -> Result<(OwnedFd, bool), UserfaultError> {
    let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
    // SAFETY: `userfaultfd` wants that its descriptor is not used to break memory safety: only `Userfault` uses it.
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
    // By `syscall`, since C libraries differ in the type of the second argument of `ioctl`.
    // SAFETY: `ioctl` wants the argument of the call: for `NEW` it is a number, the flags of the descriptor.
    let made = unsafe { libc::syscall(libc::SYS_ioctl, device.as_raw_fd(), NEW, flags) };
    let raw = i32::try_from(made).ok().filter(|raw| *raw >= 0)?;
    // SAFETY: `from_raw_fd` wants a descriptor without another owner: the kernel has just made it.
    Some(unsafe { OwnedFd::from_raw_fd(raw) })
}
