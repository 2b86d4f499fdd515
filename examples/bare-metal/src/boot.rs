//! The first instructions, and the page tables for them.
//!
//! # What it owns
//! The page tables of the first GiB, which is mapped at its physical addresses. Below 2 MiB it is read-only: there the
//! loader has left its data, and there a stack that grows too far faults. Above 2 MiB everything is permitted. Also
//! the root table, in which `map.rs` uses another entry for the window.

use core::{arch::global_asm, sync::atomic::AtomicU64};

/// How many entries a page table has.
pub(crate) const ENTRIES: usize = 512;
/// Bit of an entry: the entry is present.
pub(crate) const PRESENT: u64 = 1;
/// Bit of an entry: writes are permitted.
pub(crate) const WRITABLE: u64 = 2;
/// Bit of an entry: it maps a page of 2 MiB, and does not name a further table.
pub(crate) const LARGE: u64 = 0x80;
/// Size of a large page in bytes.
pub(crate) const LARGE_PAGE: u64 = 2 << 20;
/// Memory below this address is mapped at its physical address.
pub(crate) const LOW_END: u64 = ENTRIES as u64 * LARGE_PAGE;

/// A page table of any level. Its entries are atomic so that a `static` one can be changed safely; the
/// processor reads them as well.
#[repr(C, align(4096))]
pub(crate) struct Table(pub(crate) [AtomicU64; ENTRIES]);

impl Table {
    /// A table without present entries.
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
