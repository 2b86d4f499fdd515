//! A trial access, in a child process, to memory that may end the process that touches it.
//!
//! On memory that is not cached, a locked instruction may be forbidden (bus locks on x86, with
//! `split_lock_detect=fatal`), or not exist (exclusives on device memory, on Arm). The kernel then sends a signal.
//!
//! # Invariants
//! 1. The child maps the memory itself, before this process does: there is no mapping to inherit.
//! 2. The child only makes system calls, so it does not matter which locks of this process other threads held when
//!    the child was made.
//! 3. The rest of this process does not notice the child: it is made without a signal at its end, and a `wait` for
//!    any child does not find it. All its signals are blocked, so no handler of this process runs there; the signal of
//!    a fault ends it nevertheless.
//!
//! # What it does not do
//! It changes no byte: the compare-and-swap puts back what it found.

use std::{
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    ptr,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::{
    io::{Errno, retry_on_intr},
    process::{Pid, WaitOptions, waitpid},
};

use crate::error::{DeviceError, HostError};

const PAGE: usize = 4096;

/// How the child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Fine,
    /// `mmap` failed.
    Refused(Errno),
    /// A signal ended it.
    Killed(i32),
}

/// Makes a child that maps the page at `at` of the file, and does one atomic operation on its first word.
pub(crate) fn touch(
    file: BorrowedFd<'_>,
    at: u64,
    refused: impl Fn(&'static str, Errno) -> HostError,
) -> Result<(), HostError> {
    let at = libc::off_t::try_from(at).map_err(|_| refused("mmap", Errno::INVAL))?;
    match in_child(file.as_raw_fd(), at).map_err(|errno| refused("clone", errno))? {
        End::Fine => Ok(()),
        End::Refused(errno) => Err(refused("mmap", errno)),
        End::Killed(signal) => Err(DeviceError::Kills { signal }.into()),
    }
}

fn in_child(file: RawFd, at: libc::off_t) -> Result<End, Errno> {
    let blocked = Blocked::all()?;
    // SAFETY: `clone` without flags is `fork` without handlers, and wants a child that needs no other thread: this one
    // only makes system calls, and ends by `_exit`. Without a stack and flags all arguments are 0, so their order,
    // which differs between machines, does not matter.
    let pid = unsafe { libc::syscall(libc::SYS_clone, 0_u64, 0_u64, 0_u64, 0_u64, 0_u64) };
    if pid == 0 {
        child(file, at);
    }
    let made = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // -1 is no process id. The error number is read before `drop`, whose call could change it.
    let failed = std::io::Error::last_os_error();
    drop(blocked);
    let Some(child) = made else {
        return Err(Errno::from_io_error(&failed).unwrap_or(Errno::NOMEM));
    };
    end_of(child)
}

/// Never returns.
fn child(file: RawFd, at: libc::off_t) -> ! {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // The child must leave no core file.
    // SAFETY: `setrlimit` wants a valid pointer: it is to a local.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: `mmap` with a null hint and without MAP_FIXED replaces nothing.
    let page = unsafe { libc::mmap(ptr::null_mut(), PAGE, access, libc::MAP_SHARED, file, at) };
    let status = if page == libc::MAP_FAILED {
        // Error numbers are less than 256.
        std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL)
    } else {
        // SAFETY: `from_ptr` wants an aligned pointer to memory that is accessed by atomics only: a page is aligned,
        // and the child does nothing else with it. If the memory cannot be accessed, the child ends here, which is
        // its purpose.
        let word = unsafe { AtomicU64::from_ptr(page.cast()) };
        let found = word.load(Ordering::Relaxed);
        // A failed exchange is as good as a successful one: the instruction has run.
        let _ = word.compare_exchange(found, found, Ordering::SeqCst, Ordering::Relaxed);
        0
    };
    // SAFETY: `_exit` has no requirement.
    unsafe { libc::_exit(status) }
}

fn end_of(child: Pid) -> Result<End, Errno> {
    // Without a signal at its end the child counts as a clone, which only `__WALL` waits for.
    let options = WaitOptions::from_bits_retain(libc::__WALL.cast_unsigned());
    loop {
        let Some((_, status)) = retry_on_intr(|| waitpid(Some(child), options))? else { continue };
        if let Some(signal) = status.terminating_signal() {
            return Ok(End::Killed(signal));
        }
        match status.exit_status() {
            Some(0) => return Ok(End::Fine),
            Some(number) => return Ok(End::Refused(Errno::from_raw_os_error(number))),
            None => {}
        }
    }
}

/// Blocks all signals of this thread until it is dropped.
struct Blocked {
    before: libc::sigset_t,
}

impl Blocked {
    fn all() -> Result<Self, Errno> {
        let mut all = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: `sigfillset` wants a pointer it may write to: it is to a local.
        unsafe { libc::sigfillset(all.as_mut_ptr()) };
        let mut before = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: `pthread_sigmask` wants a set to read and one to write: both are locals, and the
        // first has been filled.
        let error =
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
        if error != 0 {
            return Err(Errno::from_raw_os_error(error));
        }
        // SAFETY: `assume_init` wants an initialised value: zeroed bytes are one, and the call has
        // written the set.
        Ok(Self { before: unsafe { before.assume_init() } })
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: `pthread_sigmask` wants a set to read: the one that `all` got from it.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut())
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use std::{fs::File, os::fd::AsFd, path::Path};

    fn refused(call: &'static str, errno: Errno) -> HostError {
        HostError::call(call, Path::new("x"), errno)
    }

    fn file(scratch: &Scratch, bytes: &[u8]) -> File {
        let path = scratch.path("file");
        std::fs::write(&path, bytes).unwrap();
        File::options().read(true).write(true).open(path).unwrap()
    }

    #[test]
    fn a_trial_access_to_good_memory_changes_no_byte() {
        let scratch = Scratch::new();
        let bytes = [7; 2 * PAGE];
        let file = file(&scratch, &bytes);
        touch(file.as_fd(), PAGE as u64, refused).unwrap();
        assert_eq!(std::fs::read(scratch.path("file")).unwrap(), bytes);
    }

    #[test]
    fn memory_that_kills_kills_the_child_only() {
        let scratch = Scratch::new();
        // Beyond the last page of a file there is nothing.
        let file = file(&scratch, &[7; PAGE]);
        let error = touch(file.as_fd(), PAGE as u64, refused).unwrap_err();
        let HostError::Device(DeviceError::Kills { signal }) = error else { panic!("{error}") };
        assert_eq!(signal, libc::SIGBUS);
    }

    #[test]
    fn memory_that_cannot_be_mapped_gives_the_error_of_mmap() {
        let scratch = Scratch::new();
        let file = file(&scratch, &[7; PAGE]);
        let error = touch(file.as_fd(), 5, refused).unwrap_err();
        assert!(matches!(error, HostError::Call { call: "mmap", .. }), "{error}");
        assert_eq!(error.errno(), Some(libc::EINVAL));
    }

    #[test]
    fn the_signals_of_the_thread_are_unblocked_afterwards() {
        let scratch = Scratch::new();
        let file = file(&scratch, &[7; PAGE]);
        touch(file.as_fd(), 0, refused).unwrap();
        let mut mask = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: `pthread_sigmask` with a null set only reports, into a local.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), mask.as_mut_ptr()) };
        // SAFETY: `sigismember` wants a set that was initialised, which the call above did.
        assert_eq!(unsafe { libc::sigismember(mask.as_ptr(), libc::SIGTERM) }, 0);
    }
}
