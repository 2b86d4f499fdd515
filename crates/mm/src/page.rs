//! The pages of an object and their states.
//!
//! # Invariants
//! 1. *Absent*, *Compressed*, *Bad*, *Lost*, *Filling*: no memory, and no translation anywhere. *Clean*, *Dirty*,
//!    *Evicting*: memory.
//! 2. Only a *Dirty* page has writable translations.
//! 3. The thread that sets *Filling* or `writing` calls the pager, without locks, and alone clears it afterwards.
//!    No other call of the pager for this page begins meanwhile.
//! 4. The pager's contents of a page count only if the page is `kept`; otherwise the page reads as zeros.
//! 5. The table is a tree. Its memory, and the time to walk it, depend on the pages that were touched, not on the
//!    size of the object. A page without a leaf is as its entry would be if it were new.

use alloc::vec::Vec;

use crate::{Error, ObjectPage, ObjectSpan, Page, Slot, Span, Trace};

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
    /// Not in memory, and its contents are lost: it was changed, and then something outside the memory manager took
    /// its memory away. Each fault fails until the page is discarded or cut off.
    Lost,
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

    /// Makes it new: zeros, whatever the pager has. Pulses that wait for it wait on.
    pub(crate) fn renew(&mut self) {
        *self = Self { awaited: self.awaited, ..Self::absent(false) };
    }

    /// Whether a thread is calling the pager for it.
    pub(crate) const fn is_busy(&self) -> bool {
        self.writing || matches!(self.state, State::Filling)
    }
}

/// Pages in a leaf of the table.
const LEAF: u64 = LEAF_LENGTH as u64;
const LEAF_LENGTH: usize = 128;
/// Children of a node above the leaves, as a power of two.
const CHILDREN: u32 = 6;
/// How many leaves one search looks at, at most, so that a caller can give up the object's lock in between.
const LEAVES_AT_ONCE: usize = 64;

/// A part of the table.
#[derive(Debug, Default)]
enum Node {
    #[default]
    Untouched,
    Inner(Vec<Self>),
    Leaf(Vec<PageEntry>),
}

impl Node {
    /// The first leaf from `from` on. Leaves are counted from the first one below this node, which is `height`
    /// nodes above the leaves.
    fn next_leaf(&self, height: u32, from: u64) -> Option<(u64, &[PageEntry])> {
        match self {
            Self::Untouched => None,
            Self::Leaf(pages) => (from == 0).then_some((0, pages.as_slice())),
            Self::Inner(children) => {
                let below = height.saturating_sub(1);
                let (index, mut rest) = child(from, below);
                for (number, node) in (0_u64..).zip(children).skip(index) {
                    if let Some((found, pages)) = node.next_leaf(below, rest) {
                        return Some(((number << (CHILDREN * below)) + found, pages));
                    }
                    rest = 0;
                }
                None
            }
        }
    }

