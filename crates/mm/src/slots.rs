//! The mappings of an address space as a walk over an object's references sees them.
//!
//! # What it owns
//! One *slot* for each mapping: which pages of the space show which pages of the object, and whether they
//! must stay in memory. Slots never move, and their memory is reused but never freed: the number of a slot
//! stays valid for ever.
//!
//! # Invariants
//! 1. A slot's contents are written before it is linked. While it is linked, only two things change, each by one
//!    store: the number of its pages, at their end, and whether it is locked.
//! 2. Freeing a slot changes its `next` only: a walk that stands on it still reads its former contents.
//! 3. A slot that is marked `in_use` is not reused. A walk that marks one must check afterwards that the slot was
//!    still linked (`reference.rs`).
//!
//! # Who may change what
//! Links, contents and the [`FreeList`]: the thread that has the space locked to write. `in_use`: any walk.

use alloc::{boxed::Box, vec::Vec};

use once_cell::race::OnceBox;

use crate::{
    Error, ObjectPage, ObjectSpan, Page, Span, VirtualPage, VirtualSpan,
    atomic::{AtomicU32, AtomicU64, Ordering, store_then_load},
};

/// Slots in the first chunk; each further chunk is twice as large. Few for loom, which pays for each atomic.
const FIRST_CHUNK: u32 = if cfg!(loom) { 4 } else { 32 };
/// The chunks together hold 2^32 - 32 slots.
const CHUNKS: usize = 27;

/// The number of a slot. In a link, `None` ends the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotId(u32);

impl SlotId {
    /// The link to `slot`; 0 is the end.
    pub(crate) const fn to_link(slot: Option<Self>) -> u32 {
        match slot {
            Some(Self(index)) => index + 1,
            None => 0,
        }
    }

    /// The slot that a link leads to.
    pub(crate) const fn from_link(link: u32) -> Option<Self> {
        match link.checked_sub(1) {
            Some(index) => Some(Self(index)),
            None => None,
        }
    }
}

/// The pages of a mapping: in the space, and in the object from `first` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) at: VirtualSpan,
    pub(crate) first: ObjectPage,
}

impl Extent {
    /// The pages of the object that it shows.
    pub(crate) fn of_object(&self) -> ObjectSpan {
        Span::between(self.first, self.first.plus(self.at.pages().0))
    }

    /// The page of the object that is shown at `at`, which lies in the mapping.
    #[inline]
    pub(crate) fn page(&self, at: VirtualPage) -> ObjectPage {
        self.first.plus(at.number().saturating_sub(self.at.first().number()))
    }

    /// The page of the space that shows `page`, which the mapping shows.
    pub(crate) fn place(&self, page: ObjectPage) -> VirtualPage {
        self.at.first().plus(page.number().saturating_sub(self.first.number()))
    }

    /// The pages of the space that show `pages`, all of which the mapping shows.
    pub(crate) fn places(&self, pages: &ObjectSpan) -> VirtualSpan {
        let first = self.place(pages.first());
        Span::between(first, first.plus(pages.pages().0))
    }
}

/// One mapping.
#[derive(Debug)]
pub(crate) struct Slot {
    /// In a linked slot, the next slot of its reference; in a free one, the next free slot.
    pub(crate) next: AtomicU32,
    /// The slot before. No walk reads it.
    pub(crate) previous: AtomicU32,
    in_use: AtomicU32,
    locked: AtomicU32,
    at: AtomicU64,
    pages: AtomicU64,
    first: AtomicU64,
}

impl Slot {
    fn new() -> Self {
        Self {
            next: AtomicU32::new(0),
            previous: AtomicU32::new(0),
            in_use: AtomicU32::new(0),
            locked: AtomicU32::new(0),
            at: AtomicU64::new(0),
            pages: AtomicU64::new(0),
            first: AtomicU64::new(0),
        }
    }

    /// Its pages. Meaningful only while the slot is known to be linked.
    pub(crate) fn extent(&self) -> Extent {
        // Relaxed: the Release in `link` or `link_after` comes after the stores of these, and the walk's Acquire of
        // the link before this. If the number of pages changes meanwhile, either value is right (`reference.rs`).
        let at = VirtualPage::new(self.at.load(Ordering::Relaxed));
        let pages = self.pages.load(Ordering::Acquire);
        let first = ObjectPage::new(self.first.load(Ordering::Relaxed));
        Extent { at: Span::between(at, at.plus(pages)), first }
    }

    /// Whether its pages must stay in memory.
    pub(crate) fn is_locked(&self) -> bool {
        // Acquire: pairs with the Release in `set_locked`. A lock sets the flag first, and then brings pages in
        // under the object's lock; so a walk that takes that lock later sees the flag.
        self.locked.load(Ordering::Acquire) != 0
    }

    /// Notes whether its pages must stay in memory.
    pub(crate) fn set_locked(&self, locked: bool) {
        self.locked.store(u32::from(locked), Ordering::Release);
    }

