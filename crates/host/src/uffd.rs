//! A machine of the memory manager (`commonhold-mm`) out of this process's own address space: memory is
//! memfds, translations are the kernel's, and faults come through a userfaultfd.
//!
//! # What it owns
//! - [`UffdMmu`], the machine: objects are memfds (`object.rs`), spaces are reserved ranges of addresses
//!   (`space.rs`), and `ioctl.rs` is all that is known of the kernel's calls.
//! - [`Paging`], the threads: one reads faults and tells the manager, others serve its pulses (`paging.rs`).
//! - [`PagedSpace`]: a space whose memory this program can touch.
//!
//! # Invariants
//! 1. A range shows a memfd only while it is registered for missing pages, for pages that are there and not
//!    mapped (minor faults), and for write protection: from before the first access is possible until it shows
//!    nothing again. So no access plants a page of zeros that the manager does not know.
//! 2. No forked child has any of it: neither ranges nor descriptors (`fork.rs`).
//! 3. Who holds a lock of the manager, and who reads faults, touches no memory of a space: pages are filled and
//!    copied by `pwrite` and `pread` on the memfd.
//! 4. No event but page faults is asked for. Others would have `munmap` and `madvise` wait until somebody
//!    reads them.
//! 5. A page that cannot be served gives SIGBUS, never zeros: it is poisoned.
//! 6. The userfaultfd is closed after the last range has gone: closing it would turn missing pages into zeros.
//!
//! # What it does not do
//! It serves one process. What the kernel does to memfds on its own, such as swapping, it neither sees nor
//! prevents.

mod abi;
mod ioctl;
mod later;
mod machine;
mod object;
mod paging;
mod signal;
mod space;
mod table;

pub use ioctl::UserfaultError;
pub use machine::UffdMmu;
pub use object::UffdObject;
pub use paging::{PagedSpace, Paging, PagingError};
pub use space::UffdSpace;