    /// Makes pages from `end` on new, and frees the leaves behind `end` that hold nothing else. `first` is the
    /// first leaf below this node.
    fn cut(&mut self, height: u32, first: u64, end: u64) {
        let unused = match self {
            Self::Untouched => return,
            Self::Leaf(pages) => {
                for (_, page) in (first * LEAF..).zip(pages.iter_mut()).filter(|(n, _)| *n >= end) {
                    page.renew();
                }
                first * LEAF >= end && !pages.iter().any(|page| page.awaited)
            }
            Self::Inner(children) => {
                let below = height.saturating_sub(1);
                let (index, _) = child((end / LEAF).saturating_sub(first), below);
                for (number, node) in (0_u64..).zip(children.iter_mut()).skip(index) {
                    node.cut(below, first + (number << (CHILDREN * below)), end);
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

/// All pages of an object. A leaf takes memory when the first of its pages is touched.
#[derive(Debug)]
pub(crate) struct PageTable {
    root: Node,
    /// How many nodes a way from the root to a leaf passes. It grows with the highest page touched.
    height: u32,
    /// The pager has contents of the pages below this one from the start.
    initial: u64,
}

impl PageTable {
    pub(crate) const fn new(initial: u64) -> Self {
        Self { root: Node::Untouched, height: 0, initial }
    }

    /// The page's entry; for an untouched page, what its entry would be.
    pub(crate) fn get(&self, page: ObjectPage) -> PageEntry {
        self.find(page).copied().unwrap_or(PageEntry::absent(page.number() < self.initial))
    }

    fn find(&self, page: ObjectPage) -> Option<&PageEntry> {
        let (leaf, place) = split(page.number());
        let (mut node, mut height, mut rest) = (&self.root, self.height, leaf);
        loop {
            match node {
                Node::Untouched => return None,
                Node::Leaf(pages) => return if rest == 0 { pages.get(place) } else { None },
                Node::Inner(children) => {
                    height = height.saturating_sub(1);
                    let (index, within) = child(rest, height);
                    (node, rest) = (children.get(index)?, within);
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
    fn leaf_mut(&mut self, leaf: u64) -> Option<&mut [PageEntry]> {
        let (mut node, mut height, mut rest) = (&mut self.root, self.height, leaf);
        loop {
            match node {
                Node::Untouched => return None,
                Node::Leaf(pages) => return (rest == 0).then_some(pages.as_mut_slice()),
                Node::Inner(children) => {
                    height = height.saturating_sub(1);
                    let (index, within) = child(rest, height);
                    (node, rest) = (children.get_mut(index)?, within);
                }
            }
        }
    }

    /// The page's entry, mutable; makes its leaf if there is none.
    ///
    /// # Errors
    /// [`Error::NoMemory`] for the table.
    pub(crate) fn get_mut(&mut self, page: ObjectPage) -> Result<&mut PageEntry, Error> {
        let (leaf, place) = split(page.number());
        while leaf >> (CHILDREN * self.height) != 0 {
            self.heighten()?;
        }
        let initial = self.initial;
        let (mut node, mut height, mut rest) = (&mut self.root, self.height, leaf);
        while height > 0 {
            height -= 1;
            if matches!(node, Node::Untouched) {
                *node = Node::Inner(untouched()?);
            }
            let Node::Inner(children) = node else { return Err(Error::NoMemory) };
            let (index, within) = child(rest, height);
            (node, rest) = (children.get_mut(index).ok_or(Error::NoMemory)?, within);
        }
        if matches!(node, Node::Untouched) {
            let mut pages = Vec::new();
            pages.try_reserve_exact(LEAF_LENGTH)?;
            let first = leaf * LEAF;
            pages.extend((first..first + LEAF).map(|n| PageEntry::absent(n < initial)));
            *node = Node::Leaf(pages);
        }
        let Node::Leaf(pages) = node else { return Err(Error::NoMemory) };
        pages.get_mut(place).ok_or(Error::NoMemory)
    }

    /// Puts a node above the root.
    fn heighten(&mut self) -> Result<(), Error> {
        if !matches!(self.root, Node::Untouched) {
            let mut children = untouched()?;
            if let Some(first) = children.first_mut() {
                *first = core::mem::take(&mut self.root);
            }
            self.root = Node::Inner(children);
        }
        self.height += 1;
        Ok(())
    }

    /// Makes pages from `end` on new: they read as zeros, whatever the pager has.
    pub(crate) fn cut(&mut self, end: ObjectPage) {
        self.initial = self.initial.min(end.number());
        self.root.cut(self.height, 0, end.number());
        if matches!(self.root, Node::Untouched) {
            self.height = 0;
        }
    }

    /// The first leaf that holds `from` or a later page: its first page, and the entries of its pages.
    pub(crate) fn next_leaf(&self, from: ObjectPage) -> Option<(ObjectPage, &[PageEntry])> {
        let (leaf, _) = split(from.number());
        if leaf >> (CHILDREN * self.height) != 0 {
            return None;
        }
        let (found, pages) = self.root.next_leaf(self.height, leaf)?;
        Some((ObjectPage::new(found * LEAF), pages))
    }

    /// Calls `visit` with every page from `first` on whose leaf was ever touched.
    pub(crate) fn each_from(
        &mut self,
        first: ObjectPage,
        visit: impl FnMut(ObjectPage, &mut PageEntry),
    ) {
        self.each_in(Span::between(first, ObjectPage::new(u64::MAX)), visit);
    }

    /// As [`each_from`](Self::each_from), with the pages of `span`.
    pub(crate) fn each_in(
        &mut self,
        span: ObjectSpan,
        mut visit: impl FnMut(ObjectPage, &mut PageEntry),
    ) {
        let mut from = span.first();
        while let Some((start, _)) = self.next_leaf(from).filter(|(start, _)| *start < span.end()) {
            let pages = self.leaf_mut(start.number() / LEAF).unwrap_or_default();
            for (number, page) in (start.number()..).zip(pages) {
                let number = ObjectPage::new(number);
                if span.contains(number) {
                    visit(number, page);
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

/// The children of a new node.
fn untouched() -> Result<Vec<Node>, Error> {
    let mut children = Vec::new();
    children.try_reserve_exact(1 << CHILDREN)?;
    children.resize_with(1 << CHILDREN, Node::default);
    Ok(children)
}

/// The number of a page's leaf, and its place there.
#[inline]
const fn split(number: u64) -> (u64, usize) {
    (number / LEAF, (number % LEAF) as usize)
}

/// Which child of a node a leaf lies below, and its number there. The children are `height` nodes above the leaves.
/// A leaf that does not lie below the node has no child.
#[inline]
fn child(leaf: u64, height: u32) -> (usize, u64) {
    let shift = CHILDREN * height;
    (usize::try_from(leaf >> shift).unwrap_or(usize::MAX), leaf & ((1 << shift) - 1))
}
