//! Tables that translate to frames of memory.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, btree_map},
    sync::Arc,
};

use super::frame::{Frame, Frames, Reserved};
use crate::{Access, MmuError, Protection, VirtualPage, VirtualSpan, Writable};

/// What a page of a space translates to.
pub(super) struct Entry<X> {
    pub(super) frame: Arc<Frame<X>>,
    pub(super) protection: Protection,
    pub(super) writable: Writable,
    /// A processor has remembered it.
    pub(super) accessed: bool,
}

impl<X> Clone for Entry<X> {
    fn clone(&self) -> Self {
        let Self { protection, writable, accessed, .. } = *self;
        Self { frame: Arc::clone(&self.frame), protection, writable, accessed }
    }
}

impl<X> Entry<X> {
    pub(super) fn permits(&self, access: Access) -> bool {
        let write_protected = access == Access::Write && self.writable == Writable::No;
        self.protection.permits(access) && !write_protected
    }
}

/// The attributes of a translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translation {
    /// What the mapping permits.
    pub protection: Protection,
    /// Whether writes are let through.
    pub writable: Writable,
}

/// Translations in a leaf.
const LEAF: u64 = 64;

/// A page table.
pub(super) struct Table<X> {
    leaves: BTreeMap<u64, Box<[Option<Entry<X>>]>>,
    /// The frame of each leaf, by the leaf's number, if leaves take frames.
    frames: Option<BTreeMap<u64, Reserved>>,
}

impl<X: lock_api::RawMutex> Table<X> {
    pub(super) fn new(takes_frames: bool) -> Self {
        Self { leaves: BTreeMap::new(), frames: takes_frames.then(BTreeMap::new) }
    }

    /// Whether there is memory for a translation at `at`.
    pub(super) fn is_prepared(&self, at: VirtualPage) -> bool {
        self.frames.as_ref().is_none_or(|frames| frames.contains_key(&(at.number() / LEAF)))
    }

    /// Takes the frames that translations in `span` need.
    pub(super) fn prepare(
        &mut self,
        span: VirtualSpan,
        from: &Arc<Frames>,
    ) -> Result<(), MmuError> {
        let Some(frames) = self.frames.as_mut().filter(|_| !span.is_empty()) else { return Ok(()) };
        for leaf in span.first().number() / LEAF..=(span.end().number() - 1) / LEAF {
            if let btree_map::Entry::Vacant(place) = frames.entry(leaf) {
                place.insert(Reserved::take(from)?);
            }
        }
        Ok(())
    }

    pub(super) fn get(&self, at: VirtualPage) -> Option<&Entry<X>> {
        let leaf = self.leaves.get(&(at.number() / LEAF))?;
        leaf.get(place(at))?.as_ref().filter(|entry| !entry.frame.is_stolen())
    }

    pub(super) fn get_mut(&mut self, at: VirtualPage) -> Option<&mut Entry<X>> {
        let leaf = self.leaves.get_mut(&(at.number() / LEAF))?;
        leaf.get_mut(place(at))?.as_mut().filter(|entry| !entry.frame.is_stolen())
    }

    pub(super) fn set(&mut self, at: VirtualPage, entry: Entry<X>) {
        let empty = || (0..LEAF).map(|_| None).collect();
        let leaf = self.leaves.entry(at.number() / LEAF).or_insert_with(empty);
        if let Some(cell) = leaf.get_mut(place(at)) {
            *cell = Some(entry);
        }
    }

    /// Calls `visit` with every translation of `span`, and removes those for which it returns `false`.
    pub(super) fn retain(
        &mut self,
        span: VirtualSpan,
        mut visit: impl FnMut(VirtualPage, &mut Entry<X>) -> bool,
    ) {
        if span.is_empty() {
            return;
        }
        let (first, last) = (span.first().number() / LEAF, (span.end().number() - 1) / LEAF);
        for (number, leaf) in self.leaves.range_mut(first..=last) {
            for (at, cell) in (number * LEAF..).zip(leaf.iter_mut()) {
                let at = VirtualPage::new(at);
                let inside = span.contains(at);
                if inside && cell.as_mut().is_some_and(|entry| !visit(at, entry)) {
                    *cell = None;
                }
            }
        }
    }
}

fn place(at: VirtualPage) -> usize {
    // Below LEAF.
    (at.number() % LEAF) as usize
}
