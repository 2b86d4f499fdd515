//! The memory manager.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(any(test, loom, shuttle))]
extern crate std;

mod pager;
mod policy;
mod unit;

pub use pager::{
    BytesPager, CompressedPager, CompressedUse, FailingPager, Pager, PagerCall, PagerError, Which,
    ZeroPager,
};
pub use policy::{Answer, Candidate, NoMemory, Residents, Round, Slot, Step, Trace};
pub use unit::{LIMIT, ObjectPage, ObjectSpan, Page, Pages, Span, VirtualPage, VirtualSpan};
