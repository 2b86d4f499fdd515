//! Prepare: the machine gets memory for its tables.
//!
//! A fault handler can get none, so a translation without a table is [`Installed::Unprepared`](crate::Installed), and a
//! worker calls this with nothing locked. If the machine has no memory left, pages are evicted; the page of the fault
//! itself may be one of them.

use crate::{
    FaultError, Mmu, MmuError, Span, VirtualPage, order::Token, serve::Served, space::SpaceCore,
};

/// After how many rounds of evictions a machine's tables get no memory: whatever fails there, it is not memory.
const ROUNDS: u32 = 7;

/// The result of [`SpaceCore::prepare`].
#[derive(PartialEq, Eq)]
pub(crate) enum Prepared {
    /// There may be memory for the tables now.
    Maybe,
    /// Another worker serves the pulse.
    PassedOn,
}

impl<M: Mmu> SpaceCore<M> {
    /// Gets memory for the machine's tables, or evicts pages so that there is some: in the first round one, and twice
    /// as many in each later one. So a machine that can only be asked to install again gets its chance after each
    /// round, and one that can prepare gets its memory before the page itself is looked at again.
    #[cold]
    pub(crate) fn prepare(
        &self,
        at: VirtualPage,
        round: u32,
        pulse: &mut Option<Served<M>>,
    ) -> Result<Prepared, FaultError> {
        if round >= ROUNDS {
            return Err(FaultError::NoMemory);
        }
        let manager = &self.manager;
        let since = manager.refusals.now();
        let prepare = || match manager.mmu.prepare(&self.machine, Span::one(at)) {
            Ok(()) => Ok(true),
            Err(MmuError::NoMemory) => Ok(false),
            Err(error) => Err(FaultError::from(error)),
        };
        if prepare()? {
            return Ok(Prepared::Maybe);
        }
        // An eviction may need a pager.
        if manager.passed_on(pulse, &mut Token::nothing_held()) {
            return Ok(Prepared::PassedOn);
        }
        for _ in 0..1_u32 << round {
            if !manager.evict_one(since) {
                return Err(FaultError::NoMemory);
            }
            if prepare()? {
                break;
            }
        }
        Ok(Prepared::Maybe)
    }
}
