//! The machine of the memory manager (`commonhold-mm`) in this process: memory is memfds, translations are the
//! kernel's, and faults arrive through a userfaultfd.
//!
//! # What it owns
//! - [`UffdMmu`], the machine (`mmu.rs`): objects are memfds (`object.rs`; `frame.rs` for what a page will hold), spaces
//!   are reserved ranges of addresses (`reservation.rs`, `table.rs` for what they show, and `gather.rs` for changes that
//!   wait until the manager has given up its locks). `ioctl.rs` and `abi.rs` hold the kernel's calls.
//! - [`Paging`], the threads (`threads.rs`): one reads faults and tells the manager, others serve the manager's pulses
//!   (`workers.rs` starts and ends them, `work_signal.rs` wakes them; `deferred.rs` has what the first thread does after a
//!   delay).
//! - [`PagedSpace`]: a space whose memory this program can touch.
//! - [`FilePager`]: a pager that keeps an object's pages in a file.
//!
//! # Invariants
//! 1. A range that shows a memfd is registered for missing pages, for pages that are in memory and not mapped
//!    (minor faults), and for write protection: from before the first access is possible until it shows nothing
//!    again. So no access makes the kernel add a page of zeros that the manager does not know.
//! 2. A forked child has neither the ranges nor the descriptors (`ForkGuard` and `OwnFd` of `commonhold-host`).
//! 3. A thread that holds a lock of the manager, and the thread that reads faults, touch no memory of a space: pages
//!    are filled and copied by `pwrite` and `pread` on the memfd.
//! 4. The userfaultfd reports page faults, and `mremap` of memory of a space, and no other events: `munmap` and `madvise`
//!    would wait until a thread reads theirs.
//! 5. A page that cannot be served gives SIGBUS, never zeros: it is poisoned.
//! 6. The userfaultfd is closed after the last range has gone: closing it would turn missing pages into zeros. If the
//!    program closes it all the same, the ranges lose all rights.
//! 7. A descriptor is checked to be the machine's own before a call that another file would understand.
//!
//! # Who changes what
//! Only the manager's calls to [`UffdMmu`] change pages, translations and poison. Those of one space change under the
//! lock of its table (`reservation.rs`). What a page holds changes by `pwrite` while the manager fills it, by punching
//! when the manager releases it, and by the program through the window.
//!
//! # What it does not do
//! It serves one process. `commonhold-mm` decides which page goes, and what a fault means. The kernel may swap memfds
//! out on its own: this crate neither sees nor prevents that.
#![cfg(not(loom))]
#![cfg(target_os = "linux")]

mod abi;
mod deferred;
mod file_pager;
mod frame;
mod gather;
mod ioctl;
mod mmu;
mod object;
mod reservation;
mod table;
#[cfg(test)]
mod tests;
mod threads;
mod work_signal;
mod workers;

pub use file_pager::{FilePager, FilePagerError};
pub use frame::UffdFrame;
pub use gather::UffdGather;
pub use ioctl::UserfaultError;
pub use mmu::UffdMmu;
pub use object::UffdObject;
pub use reservation::UffdSpace;
pub use threads::{PagedSpace, Paging, PagingError};

/// The example in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
