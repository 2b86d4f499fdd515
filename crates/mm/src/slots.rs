//! The mappings of an address space as a walk over an object's references sees them.
//!
//! # What it owns
//! One *slot* for each mapping: which pages of the space show which pages of the object, and whether they
//! must stay in memory. Slots never move and are never given back, only used again: a number that was
//! once a slot's always is.
//!
//! # Invariants
//! 1. What a slot says is written before it is linked, and stays, except that its pages may become more or
//!    fewer at their end, and that it becomes locked or unlocked, each by one store.
//! 2. Freeing a slot changes its `next` only: who stands on it still reads what it was.
//! 3. A slot that somebody has marked `in_use` is not used again. Whoever marks one has to make sure
//!    afterwards that it was still linked (`reference.rs`).
//!
//! # Who may change what
//! Links, contents and the [`FreeList`]: who has the space locked to write. `in_use`: any walk.

use alloc::{boxed::Box, vec::Vec};

use once_cell::race::OnceBox;

use crate::{
    Error, ObjectPage, ObjectSpan, Page, Span, VirtualPage, VirtualSpan,
    atomic::{AtomicU32, AtomicU64, Ordering, store_then_load},
};

/// Slots in the first chunk; each further one is twice as large. Few for loom, which pays for each atomic.
const FIRST_CHUNK: u32 = if cfg!(loom) { 4 } else { 32 };
/// The chunks together hold 2^31 slots.
const CHUNKS: usize = 27;

/// Where a mapping's slot is; `None` ends a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotId(u32);

impl SlotId {
    /// As it stands in a link: 0 is the end.
    pub(crate) const fn to_link(slot: Option<Self>) -> u32 {
        match slot {
            Some(Self(index)) => index + 1,
            None => 0,
        }
    }

    /// What stands in a link.
    pub(crate) const fn from_link(link: u32) -> Option<Self> {
        match link.checked_sub(1) {
            Some(index) => Some(Self(index)),
            None => None,
        }
    }
}

/// What a slot says of its mapping.
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

    /// The page of the object that `at`, one of its pages, shows.
    #[inline]
    pub(crate) fn page(&self, at: VirtualPage) -> ObjectPage {
        self.first.plus(at.number().saturating_sub(self.at.first().number()))
    }

    /// The page of the space at which it shows `page`, one of the object's pages that it shows.
    pub(crate) fn place(&self, page: ObjectPage) -> VirtualPage {
        self.at.first().plus(page.number().saturating_sub(self.first.number()))
    }

    /// The pages of the space at which it shows `pages`, pages of the object that it shows.
    pub(crate) fn places(&self, pages: &ObjectSpan) -> VirtualSpan {
        let first = self.place(pages.first());
        Span::between(first, first.plus(pages.pages().0))
    }
}

/// One mapping.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Of a linked slot, the next of its reference; of a free one, the next free one.
    pub(crate) next: AtomicU32,
    /// The one before. No walk reads it.
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

    /// What it says. Exact only as long as the slot is known to be linked.
    pub(crate) fn extent(&self) -> Extent {
        // Relaxed: whoever linked the slot did so with Release, after writing these; and of changes
        // at the end of the pages, either value is right (`reference.rs`).
        let at = VirtualPage::new(self.at.load(Ordering::Relaxed));
        let pages = self.pages.load(Ordering::Acquire);
        let first = ObjectPage::new(self.first.load(Ordering::Relaxed));
        Extent { at: Span::between(at, at.plus(pages)), first }
    }

    /// Whether its pages must stay in memory.
    pub(crate) fn is_locked(&self) -> bool {
        // Acquire: pairs with `set_locked`. A page that was brought in for a lock was brought in under the
        // object's lock, after the flag; a walk under that lock thereafter sees it.
        self.locked.load(Ordering::Acquire) != 0
    }

    /// Says so.
    pub(crate) fn set_locked(&self, locked: bool) {
        self.locked.store(u32::from(locked), Ordering::Release);
    }

    /// It shows so many pages from now on.
    pub(crate) fn set_pages(&self, pages: u64) {
        // Release: pairs with the load in `extent`: who sees fewer pages sees the slot of the others linked.
        self.pages.store(pages, Ordering::Release);
    }

    /// Keeps it from being used again until [`leave`](Self::leave).
    pub(crate) fn enter(&self) {
        // SeqCst: then the walk reads the generation, while a freer moves the generation and then an
        // allocation reads this (Dekker).
        self.in_use.fetch_add(1, Ordering::SeqCst);
        store_then_load();
    }

    /// Ends [`enter`](Self::enter).
    pub(crate) fn leave(&self) {
        self.in_use.fetch_sub(1, Ordering::Release);
    }
}

/// Slots that no mapping has. Guarded by the lock of the space.
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

    /// The slot, if there is one with this number.
    pub(crate) fn get(&self, SlotId(index): SlotId) -> Option<&Slot> {
        let (chunk, place) = place(index);
        let [chunk] = self.chunks.get(chunk)?.get()?;
        chunk.get(place)
    }

    /// A slot that says `extent`, not linked yet.
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

    /// Gives a slot back that has been unlinked, with the generation moved after that.
    pub(crate) fn free(&self, free: &mut FreeList, id: SlotId) {
        if let Some(slot) = self.get(id) {
            // Release: a walk that stands on the slot and reads this link finds the generation moved, and
            // does not follow it.
            slot.next.store(free.head, Ordering::Release);
            free.head = SlotId::to_link(Some(id));
        }
    }

    /// The first free slot that no walk stands on.
    fn take_free(&self, free: &mut FreeList) -> Option<SlotId> {
        // What moved the generation was a store; the loads of `in_use` follow.
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
            // Only who has the space locked comes here, so nobody has set it meanwhile.
            let _ = cell.set(boxed.map_err(|_| Error::NoMemory)?);
        }
        free.fresh += 1;
        Ok(SlotId(index))
    }
}

/// Chunk and place in it of a slot.
fn place(index: u32) -> (usize, usize) {
    let turn = (index / FIRST_CHUNK + 1).ilog2();
    // Both fit: a chunk number is below 32, a place below 2^31.
    (turn as usize, (index - FIRST_CHUNK * ((1 << turn) - 1)) as usize)
}

fn chunk_length(chunk: usize) -> usize {
    (FIRST_CHUNK as usize) << chunk
}
