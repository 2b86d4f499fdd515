//! Nodes in one vector, each in one of a few chains or in none.
//!
//! # Invariants
//! 1. A node that is in use is in exactly one chain, and its `at` says in which; `Chain::len` counts them.
//! 2. A node that is not in use is on the list of free nodes. Each use has a generation of its own, so a
//!    slot of a former use finds nothing.
//!
//! It does not know what the chains mean. Nothing here panics: a slot or link that leads nowhere is ignored.

use alloc::vec::Vec;
use core::num::NonZeroU32;

use super::{At, NoMemory, Slot, next};

/// No node.
const NONE: u32 = u32::MAX;

/// All nodes, and where they are.
#[derive(Debug)]
pub(super) struct Chains<K> {
    nodes: Vec<Node<K>>,
    /// The first free node; `next` leads to the others.
    free: u32,
    chains: [Chain; At::COUNT],
}

#[derive(Debug)]
struct Node<K> {
    key: K,
    at: Option<At>,
    /// Counts the uses of this node: each slot names one use.
    generation: NonZeroU32,
    before: u32,
    next: u32,
}

#[derive(Debug, Clone, Copy)]
struct Chain {
    first: u32,
    last: u32,
    len: usize,
}

impl<K: Copy> Chains<K> {
    pub(super) const fn new() -> Self {
        let chain = Chain { first: NONE, last: NONE, len: 0 };
        Self { nodes: Vec::new(), free: NONE, chains: [chain; At::COUNT] }
    }

    pub(super) fn len(&self, at: At) -> usize {
        self.chain(at).len
    }

    /// Takes memory for `nodes` nodes in use at once.
    pub(super) fn reserve(&mut self, nodes: usize) -> Result<(), NoMemory> {
        let more = nodes.saturating_sub(self.nodes.len());
        self.nodes.try_reserve(more).map_err(|_| NoMemory)
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.nodes.capacity()
    }

    /// Adds a node at the end of a chain.
    pub(super) fn add(&mut self, key: K, at: At) -> Result<Slot, NoMemory> {
        let index = match self.nodes.get(self.free as usize) {
            Some(node) => core::mem::replace(&mut self.free, node.next),
            None => self.grow(key)?,
        };
        self.link_last(index, at);
        let Some(node) = self.node(index) else { return Err(NoMemory) };
        node.key = key;
        Ok(Slot { index, generation: node.generation })
    }

    /// Takes a node out of its chain and out of use. Returns whether it was in use.
    pub(super) fn remove(&mut self, slot: Slot) -> bool {
        if self.at(slot).is_none() {
            return false;
        }
        self.unlink(slot.index);
        let free = self.free;
        if let Some(node) = self.node(slot.index) {
            node.generation = next(node.generation);
            node.next = free;
            self.free = slot.index;
        }
        true
    }

    /// Which chain the node is in.
    pub(super) fn at(&self, slot: Slot) -> Option<At> {
        let node = self.nodes.get(slot.index as usize)?;
        node.at.filter(|_| node.generation == slot.generation)
    }

    /// Moves a node to the end of a chain.
    pub(super) fn move_last(&mut self, slot: Slot, to: At) {
        if self.at(slot).is_some() {
            self.unlink(slot.index);
            self.link_last(slot.index, to);
        }
    }

    /// Moves a node to the beginning of a chain.
    pub(super) fn move_first(&mut self, slot: Slot, to: At) {
        if self.at(slot).is_some() {
            self.unlink(slot.index);
            self.link_first(slot.index, to);
        }
    }

    /// Returns the first node of a chain, and moves it to the end.
    pub(super) fn rotate(&mut self, at: At) -> Option<(Slot, K)> {
        let index = self.chain(at).first;
        let node = self.nodes.get(index as usize)?;
        let (slot, key) = (Slot { index, generation: node.generation }, node.key);
        self.move_last(slot, at);
        Some((slot, key))
    }

    fn grow(&mut self, key: K) -> Result<u32, NoMemory> {
        let index = u32::try_from(self.nodes.len()).ok().filter(|index| *index != NONE);
        let index = index.ok_or(NoMemory)?;
        self.nodes.try_reserve(1).map_err(|_| NoMemory)?;
        let generation = NonZeroU32::MIN;
        self.nodes.push(Node { key, at: None, generation, before: NONE, next: NONE });
        Ok(index)
    }

    fn link_last(&mut self, index: u32, at: At) {
        let chain = self.chain_mut(at);
        let before = core::mem::replace(&mut chain.last, index);
        chain.len += 1;
        if before == NONE {
            chain.first = index;
        }
        self.put(index, Some(at), before, NONE);
        if let Some(node) = self.node(before) {
            node.next = index;
        }
    }

    fn link_first(&mut self, index: u32, at: At) {
        let chain = self.chain_mut(at);
        let next = core::mem::replace(&mut chain.first, index);
        chain.len += 1;
        if next == NONE {
            chain.last = index;
        }
        self.put(index, Some(at), NONE, next);
        if let Some(node) = self.node(next) {
            node.before = index;
        }
    }

    fn unlink(&mut self, index: u32) {
        let Some(node) = self.node(index) else { return };
        let Some(at) = node.at else { return };
        let (before, next) = (node.before, node.next);
        self.put(index, None, NONE, NONE);
        match self.node(before) {
            Some(node) => node.next = next,
            None => self.chain_mut(at).first = next,
        }
        match self.node(next) {
            Some(node) => node.before = before,
            None => self.chain_mut(at).last = before,
        }
        self.chain_mut(at).len -= 1;
    }

    fn put(&mut self, index: u32, at: Option<At>, before: u32, next: u32) {
        if let Some(node) = self.node(index) {
            (node.at, node.before, node.next) = (at, before, next);
        }
    }

    fn node(&mut self, index: u32) -> Option<&mut Node<K>> {
        self.nodes.get_mut(index as usize)
    }

    const fn chain(&self, at: At) -> &Chain {
        let [fresh, known, trial] = &self.chains;
        match at {
            At::Fresh => fresh,
            At::Known => known,
            At::Trial => trial,
        }
    }

    const fn chain_mut(&mut self, at: At) -> &mut Chain {
        let [fresh, known, trial] = &mut self.chains;
        match at {
            At::Fresh => fresh,
            At::Known => known,
            At::Trial => trial,
        }
    }
}
