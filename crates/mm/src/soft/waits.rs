//! Processors that have faulted, and the wakes that they wait for.

use core::sync::atomic::Ordering;

use lock_api::RawMutex;

use super::{SoftMmu, SoftSpace};
use crate::{Access, FaultError, VirtualPage};

/// A processor that has faulted.
pub(super) struct Waiting {
    ticket: u64,
    space: u64,
    at: VirtualPage,
    access: Access,
    result: Option<Result<(), FaultError>>,
}

impl<X: RawMutex, W> SoftMmu<X, W> {
    /// Registers a processor that is about to fault, and returns its ticket: later wakes reach it too.
    pub(super) fn expect_wake(&self, space: &SoftSpace<X>, at: VirtualPage, access: Access) -> u64 {
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        let wait = Waiting { ticket, space: space.number, at, access, result: None };
        self.waits.lock().push(wait);
        ticket
    }

    /// The result of the wake for this ticket, if it has come.
    pub(super) fn woken(&self, ticket: u64) -> Option<Result<(), FaultError>> {
        self.waits.lock().iter().find(|wait| wait.ticket == ticket)?.result
    }

    /// Ends a ticket.
    pub(super) fn forget(&self, ticket: u64) {
        self.waits.lock().retain(|wait| wait.ticket != ticket);
    }

    /// Tells the processors that wait for this wake.
    pub(super) fn tell(
        &self,
        space: &SoftSpace<X>,
        at: VirtualPage,
        access: Access,
        cookie: u64,
        result: Result<(), FaultError>,
    ) {
        for wait in self.waits.lock().iter_mut() {
            let same = (wait.space, wait.at, wait.access) == (space.number, at, access);
            if same && (cookie == 0 || cookie == wait.ticket) {
                wait.result.get_or_insert(result);
            }
        }
    }
}
