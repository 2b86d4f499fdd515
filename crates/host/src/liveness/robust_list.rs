//! Robust lists: they tell the kernel which words to mark when a thread ends, whatever ends it.
//!
//! The kernel keeps for each thread the address of a list of *robust futexes* (set_robust_list(2)). When the thread
//! ends, the kernel walks that list and looks at one more futex, `list_op_pending`. In each futex that names the
//! thread it sets `FUTEX_OWNER_DIED`, and it wakes one sleeper.
//!
//! # What it owns
//! The kernel's structures for such lists, and the two calls. Two users:
//! - `death_futex.rs`: the heartbeat thread has a list of ours, with one entry, the *death futex* of its peer.
//! - `life_word.rs`: each thread that has a slot lets `list_op_pending` of the C library's list point to its *life
//!   word*.
//!
//! # What it does not do
//! It gives no meaning to the words: `commonhold_sync` does.

mod death_futex;
mod life_word;

use std::{io, mem, ptr, sync::atomic::AtomicUsize};

pub(crate) use death_futex::RobustList;
pub(crate) use life_word::DeathWords;

/// `struct robust_list`: an entry.
#[derive(Debug)]
#[repr(C)]
struct Entry {
    next: *const Entry,
}

/// `struct robust_list_head`.
#[derive(Debug)]
#[repr(C)]
struct Head {
    list: Entry,
    /// From an entry to its futex, in bytes.
    futex_offset: libc::c_long,
    /// One more entry that the kernel looks at. The low bit says that the futex inherits priority.
    list_op_pending: AtomicUsize,
}

/// The list that is registered for the calling thread, and the length of its head.
fn registered() -> io::Result<(*const Head, libc::size_t)> {
    let mut head: *const Head = ptr::null();
    let mut len: libc::size_t = 0;
    // SAFETY: the call wants a process id (0: this thread) and two places that it may write.
    let asked = unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut len) };
    if asked == 0 { Ok((head, len)) } else { Err(io::Error::last_os_error()) }
}

/// Registers a list for the calling thread, and replaces the list before.
///
/// # Safety
/// The list stays valid until another is registered or the thread has ended: the kernel may read it until then.
unsafe fn register(head: *const Head) -> io::Result<()> {
    // SAFETY: the call wants a list that stays valid as long as the kernel knows it, which the caller vouches for.
    let set = unsafe { libc::syscall(libc::SYS_set_robust_list, head, mem::size_of::<Head>()) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
