//! The pages of an object and their states.
//!
//! # Invariants
//! 1. *Absent*, *Compressed*, *Bad*, *Filling*: no memory, and no translation anywhere. *Clean*, *Dirty*,
//!    *Evicting*: memory.
//! 2. Only a *Dirty* page has writable translations, and one from which they are being withdrawn (`withdraw.rs`).
//! 3. The thread that sets *Filling* or `writing` calls the pager, without locks, and alone clears it afterwards.
//!    No other call of the pager for this page begins meanwhile.
//! 4. The pager's contents of a page count only if the page is `kept`; otherwise the page reads as zeros.
//! 5. The table is a tree. Its memory, and the time to walk it, depend on the pages that were touched, not on the
//!    size of the object. A page without a leaf is as its entry would be if it were new.

use alloc::{boxed::Box, vec::Vec};
use core::iter::repeat_with;

use crate::{Error, ObjectPage, Page, Slot, Trace};

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

/// Which faults on a page wait, since a thread withdraws what they would give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Barred {
    /// None.
    No,
    /// Those that would make a writable translation.
    Writes,
    /// All.
    All,
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
    /// Changed only by the thread that withdraws translations.
    pub(crate) barred: Barred,
    /// A pulse waits for the end of its filling, or until it is barred no longer.
    pub(crate) awaited: bool,
    /// Its slot in the page-out's queues, while it has memory.
    pub(crate) place: Option<Slot>,
    /// When it was last evicted.
    pub(crate) trace: Option<Trace>,
}

// A leaf is what the first touch of a page takes, and the entries of a large object are in no cache.
const _: () = assert!(size_of::<PageEntry>() <= 20);

impl PageEntry {
    const fn absent(kept: bool) -> Self {
        Self {
            state: State::Absent,
            referenced: false,
            touched: false,
            kept,
            writing: false,
            barred: Barred::No,
            awaited: false,
            place: None,
            trace: None,
        }
    }

    /// Whether a thread is working on it without the object's lock.
    pub(crate) const fn is_busy(&self) -> bool {
        let barred = !matches!(self.barred, Barred::No);
        self.writing || barred || matches!(self.state, State::Filling)
    }
}

/// Pages in a leaf of the table.
const LEAF: u64 = LEAF_LENGTH as u64;
const LEAF_LENGTH: usize = 128;
/// Children of a node above the leaves, as a power of two: two nodes above a leaf reach 2^21 pages.
const CHILDREN: u32 = 7;
/// How many leaves one search looks at, at most, so that a caller can give up the object's lock in between.
const LEAVES_AT_ONCE: usize = 64;

/// A part of the table. The lengths are in the types, so a lookup compares no index with a length.
#[derive(Debug, Default)]
enum Node {
    #[default]
    Untouched,
    Inner(Box<[Self; 1 << CHILDREN]>),
    Leaf(Box<[PageEntry; LEAF_LENGTH]>),
}

impl Node {
    /// The first leaf from `from` on, a leaf of the table that can lie below this node. The number in the result counts
    /// from the first one that can. The node is `shift / CHILDREN` nodes above the leaves.
    fn next_leaf(&self, shift: u32, mut from: u64) -> Option<(u64, &[PageEntry])> {
        match self {
            Self::Untouched => None,
            Self::Leaf(pages) => Some((0, pages.as_slice())),
            Self::Inner(children) => {
                let below = shift - CHILDREN;
                let skipped = child(from, below);
                for (number, node) in (0_u64..).zip(children.iter()).skip(skipped) {
                    if let Some((found, pages)) = node.next_leaf(below, from) {
                        return Some(((number << below) + found, pages));
                    }
                    from = 0;
                }
                None
            }
        }
    }

