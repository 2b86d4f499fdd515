//! Frames of memory, and how many are left.

use alloc::{sync::Arc, vec, vec::Vec};
use core::{
    fmt,
    sync::atomic::{AtomicBool, AtomicI64, Ordering},
};

use lock_api::{Mutex, RawMutex};

use crate::MmuError;

/// How many frames are left.
pub(super) struct Frames(AtomicI64);

impl Frames {
    pub(super) fn new(frames: u32) -> Self {
        Self(AtomicI64::new(i64::from(frames)))
    }

    pub(super) fn left(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    fn take(&self) -> Result<(), MmuError> {
        let next = |left| (left > 0).then_some(left - 1);
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        taken.map(|_| ()).map_err(|_| MmuError::NoMemory)
    }
}

/// One frame fewer is left while this lives.
pub(super) struct Reserved(Arc<Frames>);

impl Reserved {
    pub(super) fn take(frames: &Arc<Frames>) -> Result<Self, MmuError> {
        frames.take()?;
        Ok(Self(Arc::clone(frames)))
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Memory for a page.
pub(super) struct Frame<X> {
    pub(super) bytes: Mutex<X, Vec<u8>>,
    released: AtomicBool,
    stolen: AtomicBool,
    reserved: Mutex<X, Option<Reserved>>,
}

impl<X: RawMutex> Frame<X> {
    pub(super) fn release(&self) {
        self.released.store(true, Ordering::Relaxed);
    }

    /// The memory is taken away, and every translation to it.
    pub(super) fn steal(&self) {
        self.stolen.store(true, Ordering::Relaxed);
        self.reserved.lock().take();
    }

    pub(super) fn is_stolen(&self) -> bool {
        self.stolen.load(Ordering::Relaxed)
    }

    pub(super) fn is_released(&self) -> bool {
        self.released.load(Ordering::Relaxed)
    }
}

/// Memory that no page has yet.
pub struct SoftFrame<X> {
    pub(super) frame: Frame<X>,
}

impl<X: RawMutex> SoftFrame<X> {
    pub(super) fn take(frames: &Arc<Frames>, length: usize) -> Result<Self, MmuError> {
        let reserved = Mutex::new(Some(Reserved::take(frames)?));
        let bytes = Mutex::new(vec![0; length]);
        let [released, stolen] = [const { AtomicBool::new(false) }; 2];
        Ok(Self { frame: Frame { bytes, released, stolen, reserved } })
    }
}

impl<X: RawMutex> AsMut<[u8]> for SoftFrame<X> {
    fn as_mut(&mut self) -> &mut [u8] {
        self.frame.bytes.get_mut()
    }
}

impl<X> fmt::Debug for SoftFrame<X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoftFrame").finish_non_exhaustive()
    }
}
