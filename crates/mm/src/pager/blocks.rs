//! Memory in blocks of one size, for things of any size.
//!
//! # Invariants
//! 1. A block is in one chain, or free. Any free block can serve any chain, so memory never fragments: the loss is
//!    less than one block for each chain, and a number for each block.
//! 2. All blocks together never take more than the limit.
//! 3. After [`Blocks::prepare`], storing that many blocks cannot fail.
//!
//! Nothing here panics: a chain that leads nowhere is reported as damage.

use alloc::vec::Vec;

/// Bytes in a block.
pub(super) const BLOCK: usize = 128;

/// Blocks in one allocation: 64 KiB.
const SLAB: usize = 512;

/// No block.
const NONE: u32 = u32::MAX;

/// The blocks.
#[derive(Debug)]
pub(super) struct Blocks {
    /// Each has `SLAB` blocks; the last may have fewer.
    slabs: Vec<Vec<u8>>,
    /// For each block, the next block of its chain, or of the free list.
    next: Vec<u32>,
    /// The head of the free list: blocks that were in use before.
    free: u32,
    /// Blocks from this one on were never in use.
    fresh: usize,
    used: usize,
    limit: usize,
}

/// Names bytes that were stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chain {
    first: u32,
    len: u32,
}

impl Chain {
    /// How many bytes it holds.
    pub(super) const fn len(self) -> usize {
        self.len as usize
    }

    /// How many blocks it takes.
    pub(super) const fn blocks(self) -> usize {
        blocks(self.len())
    }
}

/// How many blocks `bytes` bytes take.
pub(super) const fn blocks(bytes: usize) -> usize {
    bytes.div_ceil(BLOCK)
}

impl Blocks {
    /// No blocks yet, and never more than `limit` bytes.
    pub(super) const fn new(limit: usize) -> Self {
        let blocks = limit / BLOCK;
        let limit = if blocks < NONE as usize { blocks } else { NONE as usize };
        Self { slabs: Vec::new(), next: Vec::new(), free: NONE, fresh: 0, used: 0, limit }
    }

    /// How many blocks are in chains.
    pub(super) const fn used(&self) -> usize {
        self.used
    }

    /// Makes sure that `more` blocks can be stored. Returns whether that is possible.
    pub(super) fn prepare(&mut self, more: usize) -> bool {
        let needed = self.used.saturating_add(more);
        while self.next.len() < needed {
            if self.grow().is_none() {
                return false;
            }
        }
        true
    }

    /// Stores bytes. `None` if there are too few blocks, because `prepare` was not called.
    pub(super) fn store(&mut self, bytes: &[u8]) -> Option<Chain> {
        let len = u32::try_from(bytes.len()).ok()?;
        let mut first = NONE;
        for piece in bytes.chunks(BLOCK).rev() {
            let Some(block) = self.take(first) else {
                self.release(Chain { first, len });
                return None;
            };
            first = block;
            if let Some(to) = self.block_mut(block) {
                to.iter_mut().zip(piece).for_each(|(to, byte)| *to = *byte);
            }
        }
        Some(Chain { first, len })
    }

    /// Copies the stored bytes out. `None` if `into` has another length, or the chain is damaged.
    pub(super) fn load(&self, chain: Chain, into: &mut [u8]) -> Option<()> {
        if into.len() != chain.len() {
            return None;
        }
        let mut block = chain.first;
        for piece in into.chunks_mut(BLOCK) {
            let from = self.block(block)?;
            piece.iter_mut().zip(from).for_each(|(to, byte)| *to = *byte);
            block = *self.next.get(block as usize)?;
        }
        Some(())
    }

    /// Frees the blocks of a chain.
    pub(super) fn release(&mut self, chain: Chain) {
        let mut block = chain.first;
        // Counted, so that the loop ends even if a damaged chain is a circle.
        for _ in 0..chain.blocks() {
            let Some(next) = self.next.get_mut(block as usize) else { return };
            let following = core::mem::replace(next, self.free);
            self.free = block;
            self.used = self.used.saturating_sub(1);
            block = following;
        }
    }

    /// If nothing is stored, frees all slabs but the first.
    pub(super) fn trim(&mut self) {
        if self.used == 0 {
            self.slabs.truncate(1);
            self.next.truncate(SLAB);
            (self.free, self.fresh) = (NONE, 0);
        }
    }

    /// Takes a free block and links it in front of `next`.
    fn take(&mut self, next: u32) -> Option<u32> {
        let block = if self.free == NONE {
            u32::try_from(self.fresh).ok().filter(|fresh| *fresh != NONE)?
        } else {
            self.free
        };
        let place = self.next.get_mut(block as usize)?;
        let following = core::mem::replace(place, next);
        if self.free == NONE {
            self.fresh += 1;
        } else {
            self.free = following;
        }
        self.used += 1;
        Some(block)
    }

