//! Mapping the window.
//!
//! # What it owns
//! The second entry of the root table: addresses from 512 GiB, where the window is mapped in pages of 2 MiB, with
//! write-back caching like ordinary memory. The whole guest lies in the first entry, so the two cannot overlap.
//!
//! # Invariants
//! 1. No other code makes pointers to these addresses, so the [`Window`] is the only way to access them.
//! 2. They are mapped once and never unmapped.
//!
//! Write-back is right because the bar is really memory of the host; a real device would need another type. If the
//! window is not a multiple of 2 MiB, the first and the last page also map other addresses, which are never accessed.

use core::{
    ptr::{self, NonNull},
    sync::atomic::{AtomicBool, Ordering},
};

use commonhold_window::Window;

use crate::{
    boot::{ENTRIES, LARGE, LARGE_PAGE, PRESENT, ROOT, Table, WRITABLE},
    failure::Failure,
    pci::Bar,
};

/// The largest window, in GiB: each needs a table.
const MOST_GIB: usize = 16;
const WINDOW_AT: u64 = 512 << 30;

static DIRECTORIES: Table = Table::empty();
static PAGES: [Table; MOST_GIB] = [const { Table::empty() }; MOST_GIB];
static MAPPED: AtomicBool = AtomicBool::new(false);

/// Maps the window in a bar.
///
/// # Errors
/// [`Failure::WindowTooLarge`].
pub(crate) fn window(bar: Bar) -> Result<Window, Failure> {
    let too_large = Failure::WindowTooLarge { size: bar.size, most: (MOST_GIB as u64) << 30 };
    let skipped = bar.base % LARGE_PAGE;
    let pages = bar.size.checked_add(skipped).ok_or(too_large)?.div_ceil(LARGE_PAGE);
    let pages = usize::try_from(pages).map_err(|_| too_large)?;
    if pages > MOST_GIB * ENTRIES || MAPPED.swap(true, Ordering::Relaxed) {
        return Err(too_large);
    }
    // Relaxed everywhere: only this processor reads the tables, when it first accesses these addresses.
    for (entry, table) in DIRECTORIES.0.iter().zip(&PAGES) {
        entry.store(address(table) | PRESENT | WRITABLE, Ordering::Relaxed);
    }
    let mut at = bar.base - skipped;
    for entry in PAGES.iter().flat_map(|table| &table.0).take(pages) {
        entry.store(at | LARGE | PRESENT | WRITABLE, Ordering::Relaxed);
        at += LARGE_PAGE;
    }
    let [_, entry, ..] = &ROOT.0;
    // Release: keeps the compiler from moving the stores to the tables below behind this one. The processor caches
    // nothing about addresses that were not mapped, so there is nothing to flush.
    entry.store(address(&DIRECTORIES) | PRESENT | WRITABLE, Ordering::Release);
    let base = usize::try_from(WINDOW_AT + skipped).map_err(|_| too_large)?;
    let base = NonNull::new(ptr::with_exposed_provenance_mut(base)).ok_or(too_large)?;
    let len = usize::try_from(bar.size).map_err(|_| too_large)?;
    // SAFETY: `from_raw` wants an address aligned to 8 bytes (a bar is aligned to at least 16), and
    // `len` bytes there that stay mapped, readable and writable, to which nobody has references: they
    // were mapped just now, for the only time, and are never unmapped.
    Ok(unsafe { Window::from_raw(base, len) })
}

/// The physical address of a table, which is also its virtual address.
fn address(table: &'static Table) -> u64 {
    ptr::from_ref(table).expose_provenance() as u64
}
