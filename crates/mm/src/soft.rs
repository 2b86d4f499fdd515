//! A machine in software: memory, page tables, and processors that remember translations.
//!
//! It is there to find what a memory manager does wrong, so it is as forgetful as a real machine is not: a
//! [`Cpu`] goes on using a translation that it has remembered, whatever the page table says since, until
//! [`flush`](crate::Mmu::flush), [`detach`](crate::Mmu::detach) or [`protect`](crate::Mmu::protect) reach it. Memory
//! that is taken away while some table or processor still knows it is a [`Violation`], and so is every use of it.
//!
//! # Invariants
//! 1. A frame of memory is held by its object, by tables that translate to it, and by processors that
//!    remember it, and by nobody else. So [`release`](crate::Mmu::release) sees by the number of holders
//!    whether it comes too early.
//! 2. A processor does each access with its memory of translations locked: a flush waits for the access
//!    that is under way, as an interprocessor interrupt does.

mod cpu;
mod machine;
mod table;
mod tlb;

pub use cpu::Cpu;
pub use machine::{SoftMmu, SoftObject, SoftSpace, Violation};
pub use table::Translation;