    fn grow(&mut self) -> Option<()> {
        let count = SLAB.min(self.limit.saturating_sub(self.next.len()));
        if count == 0 {
            return None;
        }
        let mut slab = Vec::new();
        slab.try_reserve_exact(count * BLOCK).ok()?;
        self.slabs.try_reserve(1).ok()?;
        self.next.try_reserve(count).ok()?;
        slab.resize(count * BLOCK, 0);
        self.slabs.push(slab);
        self.next.resize(self.next.len() + count, NONE);
        Some(())
    }

    fn block(&self, block: u32) -> Option<&[u8]> {
        let (slab, start) = Self::place(block);
        self.slabs.get(slab)?.get(start..start + BLOCK)
    }

    fn block_mut(&mut self, block: u32) -> Option<&mut [u8]> {
        let (slab, start) = Self::place(block);
        self.slabs.get_mut(slab)?.get_mut(start..start + BLOCK)
    }

    const fn place(block: u32) -> (usize, usize) {
        let block = block as usize;
        (block / SLAB, block % SLAB * BLOCK)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, vec, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    fn load(blocks: &Blocks, chain: Chain) -> Vec<u8> {
        let mut bytes = vec![0; chain.len()];
        blocks.load(chain, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn all_blocks_within_the_limit_can_be_used_and_no_more() {
        let mut blocks = Blocks::new(1_000 * BLOCK + 17);
        let mut chains = Vec::new();
        while blocks.prepare(7) {
            chains.push(blocks.store(&[1; 7 * BLOCK]).unwrap());
        }
        assert_eq!(chains.len(), 1_000 / 7);
        assert!(blocks.prepare(1_000 % 7));
        let taken: usize = blocks.slabs.iter().map(Vec::len).sum();
        assert_eq!(taken, 1_000 * BLOCK);
    }

    #[test]
    fn freed_blocks_serve_a_larger_chain_than_they_were_in() {
        let mut blocks = Blocks::new(600 * BLOCK);
        assert!(blocks.prepare(600));
        let chains: Vec<Chain> = (0..600).map(|_| blocks.store(&[7; BLOCK]).unwrap()).collect();
        assert!(!blocks.prepare(1));
        // Every second block, so no two free blocks are neighbours.
        chains.iter().step_by(2).for_each(|chain| blocks.release(*chain));
        let large: Vec<u8> = (0..=255).cycle().take(300 * BLOCK).collect();
        assert!(blocks.prepare(300));
        let chain = blocks.store(&large).unwrap();
        assert_eq!(load(&blocks, chain), large);
        assert_eq!(load(&blocks, chains[1]), [7; BLOCK]);
    }

    #[test]
    fn memory_is_given_back_when_nothing_is_stored() {
        let mut blocks = Blocks::new(usize::MAX);
        assert!(blocks.prepare(5 * SLAB));
        let chain = blocks.store(&vec![1; 5 * SLAB * BLOCK]).unwrap();
        blocks.trim();
        assert_eq!(blocks.slabs.len(), 5);
        blocks.release(chain);
        blocks.trim();
        assert_eq!((blocks.slabs.len(), blocks.used()), (1, 0));
        assert!(blocks.prepare(SLAB + 1));
        let chain = blocks.store(&vec![2; SLAB * BLOCK + 1]).unwrap();
        assert_eq!(load(&blocks, chain), vec![2; SLAB * BLOCK + 1]);
    }

    #[test]
    fn a_chain_that_leads_nowhere_is_damage() {
        let mut blocks = Blocks::new(1 << 20);
        assert!(blocks.prepare(3));
        let chain = blocks.store(&[1; 3 * BLOCK]).unwrap();
        assert!(blocks.load(chain, &mut [0; BLOCK]).is_none(), "of another length");
        blocks.next[chain.first as usize] = 9_999;
        assert!(blocks.load(chain, &mut [0; 3 * BLOCK]).is_none());
        blocks.release(chain);
    }

    proptest! {
        #[test]
        fn each_chain_keeps_its_bytes_while_others_are_stored_and_freed(
            steps in prop::collection::vec((any::<u8>(), 0_usize..1_500, 0_usize..20), 1..100)
        ) {
            let limit = 2_000;
            let mut blocks = Blocks::new(limit * BLOCK);
            let mut model: BTreeMap<usize, (Chain, Vec<u8>)> = BTreeMap::new();
            for (byte, len, name) in steps {
                if let Some((chain, _)) = model.remove(&name) {
                    blocks.release(chain);
                    blocks.trim();
                }
                let count = super::blocks(len);
                let used: usize = model.values().map(|(chain, _)| chain.blocks()).sum();
                prop_assert_eq!(blocks.used(), used);
                prop_assert_eq!(blocks.prepare(count), used + count <= limit);
                if used + count <= limit {
                    let bytes: Vec<u8> = (0..len).map(|at| byte.wrapping_add(at.to_le_bytes()[0])).collect();
                    model.insert(name, (blocks.store(&bytes).unwrap(), bytes));
                }
                for (chain, bytes) in model.values() {
                    prop_assert_eq!(&load(&blocks, *chain), bytes);
                }
            }
        }
    }
}
