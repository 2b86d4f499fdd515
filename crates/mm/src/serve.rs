//! Service: what a worker does with a pulse.
//!
//! A worker redoes the fault, and then ends the pulse with one wake. The pulse leaves it before that if another thread fills
//! the page (it is put off), or if a worker that may not wait for pagers finds that it would have to (it is passed on).
//! A pager that panics has failed: the pulse ends while the thread unwinds. A pulse whose pager has taken too long has
//! ended already, and is not woken again.

use alloc::sync::Arc;

use crate::{
    FaultError, Lane, Mmu, PagerError,
    fault::Purpose,
    manager::Core,
    order::{Before, Short, Token},
    pulse::{Pulse, Ticket},
    space::SpaceCore,
};

impl<M: Mmu> SpaceCore<M> {
    /// Serves a pulse of this space.
    pub(crate) fn serve(self: &Arc<Self>, pulse: Pulse<M>, by: Worker) {
        let (at, access) = (pulse.at, pulse.access);
        // The result if a pager panics.
        let panicked = Err(FaultError::Pager(PagerError::Panicked));
        let mut serving =
            Serving { space: self, served: Some(Served { pulse, by }), result: panicked };
        serving.result = self.redo(at, access, Purpose::Reference, &mut serving.served);
    }
}

impl<M: Mmu> Core<M> {
    /// Leaves a pulse to another worker, if the one that serves it may not wait for a pager.
    pub(crate) fn passed_on<H: Before<Short>>(
        &self,
        pulse: &mut Option<Served<M>>,
        held: &mut Token<'_, H>,
    ) -> bool {
        let Some(Served { pulse: served, by }) = pulse else { return false };
        let may_wait = served.lane == Lane::Paging
            || (*by == Worker::Any && self.pulses.promote(served.ticket, held));
        if may_wait {
            return false;
        }
        if self.pulses.pass_on(served.ticket, Lane::Paging, held) {
            self.mmu.pulse(Lane::Paging);
        }
        *pulse = None;
        true
    }
}

/// The service of a pulse. Its drop ends the pulse and wakes its threads, unless the pulse was put off or passed on.
struct Serving<'a, M: Mmu> {
    space: &'a SpaceCore<M>,
    served: Option<Served<M>>,
    result: Result<(), FaultError>,
}

impl<M: Mmu> Drop for Serving<'_, M> {
    fn drop(&mut self) {
        // A pulse whose pager has taken too long has ended already.
        if let Some(served) = self.served.take() {
            self.space.manager.end_pulse(served.ticket(), self.result);
        }
    }
}

/// Which worker serves a pulse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Worker {
    /// One that may call pagers.
    Any,
    /// One that never waits for a pager.
    Memory,
}

/// A pulse, and who serves it.
pub(crate) struct Served<M: Mmu> {
    pulse: Pulse<M>,
    by: Worker,
}

impl<M: Mmu> Served<M> {
    pub(crate) fn ticket(&self) -> Ticket {
        self.pulse.ticket
    }
}
