//! Address spaces, memory objects, faults and residency: a memory manager as a library.
//!
//! The algorithms are those of a microkernel's virtual memory manager (the published notes on the
//! one of QNX Neutrino), over two ports, so that the same code is checked on a software MMU
//! ([`soft::SoftMmu`]) and drives a real one.
//!
//! # What it owns
//! The [`AddressSpace`]s and their mappings, the [`Object`]s and the states of their pages, the faults that
//! wait for a worker, and the order in which pages leave when memory is short.
//!
//! # Invariants
//! 1. Lock order: address space, then object, then leaves, then short locks; kept by types ([`order`]).
//! 2. No lock is held while a [`Pager`] works, and everything is looked at again after it.
//! 3. A writable translation exists only to a page that is `Dirty`. So write-back takes write access away
//!    first, and every later write faults. The machine takes rights away with nothing locked, since that may take
//!    long; until it has, faults that would give them back wait.
//! 4. A page loses its memory only when no translation to it is left. An eviction takes memory only if no
//!    locked mapping covers the page, and its contents are with the pager or were never changed. Only a
//!    resize that cuts the page off, and the end of its object, ask neither; a discard asks for locks.
//! 5. A translation is made under the locks of both space and object. The lock of either is enough to take it
//!    away, or its write access.
//! 6. Each pulse ends in exactly one [`Mmu::wake`], unless its space is being dropped.
//!
//! # What it does not do
//! It starts no threads, knows no clock, and touches no memory. Its user brings the MMU, the locks, and worker
//! threads that call [`Manager::serve`].
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(any(test, shuttle))]
extern crate std;

mod access;
mod advise;
mod atomic;
mod budget;
mod buffers;
mod discard;
mod error;
mod evict;
mod extent;
mod fault;
mod fill;
mod index;
mod lost;
mod manager;
mod map;
mod object;
pub mod order;
mod page;
mod pager;
mod pin;
mod pins;
mod policy;
mod populate;
mod port;
mod prepare;
mod protect;
mod pulse;
mod query;
mod reads;
mod reclaim;
mod reference;
mod refusal;
mod replace;
mod residency;
mod resize;
mod reverse;
mod rings;
mod serve;
mod share;
pub mod soft;
mod space;
mod unit;
mod unmap;
mod withdraw;
mod write_error;
mod writeback;
mod writes;

pub use access::{PageBytes, Patience};
pub use advise::Advice;
pub use budget::Budget;
pub use error::{Error, FaultError, MmuError};
pub use evict::Evicted;
pub use fault::{Context, Fault};
pub use manager::{Defaults, Manager, Settings};
pub use map::{MapRequest, Placement};
pub use object::{Kind, Object};
pub use page::State;
pub use pager::{
    BytesPager, CompressedPager, CompressedUse, FailingPager, Pager, PagerCall, PagerError,
    ReadRequest, Which, ZeroPager,
};
pub use pin::Pinned;
pub use policy::{Answer, Candidate, NoMemory, Residents, Round, Slot, Step, Trace};
pub use port::{
    Access, Contents, Installed, Lane, Mmu, Protection, Released, Seen, Wait, Writable,
};
pub use query::{FaultCounts, ObjectTotals, PageInfo, SpaceTotals};
pub use reference::Reach;
pub use residency::{IoPrivilege, Residency, Scope};
pub use space::AddressSpace;
pub use unit::{LIMIT, ObjectPage, ObjectSpan, Page, Pages, Span, VirtualPage, VirtualSpan};
