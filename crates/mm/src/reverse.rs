//! The reverse map: the mappings of an object by object page.
//!
//! # What it owns
//! One node for each mapping of the object in any space, in a balanced tree (AVL) that is ordered by first page.
//! Each node knows the greatest end in its subtree, so a search leaves out a subtree that ends before the wanted
//! pages (the *interval tree* of Cormen, Leiserson, Rivest and Stein, "Introduction to Algorithms", section 14.3).
//! To find `k` mappings among `n` costs O((k + 1) log n); a change costs O(log n).
//!
//! # Invariants
//! 1. The keys, first page and number of the node, rise from left to right, and are unique.
//! 2. The heights of a node's two subtrees differ by one at most. So no recursion is deeper than 46.
//! 3. `latest` is the greatest end of the node and its subtrees.
//! 4. A node keeps its number while it is in the tree. A number is used again after that.
//! 5. Only [`insert`](ReverseMap::insert) takes memory, before anything changes.
//!
//! # Who may change what
//! The thread that has the object locked, which guards all of it.

use alloc::vec::Vec;

use crate::{Error, ObjectPage, ObjectSpan, Span};

/// No node.
const NONE: u32 = u32::MAX;

/// The number of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeId(u32);

#[derive(Debug)]
struct Node<V> {
    /// `None` in a free node.
    value: Option<V>,
    first: u64,
    end: u64,
    latest: u64,
    height: u8,
    /// In a free node, the next free one.
    left: u32,
    right: u32,
}

/// Values by the pages that they cover. Several may cover the same page.
#[derive(Debug)]
pub(crate) struct ReverseMap<V> {
    nodes: Vec<Node<V>>,
    root: u32,
    free: u32,
    /// How many nodes the searches have looked at.
    #[cfg(test)]
    looks: core::cell::Cell<u64>,
}

impl<V> ReverseMap<V> {
    pub(crate) const fn new() -> Self {
        Self {
            nodes: Vec::new(),
            root: NONE,
            free: NONE,
            #[cfg(test)]
            looks: core::cell::Cell::new(0),
        }
    }

    /// Adds `value`, which covers `span`.
    ///
    /// # Errors
    /// [`Error::NoMemory`]; then nothing has changed.
    pub(crate) fn insert(&mut self, span: ObjectSpan, value: V) -> Result<NodeId, Error> {
        let (first, end) = (span.first().number(), span.end().number());
        let (left, right) = (NONE, NONE);
        let node = Node { value: Some(value), first, end, latest: end, height: 1, left, right };
        let id = match self.node_mut(self.free) {
            Some(free) => {
                let next = free.left;
                *free = node;
                core::mem::replace(&mut self.free, next)
            }
            None => {
                let id = u32::try_from(self.nodes.len()).map_err(|_| Error::NoMemory)?;
                if id == NONE {
                    return Err(Error::NoMemory);
                }
                self.nodes.try_reserve(1)?;
                self.nodes.push(node);
                id
            }
        };
        self.root = self.insert_below(self.root, id, (first, id));
        Ok(NodeId(id))
    }

    /// Takes a value out.
    pub(crate) fn remove(&mut self, NodeId(id): NodeId) -> Option<V> {
        let node = self.node(id)?;
        node.value.as_ref()?;
        self.root = self.remove_below(self.root, (node.first, id));
        let free = self.free;
        let node = self.node_mut(id)?;
        node.left = free;
        let value = node.value.take();
        self.free = id;
        value
    }

    /// Lets a value cover the pages up to `end`; its first page stays.
    pub(crate) fn set_end(&mut self, NodeId(id): NodeId, end: ObjectPage) {
        let Some(node) = self.node_mut(id) else { return };
        node.end = end.number();
        let key = (node.first, id);
        self.renew(self.root, key);
    }

    /// The value of a node.
    pub(crate) fn get_mut(&mut self, NodeId(id): NodeId) -> Option<&mut V> {
        self.node_mut(id)?.value.as_mut()
    }

    /// Calls `visit` once for each value that covers a page of `span`, by rising first pages, with all the pages that
    /// it covers.
    pub(crate) fn each<'a>(&'a self, span: ObjectSpan, mut visit: impl FnMut(ObjectSpan, &'a V)) {
        self.any(span, |covered, value| {
            visit(covered, value);
            false
        });
    }

    /// Whether `wanted` holds for some value that covers a page of `span`. It is not asked again after that.
    pub(crate) fn any<'a>(
        &'a self,
        span: ObjectSpan,
        mut wanted: impl FnMut(ObjectSpan, &'a V) -> bool,
    ) -> bool {
        !span.is_empty() && self.any_below(self.root, span, &mut wanted)
    }

