//! Pages compressed in memory.
//!
//! It owns the pages that were written, in blocks of memory up to a limit (`blocks`), and two *desks*: a desk has
//! the table and the buffer for one compression or decompression at a time.
//!
//! # Invariants
//! 1. A page of zeros is not kept, and takes no memory. A page that compression does not make smaller by at least
//!    one block is kept as it is.
//! 2. A write that fails changes nothing. A write cannot fail for lack of room if it needs no more blocks than the
//!    page has already.
//! 3. What is read is checked: its length, and its LZ4 format. No bytes in it cause a panic.
//!
//! Lock order: a desk, then the store. Compression runs with the desk only; bytes are copied with both.
//!
//! It keeps no checksums: a bit that flips in memory is not noticed here, as in any other page.

use alloc::vec::Vec;
use core::fmt;

use hashbrown::HashMap;
use lock_api::{Mutex, MutexGuard, RawMutex};
use lz4_flex::block::{
    CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size,
};

use super::{
    Pager, PagerError,
    blocks::{BLOCK, Blocks, Chain, blocks},
};
use crate::{NoMemory, ObjectPage, ObjectSpan};

/// Pages below this size need only the small table of LZ4.
const SMALL: usize = u16::MAX as usize;

/// Keeps pages compressed in memory (LZ4), up to a limit. Pages that were never written are zeros.
///
/// `R` is a raw lock of the user's choice. Two calls can compress or decompress at the same time; others wait.
///
/// # Examples
/// ```
/// use commonhold_mm::{CompressedPager, ObjectPage, Pager};
///
/// let pager = CompressedPager::<parking_lot::RawMutex>::new(4096, 1 << 20)?;
/// pager.write(ObjectPage::new(7), &[42; 4096])?;
/// let mut page = [0; 4096];
/// pager.read(ObjectPage::new(7), &mut page)?;
/// assert_eq!(page, [42; 4096]);
/// assert_eq!(pager.usage().taken_bytes, 128);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct CompressedPager<R> {
    store: Mutex<R, Store>,
    desks: [Mutex<R, Desk>; 2],
}

/// What a [`CompressedPager`] keeps, and in how much memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompressedUse {
    /// Pages that are kept. Pages of zeros are not.
    pub pages: u64,
    /// Kept pages that could not be compressed.
    pub plain_pages: u64,
    /// The size of the kept pages before compression.
    pub page_bytes: u64,
    /// Their size after compression.
    pub kept_bytes: u64,
    /// Their size in whole blocks, which counts against the limit. The table that finds them takes some 25 bytes a
    /// page more.
    pub taken_bytes: u64,
    /// The most that `taken_bytes` can be.
    pub limit_bytes: u64,
}

impl CompressedUse {
    /// How many bytes of memory 100 bytes of pages take; `None` if there are no pages.
    #[must_use]
    pub fn percent(&self) -> Option<u64> {
        self.taken_bytes.saturating_mul(100).checked_div(self.page_bytes)
    }
}

#[derive(Debug)]
struct Store {
    pages: HashMap<u64, Kept>,
    blocks: Blocks,
    usage: CompressedUse,
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    chain: Chain,
    /// The size of the page: that of the chain, if the page is kept as it is.
    page: usize,
}

/// The memory that one compression or decompression needs, allocated beforehand.
struct Desk {
    table: CompressTable,
    buffer: Vec<u8>,
    /// Pages of this size and more must not be compressed: LZ4 would replace the table by a larger one, and abort if
    /// there is no memory for it.
    limit: usize,
}

impl<R: RawMutex> CompressedPager<R> {
    /// A pager for pages of `page` bytes, which takes at most `limit` bytes of memory, as it needs them.
    ///
    /// # Errors
    /// [`NoMemory`] for the desks. Their tables, 8 KiB each (16 KiB for pages of 64 KiB and more), come from
    /// LZ4, which aborts if there is no memory for them: only here, and never later.
    pub fn new(page: usize, limit: usize) -> Result<Self, NoMemory> {
        let blocks = Blocks::new(limit);
        let usage = CompressedUse {
            pages: 0,
            plain_pages: 0,
            page_bytes: 0,
            kept_bytes: 0,
            taken_bytes: 0,
            limit_bytes: to_u64(limit / BLOCK * BLOCK),
        };
        let store = Mutex::new(Store { pages: HashMap::new(), blocks, usage });
        let desks = [Mutex::new(Desk::new(page)?), Mutex::new(Desk::new(page)?)];
        Ok(Self { store, desks })
    }

    /// What it keeps now.
    #[must_use]
    pub fn usage(&self) -> CompressedUse {
        self.store.lock().usage
    }

    /// Locks a free desk; if none is free, waits for the first.
    fn desk(&self) -> MutexGuard<'_, R, Desk> {
        let [one, two] = &self.desks;
        one.try_lock().or_else(|| two.try_lock()).unwrap_or_else(|| one.lock())
    }
}