    /// Makes pages from `end` on new, and frees the leaves behind `end` that hold nothing else. `first` is the
    /// first leaf that can lie below this node. `end` lies below this node, or before it.
    fn cut(&mut self, shift: u32, first: u64, end: u64) {
        let unused = match self {
            Self::Untouched => return,
            Self::Leaf(pages) => {
                for (_, page) in (first * LEAF..).zip(pages.iter_mut()).filter(|(n, _)| *n >= end) {
                    let awaited = page.awaited;
                    *page = PageEntry { awaited, ..PageEntry::absent(false) };
                }
                first * LEAF >= end && !pages.iter().any(|page| page.awaited)
            }
            Self::Inner(children) => {
                let below = shift - CHILDREN;
                let skipped = child((end / LEAF).saturating_sub(first), below);
                for (number, node) in (0_u64..).zip(children.iter_mut()).skip(skipped) {
                    node.cut(below, first + (number << below), end);
                }
                children.iter().all(|node| matches!(node, Self::Untouched))
            }
        };
        if unused {
            *self = Self::Untouched;
        }
    }
}

/// What a search has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Search {
    /// The page that was wanted.
    Found(ObjectPage),
    /// It has looked at as many leaves as it may. The rest begins here.
    From(ObjectPage),
    Nothing,
}

/// All pages of an object. A leaf takes memory when the first of its pages is touched. The root is the lowest node
/// that reaches all leaves with memory, wherever in the object they lie.
#[derive(Debug)]
pub(crate) struct PageTable {
    root: Node,
    /// The first leaf that can lie below the root. Its last `shift` bits are 0.
    base: u64,
    /// `CHILDREN` times the number of nodes on a way from the root to a leaf. It grows with the distance of the pages
    /// touched.
    shift: u32,
    /// The pager has contents of the pages below this one from the start.
    initial: u64,
}

impl PageTable {
    pub(crate) const fn new(initial: u64) -> Self {
        Self { root: Node::Untouched, base: 0, shift: 0, initial }
    }

    /// The page's entry; for an untouched page, what its entry would be.
    pub(crate) fn get(&self, page: ObjectPage) -> PageEntry {
        self.find(page).copied().unwrap_or(PageEntry::absent(page.number() < self.initial))
    }

    fn find(&self, page: ObjectPage) -> Option<&PageEntry> {
        let (leaf, place) = split(page.number());
        if self.is_outside(leaf) {
            return None;
        }
        let (mut node, mut shift) = (&self.root, self.shift);
        loop {
            match node {
                Node::Untouched => return None,
                Node::Leaf(pages) => return pages.get(place),
                Node::Inner(children) => {
                    shift -= CHILDREN;
                    node = children.get(child(leaf, shift))?;
                }
            }
        }
    }

    /// The page's entry, mutable, if its leaf was ever touched.
    #[inline]
    pub(crate) fn find_mut(&mut self, page: ObjectPage) -> Option<&mut PageEntry> {
        let (leaf, place) = split(page.number());
        self.leaf_mut(leaf)?.get_mut(place)
    }

    #[inline]
    fn leaf_mut(&mut self, leaf: u64) -> Option<&mut [PageEntry; LEAF_LENGTH]> {
        if self.is_outside(leaf) {
            return None;
        }
        let (mut node, mut shift) = (&mut self.root, self.shift);
        loop {
            match node {
                Node::Untouched => return None,
                Node::Leaf(pages) => return Some(pages),
                Node::Inner(children) => {
                    shift -= CHILDREN;
                    node = children.get_mut(child(leaf, shift))?;
                }
            }
        }
    }

    /// Whether the root would need a node above it to reach the leaf.
    #[inline]
    const fn is_outside(&self, leaf: u64) -> bool {
        (leaf ^ self.base) >> self.shift != 0
    }

