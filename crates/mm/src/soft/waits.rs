//! Processors that have faulted, and the wakes that they wait for.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use lock_api::{Mutex, RawMutex};

use crate::{Access, FaultError, VirtualPage};

/// A processor that has faulted.
struct Waiting {
    ticket: u64,
    space: u64,
    at: VirtualPage,
    access: Access,
    result: Option<Result<(), FaultError>>,
}

/// All of them.
pub(super) struct Waits<X> {
    waiting: Mutex<X, Vec<Waiting>>,
    next: AtomicU64,
}

impl<X: RawMutex> Waits<X> {
    pub(super) const fn new() -> Self {
        Self { waiting: Mutex::new(Vec::new()), next: AtomicU64::new(1) }
    }

    /// Registers a processor that is about to fault, and returns its ticket: later wakes reach it too.
    pub(super) fn expect(&self, space: u64, at: VirtualPage, access: Access) -> u64 {
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        self.waiting.lock().push(Waiting { ticket, space, at, access, result: None });
        ticket
    }

    /// The result of the wake for this ticket, if it has come.
    pub(super) fn result(&self, ticket: u64) -> Option<Result<(), FaultError>> {
        self.waiting.lock().iter().find(|wait| wait.ticket == ticket)?.result
    }

    /// Ends a ticket.
    pub(super) fn forget(&self, ticket: u64) {
        self.waiting.lock().retain(|wait| wait.ticket != ticket);
    }

    /// Tells the processors that wait for this wake.
    pub(super) fn wake(
        &self,
        space: u64,
        at: VirtualPage,
        access: Access,
        cookie: u64,
        result: Result<(), FaultError>,
    ) {
        for wait in self.waiting.lock().iter_mut() {
            let same = (wait.space, wait.at, wait.access) == (space, at, access);
            if same && (cookie == 0 || cookie == wait.ticket) {
                wait.result.get_or_insert(result);
            }
        }
    }
}