impl<R: RawMutex + Send + Sync> Pager for CompressedPager<R> {
    fn read(&self, page: ObjectPage, into: &mut [u8]) -> Result<(), PagerError> {
        let mut desk = self.desk();
        let store = self.store.lock();
        let Some(kept) = store.pages.get(&page.number()).copied() else {
            into.fill(0);
            return Ok(());
        };
        let damaged = PagerError::Damaged { page };
        if kept.is_plain() {
            return store.blocks.load(kept.chain, into).ok_or(damaged);
        }
        let buffer = desk.buffer.get_mut(..kept.chain.len()).ok_or(damaged)?;
        store.blocks.load(kept.chain, buffer).ok_or(damaged)?;
        drop(store);
        match decompress_into(buffer, into) {
            Ok(len) if len == into.len() => Ok(()),
            _ => Err(damaged),
        }
    }

    fn write(&self, page: ObjectPage, from: &[u8]) -> Result<(), PagerError> {
        if is_zero(from) {
            self.store.lock().forget(page.number());
            return Ok(());
        }
        let mut desk = self.desk();
        let bytes = desk.compress(from).unwrap_or(from);
        self.store
            .lock()
            .keep(page.number(), bytes, from.len())
            .map_err(|NoMemory| PagerError::Full)
    }

    fn discard(&self, pages: ObjectSpan) -> Result<(), PagerError> {
        let mut store = self.store.lock();
        if pages.pages().0 <= to_u64(store.pages.len()) {
            pages.iter().for_each(|page| store.forget(page.number()));
        } else {
            store.forget_all_of(&pages);
        }
        Ok(())
    }

    fn compresses(&self) -> bool {
        true
    }
}

impl Store {
    fn keep(&mut self, page: u64, bytes: &[u8], page_len: usize) -> Result<(), NoMemory> {
        self.pages.try_reserve(1).map_err(|_| NoMemory)?;
        let old = self.pages.get(&page).map_or(0, |kept| kept.chain.blocks());
        if !self.blocks.prepare(blocks(bytes.len()).saturating_sub(old)) {
            return Err(NoMemory);
        }
        self.remove(page);
        let chain = self.blocks.store(bytes).ok_or(NoMemory)?;
        let kept = Kept { chain, page: page_len };
        self.pages.insert(page, kept);
        self.usage.add(kept, self.blocks.used());
        Ok(())
    }

    fn forget(&mut self, page: u64) {
        self.remove(page);
        self.blocks.trim();
    }

    fn forget_all_of(&mut self, pages: &ObjectSpan) {
        let Self { pages: all, blocks, usage } = self;
        all.retain(|page, kept| {
            let stays = !pages.contains(ObjectPage::new(*page));
            if !stays {
                blocks.release(kept.chain);
                usage.take(*kept, blocks.used());
            }
            stays
        });
        blocks.trim();
    }

    fn remove(&mut self, page: u64) {
        if let Some(kept) = self.pages.remove(&page) {
            self.blocks.release(kept.chain);
            self.usage.take(kept, self.blocks.used());
        }
    }
}

impl Kept {
    const fn is_plain(&self) -> bool {
        self.chain.len() == self.page
    }
}

impl CompressedUse {
    fn add(&mut self, kept: Kept, blocks: usize) {
        self.pages += 1;
        self.plain_pages += u64::from(kept.is_plain());
        self.page_bytes += to_u64(kept.page);
        self.kept_bytes += to_u64(kept.chain.len());
        self.taken_bytes = to_u64(blocks * BLOCK);
    }

    fn take(&mut self, kept: Kept, blocks: usize) {
        self.pages -= 1;
        self.plain_pages -= u64::from(kept.is_plain());
        self.page_bytes -= to_u64(kept.page);
        self.kept_bytes -= to_u64(kept.chain.len());
        self.taken_bytes = to_u64(blocks * BLOCK);
    }
}

impl Desk {
    fn new(page: usize) -> Result<Self, NoMemory> {
        let mut buffer = Vec::new();
        let len = get_maximum_output_size(page);
        buffer.try_reserve_exact(len).map_err(|_| NoMemory)?;
        buffer.resize(len, 0);
        let large = page >= SMALL;
        let table = if large { CompressTable::large() } else { CompressTable::small() };
        Ok(Self { table, buffer, limit: if large { usize::MAX } else { SMALL } })
    }

    /// The compressed page; `None` if that saves no block, or the page is too large for this desk.
    fn compress(&mut self, page: &[u8]) -> Option<&[u8]> {
        if page.len() >= self.limit {
            return None;
        }
        let len = compress_into_with_table(page, &mut self.buffer, &mut self.table).ok()?;
        self.buffer.get(..len).filter(|bytes| blocks(bytes.len()) < blocks(page.len()))
    }
}

fn is_zero(page: &[u8]) -> bool {
    // In pieces, which the compiler turns into wide instructions.
    page.chunks(64).all(|piece| piece.iter().fold(0, |bits, byte| bits | byte) == 0)
}

const fn to_u64(len: usize) -> u64 {
    len as u64
}

impl<R: RawMutex> fmt::Debug for CompressedPager<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompressedPager").field("usage", &self.usage()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
