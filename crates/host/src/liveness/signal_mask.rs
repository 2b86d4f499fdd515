//! Threads that take no signals.
//!
//! A signal for the whole process goes to any thread that does not block it, and its handler may touch any memory and
//! wait for any thread. So a thread that others wait for blocks all signals from its first instruction on: its creator
//! blocks them around the creation, since a new thread inherits the mask.

use std::{mem, ptr};

/// All signals are blocked in this thread until this is dropped; then the mask is as it was before.
///
/// A fault of the thread itself (SIGSEGV, SIGBUS) then ends the process, even if the process has a handler for it.
#[derive(Debug)]
pub struct SignalMask {
    before: libc::sigset_t,
    /// The mask is the thread's own, so no other thread may set it again.
    _of_this_thread: std::marker::PhantomData<*const ()>,
}

impl SignalMask {
    /// Blocks all signals in the calling thread.
    #[must_use]
    pub fn block_all() -> Self {
        // SAFETY: `zeroed` wants a type for which zeros are a value: a set of signals is bits.
        let mut all: libc::sigset_t = unsafe { mem::zeroed() };
        let mut before = all;
        // SAFETY: `sigfillset` wants a set that it may write.
        unsafe { libc::sigfillset(&raw mut all) };
        // SAFETY: `pthread_sigmask` wants two sets, or null; it reads the one and writes the other.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before) };
        Self { before, _of_this_thread: std::marker::PhantomData }
    }
}

impl Drop for SignalMask {
    fn drop(&mut self) {
        let before = &raw const self.before;
        // SAFETY: as in `block_all`; the mask before is not wanted, so its pointer is null.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, ptr::null_mut()) };
    }
}
