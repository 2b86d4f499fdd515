//! Calls that fail: of the pager, of the machine, of the allocator.
//!
//! A failure is armed for one call of the manager ([`Trouble`]). Allocations of the test itself, of the software
//! machine and of pagers do not count ([`aside`]): only the manager's can fail.

use std::cell::Cell;

/// What is to fail during one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    None,
    /// Calls of pagers: from the n-th on, this many.
    Pager {
        after: u32,
        times: u32,
    },
    /// The n-th call of the machine.
    Machine(u32),
    /// Allocations beyond this many bytes; only `tests/allocations` can make them fail.
    #[allow(dead_code, reason = "tests/model has the allocator of the system")]
    Memory(usize),
}

/// How a test binary limits the memory that is left; `None` for no limit. Returns how much was left before.
pub(crate) type Limit = fn(Option<usize>) -> usize;

thread_local! {
    static LIMIT: Cell<Option<Limit>> = const { Cell::new(None) };
    /// A limit is armed.
    static LIMITED: Cell<bool> = const { Cell::new(false) };
}

/// Sets how memory is limited in this test.
#[allow(dead_code, reason = "tests/model has the allocator of the system")]
pub(crate) fn limit_by(limit: Limit) {
    LIMIT.set(Some(limit));
}

/// Runs a call of the manager with `bytes` bytes left.
pub(crate) fn with_memory<T>(bytes: usize, call: impl FnOnce() -> T) -> T {
    LIMITED.set(true);
    apply(Some(bytes));
    let result = call();
    apply(None);
    LIMITED.set(false);
    result
}

/// Runs code that is not the manager's, without the limit.
pub(crate) fn aside<T>(call: impl FnOnce() -> T) -> T {
    if !LIMITED.replace(false) {
        return call();
    }
    let left = apply(None);
    let result = call();
    apply(Some(left));
    LIMITED.set(true);
    result
}

fn apply(bytes: Option<usize>) -> usize {
    LIMIT.get().map_or(0, |limit| limit(bytes))
}