    /// Sets how many pages it shows.
    pub(crate) fn set_pages(&self, pages: u64) {
        // Release: pairs with the Acquire in `extent`: a walk that reads fewer pages sees the slot of the rest linked.
        self.pages.store(pages, Ordering::Release);
    }

    /// Keeps the slot from being reused until [`leave`](Self::leave).
    pub(crate) fn enter(&self) {
        // SeqCst, Dekker's pattern: the walk writes this and then reads the generation; `unlink` moves the
        // generation, and `take_free` then reads this.
        self.in_use.fetch_add(1, Ordering::SeqCst);
        store_then_load();
    }

    /// Ends [`enter`](Self::enter).
    pub(crate) fn leave(&self) {
        // Release: pairs with the SeqCst load in `take_free`; the walk has read the slot before it is reused.
        self.in_use.fetch_sub(1, Ordering::Release);
    }
}

/// The slots without a mapping. Guarded by the lock of the space.
#[derive(Debug, Default)]
pub(crate) struct FreeList {
    head: u32,
    /// Slots from here on have never been used.
    fresh: u32,
}

/// All slots of a space.
pub(crate) struct Slots {
    chunks: [OnceBox<[Vec<Slot>; 1]>; CHUNKS],
}

impl core::fmt::Debug for Slots {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Slots").finish_non_exhaustive()
    }
}

impl Slots {
    pub(crate) fn new() -> Self {
        Self { chunks: [const { OnceBox::new() }; CHUNKS] }
    }

    /// The slot with this number, if it has been made.
    pub(crate) fn get(&self, SlotId(index): SlotId) -> Option<&Slot> {
        let (chunk, place) = place(index);
        let [chunk] = self.chunks.get(chunk)?.get()?;
        chunk.get(place)
    }

    /// A slot with these pages, not linked yet.
    pub(crate) fn allocate(&self, free: &mut FreeList, extent: Extent) -> Result<SlotId, Error> {
        let id = match self.take_free(free) {
            Some(id) => id,
            None => self.take_fresh(free)?,
        };
        let slot = self.get(id).ok_or(Error::NoMemory)?;
        slot.at.store(extent.at.first().number(), Ordering::Relaxed);
        slot.pages.store(extent.at.pages().0, Ordering::Relaxed);
        slot.first.store(extent.first.number(), Ordering::Relaxed);
        slot.locked.store(0, Ordering::Relaxed);
        Ok(id)
    }

    /// Frees a slot. It has been unlinked, and the generation has moved since.
    pub(crate) fn free(&self, free: &mut FreeList, id: SlotId) {
        if let Some(slot) = self.get(id) {
            // Release: pairs with the Acquire of `next` in `walk_once`. A walk that stands on the slot and reads this
            // link finds the generation moved, and does not follow it.
            slot.next.store(free.head, Ordering::Release);
            free.head = SlotId::to_link(Some(id));
        }
    }

    /// The first free slot that no walk stands on.
    fn take_free(&self, free: &mut FreeList) -> Option<SlotId> {
        // `unlink` has moved the generation; the loads of `in_use` must come after that store.
        store_then_load();
        let mut before: Option<&Slot> = None;
        let mut link = free.head;
        loop {
            let id = SlotId::from_link(link)?;
            let slot = self.get(id)?;
            let next = slot.next.load(Ordering::Relaxed);
            // SeqCst: pairs with `enter`.
            if slot.in_use.load(Ordering::SeqCst) == 0 {
                match before {
                    // Release: as in `free`.
                    Some(before) => before.next.store(next, Ordering::Release),
                    None => free.head = next,
                }
                return Some(id);
            }
            before = Some(slot);
            link = next;
        }
    }

    fn take_fresh(&self, free: &mut FreeList) -> Result<SlotId, Error> {
        let index = free.fresh;
        let (chunk, _) = place(index);
        let cell = self.chunks.get(chunk).ok_or(Error::NoMemory)?;
        if cell.get().is_none() {
            let count = chunk_length(chunk);
            let mut slots = Vec::new();
            slots.try_reserve_exact(count)?;
            slots.resize_with(count, Slot::new);
            let mut boxed = Vec::new();
            boxed.try_reserve_exact(1)?;
            boxed.push(slots);
            let boxed: Result<Box<[Vec<Slot>; 1]>, _> = boxed.into_boxed_slice().try_into();
            // The caller has the space locked to write, so no other thread has set the cell meanwhile.
            let _ = cell.set(boxed.map_err(|_| Error::NoMemory)?);
        }
        free.fresh += 1;
        Ok(SlotId(index))
    }
}

/// The chunk of a slot, and the slot's place in it.
fn place(index: u32) -> (usize, usize) {
    let turn = (index / FIRST_CHUNK + 1).ilog2();
    // Both fit: a chunk number is below 32, a place below 2^31.
    (turn as usize, (index - FIRST_CHUNK * ((1 << turn) - 1)) as usize)
}

fn chunk_length(chunk: usize) -> usize {
    (FIRST_CHUNK as usize) << chunk
}
