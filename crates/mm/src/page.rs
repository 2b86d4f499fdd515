//! The pages of an object and their states.
//!
//! # Invariants
//! 1. *Absent*, *Compressed*, *Bad*, *Filling*: no memory, and no translation anywhere. *Clean*, *Dirty*,
//!    *Evicting*: memory.
//! 2. Only a *Dirty* page has writable translations.
//! 3. The thread that sets *Filling* or `writing` calls the pager, without locks, and alone clears it afterwards.
//!    No other call of the pager for this page begins meanwhile.
//! 4. The pager's contents of a page count only if the page is `kept`; otherwise the page reads as zeros.

use alloc::vec::Vec;

use crate::{Error, ObjectPage, Slot, Trace};

/// The state of a page of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Not in memory: zeros, or with the pager.
    Absent,
    /// Not in memory yet: a thread is bringing it in.
    Filling,
    /// In memory, and the same as the pager has, or zeros that the pager need not have.
    Clean,
    /// In memory, and maybe changed since it was filled or written back.
    Dirty,
    /// In memory: the pager is writing it, and then it leaves.
    Evicting,
    /// Without memory of its own: the pager keeps its contents compressed.
    Compressed,
    /// Not in memory, since the pager failed to read it. The next fault tries again.
    Bad,
}

impl State {
    /// Whether a page in this state has memory.
    #[must_use]
    pub const fn is_resident(self) -> bool {
        matches!(self, Self::Clean | Self::Dirty | Self::Evicting)
    }
}

/// A page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageEntry {
    pub(crate) state: State,
    /// Faulted on since the page-out last looked.
    pub(crate) referenced: bool,
    /// It has had memory since the object was made, or was last cut below this page.
    pub(crate) touched: bool,
    /// The pager has contents of it that count.
    pub(crate) kept: bool,
    /// A thread is writing it to the pager.
    pub(crate) writing: bool,
    /// A pulse waits for the end of its filling.
    pub(crate) awaited: bool,
    /// Its slot in the page-out's queues, while it has memory.
    pub(crate) place: Option<Slot>,
    /// When it was last evicted.
    pub(crate) trace: Option<Trace>,
}

impl PageEntry {
    const fn absent(kept: bool) -> Self {
        Self {
            state: State::Absent,
            referenced: false,
            touched: false,
            kept,
            writing: false,
            awaited: false,
            place: None,
            trace: None,
        }
    }

    /// Whether a thread is calling the pager for it.
    pub(crate) const fn is_busy(&self) -> bool {
        self.writing || matches!(self.state, State::Filling)
    }
}

/// Pages in a leaf of the table.
const LEAF: u64 = LEAF_LENGTH as u64;
const LEAF_LENGTH: usize = 128;

/// All pages of an object. A leaf takes memory when the first of its pages is touched.
#[derive(Debug)]
pub(crate) struct PageTable {
    leaves: Vec<Option<Vec<PageEntry>>>,
    /// The pager has contents of the pages below this one from the start.
    initial: u64,
}

impl PageTable {
    pub(crate) const fn new(initial: u64) -> Self {
        Self { leaves: Vec::new(), initial }
    }

    /// The page's entry; for an untouched page, what its entry would be.
    pub(crate) fn get(&self, page: ObjectPage) -> PageEntry {
        self.find(page).copied().unwrap_or(PageEntry::absent(page.number() < self.initial))
    }

    fn find(&self, page: ObjectPage) -> Option<&PageEntry> {
        let (leaf, place) = split(page.number())?;
        self.leaves.get(leaf)?.as_ref()?.get(place)
    }

    /// The page's entry, mutable, if its leaf was ever touched.
    #[inline]
    pub(crate) fn find_mut(&mut self, page: ObjectPage) -> Option<&mut PageEntry> {
        let (leaf, place) = split(page.number())?;
        self.leaves.get_mut(leaf)?.as_mut()?.get_mut(place)
    }

    /// The page's entry, mutable; makes its leaf if there is none.
    ///
    /// # Errors
    /// [`Error::NoMemory`] for the table.
    pub(crate) fn get_mut(&mut self, page: ObjectPage) -> Result<&mut PageEntry, Error> {
        let (leaf, place) = split(page.number()).ok_or(Error::NoMemory)?;
        if leaf >= self.leaves.len() {
            self.leaves.try_reserve(leaf + 1 - self.leaves.len())?;
            self.leaves.resize_with(leaf + 1, || None);
        }
        let initial = self.initial;
        let cell = self.leaves.get_mut(leaf).ok_or(Error::NoMemory)?;
        if cell.is_none() {
            let mut pages = Vec::new();
            pages.try_reserve_exact(LEAF_LENGTH)?;
            let first = page.number() / LEAF * LEAF;
            pages.extend((first..first + LEAF).map(|n| PageEntry::absent(n < initial)));
            *cell = Some(pages);
        }
        cell.as_mut().and_then(|pages| pages.get_mut(place)).ok_or(Error::NoMemory)
    }

    /// Makes pages from `end` on new: they read as zeros, whatever the pager has.
    pub(crate) fn cut(&mut self, end: ObjectPage) {
        self.initial = self.initial.min(end.number());
        self.each_from(end, |_, page| {
            let awaited = page.awaited;
            *page = PageEntry { awaited, ..PageEntry::absent(false) };
        });
    }

    /// Calls `visit` with every page from `first` on whose leaf was ever touched.
    pub(crate) fn each_from(
        &mut self,
        first: ObjectPage,
        mut visit: impl FnMut(ObjectPage, &mut PageEntry),
    ) {
        let skipped = usize::try_from(first.number() / LEAF).unwrap_or(usize::MAX);
        for (leaf, pages) in self.leaves.iter_mut().enumerate().skip(skipped) {
            let Some(pages) = pages else { continue };
            for (number, page) in (leaf as u64 * LEAF..).zip(pages) {
                if number >= first.number() {
                    visit(ObjectPage::new(number), page);
                }
            }
        }
    }

    /// The first page from `first` on, below `end`, for which `wanted` holds.
    pub(crate) fn position(
        &self,
        first: ObjectPage,
        end: ObjectPage,
        wanted: impl Fn(&PageEntry) -> bool,
    ) -> Option<ObjectPage> {
        let skipped = usize::try_from(first.number() / LEAF).unwrap_or(usize::MAX);
        let leaves = self.leaves.iter().enumerate().skip(skipped);
        let leaves = leaves.filter_map(|(leaf, pages)| Some((leaf, pages.as_ref()?)));
        leaves
            .flat_map(|(leaf, pages)| (leaf as u64 * LEAF..).zip(pages))
            .take_while(|(number, _)| *number < end.number())
            .find(|(number, page)| *number >= first.number() && wanted(page))
            .map(|(number, _)| ObjectPage::new(number))
    }
}

#[inline]
fn split(number: u64) -> Option<(usize, usize)> {
    Some((usize::try_from(number / LEAF).ok()?, usize::try_from(number % LEAF).ok()?))
}
