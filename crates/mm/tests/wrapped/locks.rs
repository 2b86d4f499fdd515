//! Locks of a program with one thread, which panic where that thread would wait: in a fault handler, which may not
//! wait, and for a lock that the thread holds itself.

use std::cell::Cell;

thread_local! {
    static HANDLER: Cell<bool> = const { Cell::new(false) };
    static HELD: Cell<u32> = const { Cell::new(0) };
}

/// Runs a fault handler.
pub(crate) fn handle<T>(handler: impl FnOnce() -> T) -> T {
    HANDLER.set(true);
    let result = handler();
    HANDLER.set(false);
    result
}

/// Whether a fault handler runs.
pub(crate) fn is_handler() -> bool {
    HANDLER.get()
}

/// How many of these locks the thread holds.
pub(crate) fn held() -> u32 {
    HELD.get()
}

fn take(try_lock: impl FnOnce() -> bool) {
    assert!(!HANDLER.get(), "a fault handler takes a lock that can block");
    assert!(try_take(try_lock), "a thread would wait for a lock that it holds itself");
}

fn try_take(try_lock: impl FnOnce() -> bool) -> bool {
    let taken = try_lock();
    HELD.set(HELD.get() + u32::from(taken));
    taken
}

fn give_back() {
    HELD.set(HELD.get() - 1);
}

/// A mutex.
pub(crate) struct Mutex(parking_lot::RawMutex);

// SAFETY: RawMutex requires mutual exclusion, which the inner lock gives.
unsafe impl lock_api::RawMutex for Mutex {
    #[allow(clippy::declare_interior_mutable_const, reason = "lock_api asks for it")]
    const INIT: Self = Self(parking_lot::RawMutex::INIT);
    type GuardMarker = <parking_lot::RawMutex as lock_api::RawMutex>::GuardMarker;

    fn lock(&self) {
        take(|| self.0.try_lock());
    }

    fn try_lock(&self) -> bool {
        try_take(|| self.0.try_lock())
    }

    unsafe fn unlock(&self) {
        give_back();
        // SAFETY: the caller holds the lock, as this function requires too.
        unsafe { self.0.unlock() }
    }
}

/// A reader/writer lock.
pub(crate) struct RwLock(parking_lot::RawRwLock);

// SAFETY: RawRwLock requires that a writer is alone, for which the inner lock cares.
unsafe impl lock_api::RawRwLock for RwLock {
    #[allow(clippy::declare_interior_mutable_const, reason = "lock_api asks for it")]
    const INIT: Self = Self(parking_lot::RawRwLock::INIT);
    type GuardMarker = <parking_lot::RawRwLock as lock_api::RawRwLock>::GuardMarker;

    fn lock_shared(&self) {
        take(|| self.0.try_lock_shared());
    }

    fn try_lock_shared(&self) -> bool {
        try_take(|| self.0.try_lock_shared())
    }

    unsafe fn unlock_shared(&self) {
        give_back();
        // SAFETY: the caller holds the lock, as this function requires too.
        unsafe { self.0.unlock_shared() }
    }

    fn lock_exclusive(&self) {
        take(|| self.0.try_lock_exclusive());
    }

    fn try_lock_exclusive(&self) -> bool {
        try_take(|| self.0.try_lock_exclusive())
    }

    unsafe fn unlock_exclusive(&self) {
        give_back();
        // SAFETY: the caller holds the lock, as this function requires too.
        unsafe { self.0.unlock_exclusive() }
    }
}
