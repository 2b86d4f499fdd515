//! The locks of the manager and of the software machine, made of shuttle's semaphores: shuttle sees which threads are
//! blocked, so a deadlock ends the run with a report.

use lock_api::{GuardSend, RawMutex, RawRwLock};
use shuttle::future::batch_semaphore::{BatchSemaphore, Fairness};

/// Readers at once, at most.
const READERS: usize = 64;

/// A semaphore of one permit.
pub(crate) struct ShuttleMutex(BatchSemaphore);

// SAFETY: RawMutex requires mutual exclusion. The one permit is taken by `lock` and by `try_lock` that returns
// true, and given back by `unlock` only, which only the holder calls.
unsafe impl RawMutex for ShuttleMutex {
    #[allow(clippy::declare_interior_mutable_const, reason = "lock_api asks for it")]
    const INIT: Self = Self(BatchSemaphore::const_new(1, Fairness::Unfair));
    type GuardMarker = GuardSend;

    fn lock(&self) {
        self.0.acquire_blocking(1).unwrap();
    }

    fn try_lock(&self) -> bool {
        self.0.try_acquire(1).is_ok()
    }

    unsafe fn unlock(&self) {
        self.0.release(1);
    }
}

/// A semaphore with one permit for each reader; a writer takes all of them.
pub(crate) struct ShuttleRwLock(BatchSemaphore);

// SAFETY: RawRwLock requires that a writer is alone. A writer holds all permits, so no other thread holds any; only
// the thread that took a permit gives it back.
unsafe impl RawRwLock for ShuttleRwLock {
    #[allow(clippy::declare_interior_mutable_const, reason = "lock_api asks for it")]
    const INIT: Self = Self(BatchSemaphore::const_new(READERS, Fairness::Unfair));
    type GuardMarker = GuardSend;

    fn lock_shared(&self) {
        self.0.acquire_blocking(1).unwrap();
    }

    fn try_lock_shared(&self) -> bool {
        self.0.try_acquire(1).is_ok()
    }

    unsafe fn unlock_shared(&self) {
        self.0.release(1);
    }

    fn lock_exclusive(&self) {
        self.0.acquire_blocking(READERS).unwrap();
    }

    fn try_lock_exclusive(&self) -> bool {
        self.0.try_acquire(READERS).is_ok()
    }

    unsafe fn unlock_exclusive(&self) {
        self.0.release(READERS);
    }
}