    /// The page's entry, mutable; makes its leaf if there is none.
    ///
    /// # Errors
    /// [`Error::NoMemory`] for the table.
    pub(crate) fn get_mut(&mut self, page: ObjectPage) -> Result<&mut PageEntry, Error> {
        let (leaf, place) = split(page.number());
        if matches!(self.root, Node::Untouched) {
            (self.base, self.shift) = (leaf, 0);
        }
        while self.is_outside(leaf) {
            self.heighten()?;
        }
        let initial = self.initial;
        let (mut node, mut shift) = (&mut self.root, self.shift);
        while shift > 0 {
            shift -= CHILDREN;
            if matches!(node, Node::Untouched) {
                *node = Node::Inner(boxed(repeat_with(Node::default))?);
            }
            let Node::Inner(children) = node else { return Err(Error::NoMemory) };
            node = children.get_mut(child(leaf, shift)).ok_or(Error::NoMemory)?;
        }
        if matches!(node, Node::Untouched) {
            let first = leaf * LEAF;
            *node = Node::Leaf(boxed((first..).map(|n| PageEntry::absent(n < initial)))?);
        }
        let Node::Leaf(pages) = node else { return Err(Error::NoMemory) };
        pages.get_mut(place).ok_or(Error::NoMemory)
    }

    /// Puts a node above the root.
    fn heighten(&mut self) -> Result<(), Error> {
        let mut children = boxed(repeat_with(Node::default))?;
        if let Some(node) = children.get_mut(child(self.base, self.shift)) {
            *node = core::mem::take(&mut self.root);
        }
        self.root = Node::Inner(children);
        self.shift += CHILDREN;
        self.base &= u64::MAX << self.shift;
        Ok(())
    }

    /// Makes pages from `end` on new: they read as zeros, whatever the pager has.
    pub(crate) fn cut(&mut self, end: ObjectPage) {
        self.initial = self.initial.min(end.number());
        let leaf = end.number() / LEAF;
        if leaf < self.base || !self.is_outside(leaf) {
            self.root.cut(self.shift, self.base, end.number());
        }
    }

    /// The first leaf that holds `from` or a later page: its first page, and the entries of its pages.
    pub(crate) fn next_leaf(&self, from: ObjectPage) -> Option<(ObjectPage, &[PageEntry])> {
        let leaf = (from.number() / LEAF).max(self.base);
        if self.is_outside(leaf) {
            return None;
        }
        let (found, pages) = self.root.next_leaf(self.shift, leaf)?;
        Some((ObjectPage::new((self.base + found) * LEAF), pages))
    }

    /// Calls `visit` with every page from `first` on whose leaf was ever touched.
    pub(crate) fn each_from(
        &mut self,
        first: ObjectPage,
        mut visit: impl FnMut(ObjectPage, &mut PageEntry),
    ) {
        let mut from = first;
        while let Some((start, _)) = self.next_leaf(from) {
            let Some(pages) = self.leaf_mut(start.number() / LEAF) else { return };
            for (number, page) in (start.number()..).zip(pages) {
                if number >= first.number() {
                    visit(ObjectPage::new(number), page);
                }
            }
            from = start.plus(LEAF);
        }
    }

    /// The first page from `first` on, below `end`, for which `wanted` holds.
    pub(crate) fn position(
        &self,
        first: ObjectPage,
        end: ObjectPage,
        wanted: impl Fn(&PageEntry) -> bool,
    ) -> Option<ObjectPage> {
        let mut from = first;
        loop {
            match self.search(from, end, &wanted) {
                Search::Found(page) => return Some(page),
                Search::From(page) => from = page,
                Search::Nothing => return None,
            }
        }
    }

    /// As [`position`](Self::position), but looks at a bounded number of leaves.
    pub(crate) fn search(
        &self,
        first: ObjectPage,
        end: ObjectPage,
        mut wanted: impl FnMut(&PageEntry) -> bool,
    ) -> Search {
        let mut from = first;
        for _ in 0..LEAVES_AT_ONCE {
            let Some((start, pages)) = self.next_leaf(from).filter(|(start, _)| *start < end)
            else {
                return Search::Nothing;
            };
            let inside = (start.number()..)
                .zip(pages)
                .filter(|(number, _)| (first.number()..end.number()).contains(number));
            for (number, page) in inside {
                if wanted(page) {
                    return Search::Found(ObjectPage::new(number));
                }
            }
            from = start.plus(LEAF);
        }
        Search::From(from)
    }
}

