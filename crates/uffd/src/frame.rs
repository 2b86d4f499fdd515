//! Frames: what a page will hold, before the memfd has it.
//!
//! # What it owns
//! A pool of buffers of one page each. A pager reads into a buffer; [`UffdFrame::place`] writes it to the memfd.
//!
//! # Invariants
//! 1. A frame that was placed and is dropped before the manager adopts it punches its page: the page is a hole again.
//!    The manager drops such a frame while the page is still being filled, so nothing else has placed memory there.
//! 2. A buffer is zeros when it is taken, so a pager that leaves bytes out shows nothing of another page.
//! 3. The pool allocates only while it has no buffer left. It keeps as many as it was made with.

use std::sync::Arc;

use commonhold_mm::{MmuError, ObjectPage};
use parking_lot::Mutex;
use rustix::io::Errno;

use crate::object::{Hole, UffdObject};

/// How many buffers are made beforehand.
const READY: usize = 16;

/// Buffers that are free.
#[derive(Debug)]
pub(crate) struct Pool {
    free: Mutex<Vec<Vec<u8>>>,
    /// A page of zeros.
    zeros: Vec<u8>,
}

impl Pool {
    pub(crate) fn new(page_size: usize) -> Self {
        let free = (0..READY).map(|_| vec![0; page_size]).collect();
        Self { free: Mutex::new(free), zeros: vec![0; page_size] }
    }

    /// A frame that a pager will write to.
    pub(crate) fn take(self: &Arc<Self>) -> Result<UffdFrame, MmuError> {
        let free = self.free.lock().pop();
        let mut buffer = free.unwrap_or_default();
        let missing = self.zeros.len().saturating_sub(buffer.capacity());
        buffer.clear();
        buffer.try_reserve_exact(missing).map_err(|_| MmuError::NoMemory)?;
        buffer.resize(self.zeros.len(), 0);
        Ok(UffdFrame { pool: Arc::clone(self), buffer, placed: None })
    }

    /// A frame of zeros. It needs no buffer.
    pub(crate) fn zeros(self: &Arc<Self>) -> UffdFrame {
        UffdFrame { pool: Arc::clone(self), buffer: Vec::new(), placed: None }
    }

    fn give_back(&self, buffer: Vec<u8>) {
        let mut free = self.free.lock();
        if buffer.capacity() > 0 && free.len() < free.capacity() {
            free.push(buffer);
        }
    }
}

/// What a page will hold.
#[derive(Debug)]
pub struct UffdFrame {
    pool: Arc<Pool>,
    /// Empty for zeros.
    buffer: Vec<u8>,
    /// Where it was written to, until it is adopted.
    placed: Option<Hole>,
}

impl UffdFrame {
    /// Writes it to the memfd.
    pub(crate) fn place(&mut self, object: &UffdObject, page: ObjectPage) -> Result<(), Errno> {
        // Before the write, which may leave a part behind if it fails.
        self.placed = Some(object.hole(page)?);
        let zeros = self.buffer.is_empty();
        object.write(page, 0, if zeros { &self.pool.zeros } else { &self.buffer })
    }

    /// The page has the memory from now on.
    pub(crate) fn adopted(mut self) {
        self.placed = None;
    }
}

impl AsMut<[u8]> for UffdFrame {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.buffer
    }
}

impl Drop for UffdFrame {
    fn drop(&mut self) {
        if let Some(hole) = self.placed.take() {
            // If it fails, the memory stays until the object is dropped; a later filling overwrites its contents.
            let _ = hole.punch();
        }
        self.pool.give_back(std::mem::take(&mut self.buffer));
    }
}
