//! Buffers for pages on their way to a pager.
//!
//! # What it owns
//! A few buffers of one page each, made with the manager. A page must be copied before its pager gets it: writers go on
//! meanwhile. When memory is short, evictions are what gives some back, so they must not need any.
//!
//! # Invariants
//! 1. A buffer is in the pool or with one thread, whose guard puts it back.
//! 2. A thread that finds none asks the heap, and if that has none either, waits for a buffer to come back. The threads
//!    that have one wait only for their pagers.

use alloc::vec::Vec;
use core::ops::DerefMut;

use crate::{
    Error, Mmu,
    manager::Core,
    order::{Leaf, Ordered, Token},
};

/// How many there are. More threads than that can write at once as long as the heap has memory.
const BUFFERS: usize = 4;

/// The buffers that no thread uses.
pub(crate) struct Buffers<R> {
    free: Ordered<R, Leaf, Vec<Vec<u8>>>,
}

/// A buffer of one page.
pub(crate) struct Buffer<'a, M: Mmu> {
    manager: &'a Core<M>,
    bytes: Vec<u8>,
}

impl<R: lock_api::RawMutex> Buffers<R> {
    pub(crate) fn new(page_size: usize) -> Result<Self, Error> {
        let mut free = Vec::new();
        free.try_reserve_exact(BUFFERS)?;
        for _ in 0..BUFFERS {
            free.push(page(page_size)?);
        }
        Ok(Self { free: Ordered::new(free) })
    }
}

fn page(page_size: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(page_size)?;
    bytes.resize(page_size, 0);
    Ok(bytes)
}

impl<M: Mmu> Core<M> {
    /// A buffer. Nothing is locked.
    pub(crate) fn buffer(&self) -> Buffer<'_, M> {
        let mut attempt = 0_u32;
        loop {
            let mut nothing = Token::nothing_held();
            let free = self.buffers.free.lock(&mut nothing).0.pop();
            if let Some(bytes) = free.or_else(|| page(self.mmu.page_size()).ok()) {
                return Buffer { manager: self, bytes };
            }
            attempt = attempt.saturating_add(1);
            self.mmu.idle(attempt);
        }
    }
}

impl<M: Mmu> Buffer<'_, M> {
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        self.bytes.deref_mut()
    }
}

impl<M: Mmu> Drop for Buffer<'_, M> {
    fn drop(&mut self) {
        let mut nothing = Token::nothing_held();
        let (mut free, _) = self.manager.buffers.free.lock(&mut nothing);
        if free.len() < BUFFERS {
            free.push(core::mem::take(&mut self.bytes));
        }
    }
}