    fn any_below<'a, F: FnMut(ObjectSpan, &'a V) -> bool>(
        &'a self,
        at: u32,
        span: ObjectSpan,
        wanted: &mut F,
    ) -> bool {
        let Some(node) = self.node(at) else { return false };
        #[cfg(test)]
        self.looks.set(self.looks.get() + 1);
        if node.latest <= span.first().number() {
            return false;
        }
        if self.any_below(node.left, span, wanted) {
            return true;
        }
        if node.first >= span.end().number() {
            return false;
        }
        let found = node.value.as_ref().filter(|_| node.end > span.first().number());
        let covered = Span::between(ObjectPage::new(node.first), ObjectPage::new(node.end));
        found.is_some_and(|value| wanted(covered, value))
            || self.any_below(node.right, span, wanted)
    }

    fn node(&self, at: u32) -> Option<&Node<V>> {
        self.nodes.get(usize::try_from(at).ok()?)
    }

    fn node_mut(&mut self, at: u32) -> Option<&mut Node<V>> {
        self.nodes.get_mut(usize::try_from(at).ok()?)
    }

    fn height(&self, at: u32) -> u8 {
        self.node(at).map_or(0, |node| node.height)
    }

    fn latest(&self, at: u32) -> u64 {
        self.node(at).map_or(0, |node| node.latest)
    }

    /// Puts node `id` with `key` into the subtree `at`, and returns the subtree's root.
    fn insert_below(&mut self, at: u32, id: u32, key: (u64, u32)) -> u32 {
        let Some(node) = self.node(at) else { return id };
        let (left, right) = (node.left, node.right);
        if key < (node.first, at) {
            let left = self.insert_below(left, id, key);
            self.set_links(at, left, right);
        } else {
            let right = self.insert_below(right, id, key);
            self.set_links(at, left, right);
        }
        self.balance(at)
    }

    /// Takes the node with `key` out of the subtree `at`, and returns the subtree's root.
    fn remove_below(&mut self, at: u32, key: (u64, u32)) -> u32 {
        let Some(node) = self.node(at) else { return NONE };
        let (left, right, own) = (node.left, node.right, (node.first, at));
        let root = if key < own {
            let left = self.remove_below(left, key);
            self.set_links(at, left, right);
            at
        } else if key > own {
            let right = self.remove_below(right, key);
            self.set_links(at, left, right);
            at
        } else if right == NONE {
            return left;
        } else {
            let (rest, next) = self.take_first(right);
            self.set_links(next, left, rest);
            next
        };
        self.balance(root)
    }

    /// Takes the first node out of the subtree `at`. Returns the root of the rest, and that node.
    fn take_first(&mut self, at: u32) -> (u32, u32) {
        let Some(node) = self.node(at) else { return (NONE, NONE) };
        let (left, right) = (node.left, node.right);
        if left == NONE {
            return (right, at);
        }
        let (rest, first) = self.take_first(left);
        self.set_links(at, rest, right);
        (self.balance(at), first)
    }

    /// Computes `latest` anew on the way from `at` to the node with `key`.
    fn renew(&mut self, at: u32, key: (u64, u32)) {
        let Some(node) = self.node(at) else { return };
        let (left, right, own) = (node.left, node.right, (node.first, at));
        if key < own {
            self.renew(left, key);
        } else if key > own {
            self.renew(right, key);
        }
        self.set_links(at, left, right);
    }

    /// Gives a node two subtrees, and computes what it knows of them.
    fn set_links(&mut self, at: u32, left: u32, right: u32) {
        let height = self.height(left).max(self.height(right)).saturating_add(1);
        let below = self.latest(left).max(self.latest(right));
        if let Some(node) = self.node_mut(at) {
            (node.left, node.right, node.height) = (left, right, height);
            node.latest = node.end.max(below);
        }
    }

    /// Rotates the subtree `at`, whose subtrees are balanced and differ in height by two at most, so that it is
    /// balanced too. Returns its root.
    fn balance(&mut self, at: u32) -> u32 {
        let Some(node) = self.node(at) else { return NONE };
        let (left, right) = (node.left, node.right);
        if self.height(left) > self.height(right).saturating_add(1) {
            let left = if self.leans_right(left) { self.rotate_left(left) } else { left };
            self.set_links(at, left, right);
            self.rotate_right(at)
        } else if self.height(right) > self.height(left).saturating_add(1) {
            let right = if self.leans_left(right) { self.rotate_right(right) } else { right };
            self.set_links(at, left, right);
            self.rotate_left(at)
        } else {
            at
        }
    }

    fn leans_right(&self, at: u32) -> bool {
        self.node(at).is_some_and(|node| self.height(node.right) > self.height(node.left))
    }

    fn leans_left(&self, at: u32) -> bool {
        self.node(at).is_some_and(|node| self.height(node.left) > self.height(node.right))
    }

    /// The right child becomes the root.
    fn rotate_left(&mut self, at: u32) -> u32 {
        let Some((left, up)) = self.node(at).map(|node| (node.left, node.right)) else { return at };
        let Some((inner, outer)) = self.node(up).map(|node| (node.left, node.right)) else {
            return at;
        };
        self.set_links(at, left, inner);
        self.set_links(up, at, outer);
        up
    }

    /// The left child becomes the root.
    fn rotate_right(&mut self, at: u32) -> u32 {
        let Some((up, right)) = self.node(at).map(|node| (node.left, node.right)) else {
            return at;
        };
        let Some((outer, inner)) = self.node(up).map(|node| (node.left, node.right)) else {
            return at;
        };
        self.set_links(at, inner, right);
        self.set_links(up, outer, at);
        up
    }
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use proptest::prelude::*;

    use super::{NONE, NodeId, ReverseMap};
    use crate::{ObjectPage, ObjectSpan, Span};

    fn pages(first: u64, count: u64) -> ObjectSpan {
        Span::between(ObjectPage::new(first), ObjectPage::new(first + count))
    }

    /// Checks the invariants of a subtree. Returns its keys in order, its height and its greatest end.
    fn check<V>(map: &ReverseMap<V>, at: u32) -> (Vec<(u64, u32)>, u8, u64) {
        let Some(node) = map.node(at) else {
            assert_eq!(at, NONE);
            return (vec![], 0, 0);
        };
        assert!(node.value.is_some(), "a free node is in the tree");
        let (mut keys, left, before) = check(map, node.left);
        let (behind, right, after) = check(map, node.right);
        assert!(left.abs_diff(right) <= 1, "heights {left} and {right}");
        assert_eq!(node.height, left.max(right) + 1);
        assert_eq!(node.latest, node.end.max(before).max(after));
        keys.push((node.first, at));
        keys.extend(behind);
        assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
        (keys, node.height, node.latest)
    }

    fn found(map: &ReverseMap<u64>, span: ObjectSpan) -> Vec<(ObjectSpan, u64)> {
        let mut found = Vec::new();
        map.each(span, |covered, value| found.push((covered, *value)));
        assert!(found.is_sorted_by_key(|(covered, _)| covered.first()));
        found.sort_by_key(|(_, value)| *value);
        found
    }

    proptest! {
        #[test]
        fn it_finds_what_a_list_finds(
            steps in prop::collection::vec((0_u8..4, any::<prop::sample::Index>(), 0_u64..60, 1_u64..12), 0..300)
        ) {
            let mut map = ReverseMap::new();
            let mut list: Vec<(NodeId, ObjectSpan, u64)> = Vec::new();
            for (name, (step, which, first, count)) in (0_u64..).zip(steps) {
                match step {
                    _ if list.is_empty() => list.push((map.insert(pages(first, count), name).unwrap(), pages(first, count), name)),
                    0 | 1 => list.push((map.insert(pages(first, count), name).unwrap(), pages(first, count), name)),
                    2 => {
                        let (id, _, name) = list.swap_remove(which.index(list.len()));
                        prop_assert_eq!(map.remove(id), Some(name));
                        prop_assert_eq!(map.remove(id), None);
                    }
                    _ => {
                        let place = which.index(list.len());
                        let (id, span, _) = &mut list[place];
                        *span = pages(span.first().number(), count);
                        map.set_end(*id, span.end());
                    }
                }
                prop_assert_eq!(check(&map, map.root).0.len(), list.len());
                for query in [pages(first, count), pages(0, 80), pages(first, 1), pages(first, 0)] {
                    let covers = |span: &ObjectSpan| !span.intersection(&query).is_empty();
                    let mut expected: Vec<_> =
                        list.iter().filter(|(_, span, _)| covers(span)).map(|(_, span, name)| (*span, *name)).collect();
                    expected.sort_by_key(|(_, name)| *name);
                    prop_assert_eq!(found(&map, query), expected);
                }
            }
        }
    }

    /// The walk of an eviction looked at each mapping of the object: 2.8 us with one, 9.9 ms with 10,000.
    #[test]
    fn a_page_among_ten_thousand_mappings_is_found_in_few_steps() {
        let mut map = ReverseMap::new();
        for first in 0..10_000 {
            map.insert(pages(first, 1), first).unwrap();
        }
        for page in [0, 1, 4_999, 9_998, 9_999] {
            map.looks.set(0);
            assert_eq!(found(&map, pages(page, 1)), [(pages(page, 1), page)]);
            let looks = map.looks.get();
            assert!(looks <= 3 * 14, "{looks} nodes for page {page}; the tree has a height of 14");
        }
    }

    #[test]
    fn a_value_that_is_wanted_ends_the_search() {
        let mut map = ReverseMap::new();
        for name in 0..1_000 {
            map.insert(pages(7, 1), name).unwrap();
        }
        let mut asked = 0;
        assert!(map.any(pages(7, 1), |_, _| {
            asked += 1;
            true
        }));
        assert_eq!(asked, 1);
    }

    #[test]
    fn a_number_is_used_again() {
        let mut map = ReverseMap::new();
        let first = map.insert(pages(0, 1), 0).unwrap();
        map.insert(pages(1, 1), 1).unwrap();
        map.remove(first);
        assert_eq!(map.insert(pages(2, 1), 2).unwrap(), first);
        assert_eq!(map.nodes.len(), 2);
    }
}
