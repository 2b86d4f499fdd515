//! Faults: the fast path, and the slow path of a worker.
//!
//! [`AddressSpace::fault`] may run where nothing may block: it only *tries* both locks. If it gets them and the
//! page is in memory, it makes the translation. Otherwise it sends a *pulse*, and a worker redoes the whole fault
//! ([`SpaceCore::redo`]), and may wait. After every wait the worker looks everything up again: mapping,
//! protection, size, state of the page. Both paths check and install in the same function
//! ([`SpaceCore::look`]), so they cannot differ.
//!
//! # Invariants
//! 1. A translation is made with the space locked to read and the object locked, after both were checked under
//!    these locks.
//! 2. A page is dirty before the first writable translation to it is made.
//! 3. The fast path waits for nothing and takes no memory.

use alloc::sync::Arc;

use crate::{
    Access, AddressSpace, Error, FaultError, Mmu, State, VirtualPage, Writable,
    fill::Claim,
    object::{ObjectCore, ObjectState},
    order::Token,
    pulse::{Posted, Pulse},
    space::{Mapping, SpaceCore, SpaceState},
};

/// Where a fault comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    /// From a program that can be made to wait.
    Normal,
    /// From where no fault may happen. The result is always an error, which says why the page faulted.
    NoFault,
}

/// The result of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Fault {
    /// The access can be tried again.
    Resolved,
    /// A worker will serve it; [`Mmu::wake`] tells when.
    Pulsed,
    /// The queue of pulses is full, and no worker will serve this fault. Report it again later.
    Full,
    /// The fault cannot be resolved.
    Failed(FaultError),
}

/// Why a page is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A program accesses it.
    Reference,
    /// A lock keeps it in memory. A page of a lazy mapping that was never accessed is left out.
    Keep,
}

/// The result of a look.
enum Look {
    /// There is a translation now, or none is wanted.
    Done,
    /// The page has no memory.
    Absent,
    /// Another thread fills it.
    Filling,
}

impl<M: Mmu> AddressSpace<M> {
    /// Handles a fault on `at`. Never blocks.
    pub fn fault(&self, at: VirtualPage, access: Access, context: Context) -> Fault {
        let fault = match (self.core.try_fault(at, access, context), context) {
            (Some(Ok(())), _) => Fault::Resolved,
            (Some(Err(error)), _) => Fault::Failed(error),
            (None, Context::Normal) => self.core.pulse(at, access),
            (None, Context::NoFault) => Fault::Failed(FaultError::NotSuperLocked),
        };
        self.core.counts.count(fault);
        fault
    }
}

impl<M: Mmu> SpaceCore<M> {
    /// The fast path. `None` if a lock is held, or the page is not in memory.
    #[inline]
    fn try_fault(
        &self,
        at: VirtualPage,
        access: Access,
        context: Context,
    ) -> Option<Result<(), FaultError>> {
        let mut nothing = Token::nothing_held();
        let (state, mut in_space) = self.state.try_read(&mut nothing)?;
        let mapping = match permitted(&state, at, access) {
            Ok(mapping) => mapping,
            Err(error) => return Some(Err(error)),
        };
        let object = &mapping.reference.object;
        let (mut pages, _) = object.state.try_lock(&mut in_space)?;
        if context == Context::NoFault {
            return Some(Err(no_fault(&state, mapping, &pages, at)));
        }
        match self.look(&state, mapping, &mut pages, at, access, Purpose::Reference) {
            Ok(Look::Done) => Some(Ok(())),
            Ok(Look::Absent | Look::Filling) => None,
            Err(error) => Some(Err(error)),
        }
    }

    #[cold]
    fn pulse(self: &Arc<Self>, at: VirtualPage, access: Access) -> Fault {
        let posted = self.manager.pulses.post(self, at, access);
        if posted == Posted::New {
            self.manager.mmu.pulse();
        }
        if posted == Posted::Full { Fault::Full } else { Fault::Pulsed }
    }

    /// Checks a page with both locks held, and makes the translation if the page is in memory.
    #[inline]
    fn look(
        &self,
        state: &SpaceState<M>,
        mapping: &Mapping<M>,
        of_object: &mut ObjectState<M>,
        at: VirtualPage,
        access: Access,
        purpose: Purpose,
    ) -> Result<Look, FaultError> {
        let page = mapping.extent.page(at);
        if page.number() >= of_object.size {
            return Err(FaultError::PastEnd);
        }
        let Some(entry) = of_object.pages.find_mut(page) else {
            let wanted = purpose == Purpose::Reference || !mapping.lazy;
            return Ok(if wanted { Look::Absent } else { Look::Done });
        };
        if purpose == Purpose::Keep && mapping.lazy && !entry.touched {
            return Ok(Look::Done);
        }
        match entry.state {
            State::Clean | State::Dirty | State::Evicting => {}
            State::Filling => return Ok(Look::Filling),
            State::Absent | State::Compressed | State::Bad => return Ok(Look::Absent),
        }
        let may_write = mapping.protection.permits(Access::Write);
        if access == Access::Write || (state.super_locked && may_write) {
            // An eviction or write-back that is under way sees this, and leaves the page.
            entry.state = State::Dirty;
        }
        let writable = may_write && entry.state == State::Dirty;
        entry.referenced |= purpose == Purpose::Reference;
        let writable = if writable { Writable::Yes } else { Writable::No };
        let object = &mapping.reference.object.machine;
        let (mmu, protection) = (&self.manager.mmu, mapping.protection);
        mmu.install(&self.machine, at, object, page, protection, writable)?;
        Ok(Look::Done)
    }

