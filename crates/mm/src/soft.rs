//! A machine in software: memory, page tables, and processors that remember translations.
//!
//! It exists to find the mistakes of a memory manager, so it never forgets a translation by itself: a [`Cpu`] goes
//! on using a translation that it remembers, even if the page table has changed since, until
//! [`finish`](crate::Mmu::finish), [`detach`](crate::Mmu::detach) or [`protect`](crate::Mmu::protect) makes it forget.
//! It reports a [`Violation`] if memory is released while a table or a processor still refers to it, and for every
//! use of such memory.
//!
//! # Invariants
//! 1. Only its object, tables that translate to it, and processors that remember it refer to a frame of memory.
//!    So [`release`](crate::Mmu::release) sees by the number of references whether it comes too early.
//! 2. A processor locks its remembered translations during each access. So a flush waits for the access that is
//!    under way, as an interprocessor interrupt does.

mod cpu;
mod frame;
mod machine;
mod steering;
mod table;
mod tlb;
mod violation;
mod waits;

pub use cpu::Cpu;
pub use frame::SoftFrame;
pub use machine::{SoftGather, SoftMmu, SoftObject, SoftSpace};
pub use table::Translation;
pub use violation::Violation;