/// The first `N` of these values.
fn boxed<T, const N: usize>(values: impl Iterator<Item = T>) -> Result<Box<[T; N]>, Error> {
    let mut made = Vec::new();
    made.try_reserve_exact(N)?;
    made.extend(values.take(N));
    made.try_into().map_err(|_| Error::NoMemory)
}

/// The number of a page's leaf, and its place there.
#[inline]
const fn split(number: u64) -> (u64, usize) {
    (number / LEAF, (number % LEAF) as usize)
}

/// Which child of a node a leaf lies below. The children are `shift / CHILDREN` nodes above the leaves.
#[inline]
const fn child(leaf: u64, shift: u32) -> usize {
    ((leaf >> shift) % (1 << CHILDREN)) as usize
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use super::*;
    use crate::{LIMIT, ObjectSpan, Span};

    fn touch(table: &mut PageTable, page: u64) {
        table.get_mut(ObjectPage::new(page)).unwrap().touched = true;
    }

    fn nodes_above_a_leaf(table: &PageTable) -> u32 {
        table.shift / CHILDREN
    }

    fn touched(table: &mut PageTable) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        table.each_from(ObjectPage::new(0), |page, entry| {
            if entry.touched {
                found.insert(page.number());
            }
        });
        found
    }

    /// A lookup in an object of 8,192 pages passed as many nodes as one in a table of 2^19 pages.
    #[test]
    fn a_lookup_passes_few_nodes() {
        for (pages, nodes) in [(64, 0), (8192, 1), (1 << 20, 2)] {
            let mut table = PageTable::new(0);
            (0..pages).step_by(LEAF_LENGTH).for_each(|page| touch(&mut table, page));
            touch(&mut table, pages - 1);
            assert_eq!(nodes_above_a_leaf(&table), nodes, "{pages} pages");
        }
    }

    /// It passed a node for every six bits of the page's number.
    #[test]
    fn pages_that_lie_together_need_few_nodes_wherever_they_are() {
        for first in [0, 8192, (1 << 34) - 8192, LIMIT - 8192] {
            let mut table = PageTable::new(0);
            touch(&mut table, first);
            assert_eq!(nodes_above_a_leaf(&table), 0, "from page {first} on");
            touch(&mut table, first + 8191);
            assert_eq!(nodes_above_a_leaf(&table), 1, "from page {first} on");
        }
    }

    #[test]
    fn the_table_finds_what_a_set_finds() {
        let mut seed = 1_u64;
        let mut below = |end: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 20) % end
        };
        for _ in 0..200 {
            let (mut table, mut set) = (PageTable::new(0), BTreeSet::new());
            let reach = match below(4) {
                0 => 600,
                1 => 20_000,
                2 => 1 << 21,
                _ => LIMIT,
            };
            let near = below(LIMIT + 1 - reach);
            for _ in 0..200 {
                let page = near + below(reach);
                match below(20) {
                    0 => {
                        table.cut(ObjectPage::new(page));
                        set.split_off(&page);
                        assert_eq!(touched(&mut table), set);
                    }
                    1..5 => {
                        let end = page + below(reach);
                        let span: ObjectSpan =
                            Span::between(ObjectPage::new(page), ObjectPage::new(end));
                        let found = table.position(span.first(), span.end(), |page| page.touched);
                        let first = set.range(page..span.end().number()).next();
                        assert_eq!(found.map(Page::number), first.copied());
                    }
                    5..10 => {
                        let entry = table.get(ObjectPage::new(page));
                        assert_eq!(entry.touched, set.contains(&page));
                        let entry = table.find_mut(ObjectPage::new(page));
                        assert_eq!(entry.is_some_and(|page| page.touched), set.contains(&page));
                    }
                    _ => {
                        touch(&mut table, page);
                        set.insert(page);
                    }
                }
            }
            assert_eq!(touched(&mut table), set);
            table.cut(ObjectPage::new(0));
            assert!(table.next_leaf(ObjectPage::new(0)).is_none());
        }
    }
}