    /// The slow path: waits for locks, and calls the pager if needed. Called with nothing locked. If another thread
    /// fills the page, `pulse` is taken and put off until the end of the filling; without a pulse this thread waits.
    pub(crate) fn redo(
        self: &Arc<Self>,
        at: VirtualPage,
        access: Access,
        purpose: Purpose,
        pulse: &mut Option<Pulse<M>>,
    ) -> Result<(), FaultError> {
        let mut attempt = 0_u32;
        loop {
            match self.look_patiently(at, access, purpose, pulse)? {
                Found::Done => return Ok(()),
                Found::Claimed(object, claim) => object.fill(&claim)?,
                Found::Filling => {
                    attempt = attempt.saturating_add(1);
                    self.manager.mmu.idle(attempt);
                }
            }
        }
    }

    /// Takes both locks and looks, and claims the page if it has no memory.
    fn look_patiently(
        &self,
        at: VirtualPage,
        access: Access,
        purpose: Purpose,
        pulse: &mut Option<Pulse<M>>,
    ) -> Result<Found<M>, FaultError> {
        let mut nothing = Token::nothing_held();
        let (state, mut in_space) = self.state.read(&mut nothing);
        let mapping = match purpose {
            Purpose::Reference => permitted(&state, at, access)?,
            Purpose::Keep => kept(&state, at)?,
        };
        let page = mapping.extent.page(at);
        let object = &mapping.reference.object;
        let (mut of_object, mut in_object) = object.state.lock(&mut in_space);
        match self.look(&state, mapping, &mut of_object, at, access, purpose)? {
            Look::Done => Ok(Found::Done),
            Look::Absent => {
                let claim = of_object.claim(page).map_err(|error| match error {
                    Error::Machine(error) => FaultError::Machine(error),
                    _ => FaultError::NoMemory,
                })?;
                Ok(Found::Claimed(Arc::clone(object), claim))
            }
            Look::Filling => {
                // The object's lock is held, so the filling cannot end before the pulse is put off.
                if let (Some(entry), Some(pulse)) = (of_object.pages.find_mut(page), pulse.take()) {
                    entry.awaited = true;
                    self.manager.pulses.defer(pulse, object.name(page), &mut in_object);
                    return Ok(Found::Done);
                }
                Ok(Found::Filling)
            }
        }
    }

    /// Serves a pulse of this space.
    pub(crate) fn serve(self: &Arc<Self>, pulse: Pulse<M>) {
        let (at, access) = (pulse.at, pulse.access);
        let mut pulse = Some(pulse);
        let result = self.redo(at, access, Purpose::Reference, &mut pulse);
        if pulse.is_some() {
            self.counts.serve(result);
            self.manager.pulses.done();
            self.manager.mmu.wake(&self.machine, at, access, result);
        }
    }
}

/// The result of [`SpaceCore::look_patiently`].
enum Found<M: Mmu> {
    Done,
    Claimed(Arc<ObjectCore<M>>, Claim),
    Filling,
}

/// The mapping at `at`, if it permits `access`.
#[inline]
fn permitted<M: Mmu>(
    state: &SpaceState<M>,
    at: VirtualPage,
    access: Access,
) -> Result<&Mapping<M>, FaultError> {
    let mapping = state.mapping(at).ok_or(FaultError::NotMapped)?;
    if mapping.protection.permits(access) { Ok(mapping) } else { Err(FaultError::Protection) }
}

/// Why a page faulted where no fault may happen.
#[cold]
fn no_fault<M: Mmu>(
    state: &SpaceState<M>,
    mapping: &Mapping<M>,
    of_object: &ObjectState<M>,
    at: VirtualPage,
) -> FaultError {
    let Some(entry) = of_object.page(mapping.extent.page(at)) else { return FaultError::PastEnd };
    // In a super-locked space, a page that only other spaces have accessed is still new.
    if mapping.lazy && (state.super_locked || !entry.touched) {
        return FaultError::NeverReferenced;
    }
    FaultError::NotSuperLocked
}

/// The mapping at `at`, if its pages have to be in memory and can be read.
fn kept<M: Mmu>(state: &SpaceState<M>, at: VirtualPage) -> Result<&Mapping<M>, FaultError> {
    let mapping = permitted(state, at, Access::Read)?;
    // If it was unlocked meanwhile, nothing has to be brought in: the same as if nothing were mapped.
    if mapping.locked || state.super_locked { Ok(mapping) } else { Err(FaultError::NotMapped) }
}
