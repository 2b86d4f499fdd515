//! What a budget leaves behind. The bytes of the whole process are counted, so there is only one test.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::alloc::System;

use cap::Cap;
use commonhold_mm::{Manager, Pages, Settings, soft::SoftMmu};

type Machine = SoftMmu<parking_lot::RawMutex, parking_lot::RawRwLock>;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// The manager kept the memory of every dropped budget until the next one was made.
#[test]
fn dropped_budgets_give_their_memory_back() {
    const BUDGETS: usize = 1000;
    let manager =
        Manager::new(Machine::new(16, 100, |_| std::thread::yield_now()), Settings::default())
            .unwrap();
    let budgets: Vec<_> = (0..BUDGETS).map(|_| manager.budget(Pages(1)).unwrap()).collect();
    let bytes = MEMORY.allocated();
    drop(budgets);
    let freed = bytes.saturating_sub(MEMORY.allocated());
    // Each has three counts of pages and three queues at least; the rest is the vector of handles.
    assert!(freed >= BUDGETS * (64 + size_of::<usize>()), "only {freed} bytes");
}
