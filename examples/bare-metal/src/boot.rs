//! The first instructions, and the page tables they begin with.
//!
//! # What it owns
//! The tables of the first GiB, mapped at its own addresses: below 2 MiB for reading only, where the
//! loader has left what it had to say and where a stack that grows too far ends; above it for
//! everything. And the root table, of which `map.rs` uses another entry for the window.

use core::{arch::global_asm, sync::atomic::AtomicU64};

/// Entries of a page table.
pub(crate) const ENTRIES: usize = 512;
/// An entry is there.
pub(crate) const PRESENT: u64 = 1;
/// It may be written through.
pub(crate) const WRITABLE: u64 = 2;
/// It is a page of 2 MiB, and not a further table.
pub(crate) const LARGE: u64 = 0x80;
/// Bytes of a large page.
pub(crate) const LARGE_PAGE: u64 = 2 << 20;
/// Up to here memory is mapped at its own address.
pub(crate) const LOW_END: u64 = ENTRIES as u64 * LARGE_PAGE;

/// A page table of any level. Its entries are atomic so that a `static` one can be changed safely; the
/// processor reads them as well.
#[repr(C, align(4096))]
pub(crate) struct Table(pub(crate) [AtomicU64; ENTRIES]);

impl Table {
    /// A table of nothing.
    pub(crate) const fn empty() -> Self {
        Self([const { AtomicU64::new(0) }; ENTRIES])
    }

    #[allow(clippy::indexing_slicing, reason = "at compile time; there are no iterators there")]
    const fn of_low_memory() -> Self {
        let mut table = Self::empty();
        let mut at = 0;
        while at < ENTRIES {
            let access = if at == 0 { PRESENT } else { PRESENT | WRITABLE };
            table.0[at] = AtomicU64::new((at as u64 * LARGE_PAGE) | LARGE | access);
            at += 1;
        }
        table
    }
}

/// The root: one entry for each 512 GiB.
pub(crate) static ROOT: Table = Table::empty();
/// One entry for each GiB, of which the first is used.
static DIRECTORIES: Table = Table::empty();
static LOW_PAGES: Table = Table::of_low_memory();

global_asm!(
    include_str!("boot.s"),
    root = sym ROOT,
    directories = sym DIRECTORIES,
    low_pages = sym LOW_PAGES,
    main = sym crate::main,
    options(att_syntax),
);
