//! Faults: the fast path, and the slow path of a worker.
//!
//! [`AddressSpace::fault`] may run where nothing may block: it only *tries* both locks (its token permits nothing else,
//! see [`order`](crate::order)). If it gets them and the page is in memory, it makes the translation. Otherwise it
//! sends a *pulse*, and a worker redoes the whole fault ([`SpaceCore::redo`]), and may wait. After every wait the
//! worker looks everything up again: mapping, protection, size, state of the page. Both paths check and install in the
//! same function ([`SpaceCore::look`]), so they cannot differ.
//!
//! # Invariants
//! 1. A translation is made with the space locked to read and the object locked, after both were checked under
//!    these locks.
//! 2. A page is dirty before the first writable translation to it is made.
//! 3. The fast path waits for nothing and takes no memory.

use alloc::sync::Arc;

use crate::{
    Access, AddressSpace, Error, FaultError, Installed, Lane, Mmu, MmuError, ObjectPage,
    PagerError, State, VirtualPage, Wait, Writable,
    fill::Claim,
    lost::REFILLS,
    object::{ObjectCore, ObjectState, PutOff},
    order::{self, Handler, Token},
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
    /// The space has as many pulses as it may have, and no worker will serve this fault. Report it again later.
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
    /// The machine would have had to wait.
    Later,
    /// The page should have memory, and the machine has none for it.
    Gone,
}

/// The result of the fast path.
enum Tried {
    Resolved,
    Failed(FaultError),
    /// A worker of this lane is needed, for the page or for a lock that was not free.
    Lane(Lane),
}

impl<M: Mmu> AddressSpace<M> {
    /// Handles a fault on `at`. Never blocks.
    pub fn fault(&self, at: VirtualPage, access: Access, context: Context) -> Fault {
        self.fault_by(at, access, context, 0)
    }

    /// As [`fault`](Self::fault). `cookie` tells the machine's threads apart: a fault is merged only with one of the
    /// same cookie, and [`Mmu::wake`] gets it back. So an error reaches only threads that had faulted before.
    pub fn fault_by(
        &self,
        at: VirtualPage,
        access: Access,
        context: Context,
        cookie: u64,
    ) -> Fault {
        let mut handler = Token::handler();
        let tried = self.core.try_fault(at, access, context, &mut handler);
        let fault = match (tried, context) {
            (Tried::Resolved, _) => Fault::Resolved,
            (Tried::Failed(error), _) => Fault::Failed(error),
            // With both locks, the fast path says why the page faulted.
            (Tried::Lane(_), Context::NoFault) => Fault::Failed(FaultError::Busy),
            (Tried::Lane(lane), Context::Normal) => {
                self.core.pulse((at, access, cookie), lane, &mut handler)
            }
        };
        self.core.counts.count(fault);
        fault
    }
}

impl<M: Mmu> SpaceCore<M> {
    /// The fast path.
    #[inline]
    fn try_fault(
        &self,
        at: VirtualPage,
        access: Access,
        context: Context,
        handler: &mut Token<'_, Handler>,
    ) -> Tried {
        const BUSY: Tried = Tried::Lane(Lane::Memory);
        let Some((state, mut in_space)) = self.state.try_read(handler) else { return BUSY };
        let mapping = match permitted(&state, at, access) {
            Ok(mapping) => mapping,
            Err(error) => return Tried::Failed(error),
        };
        let object = &mapping.reference.object;
        let Some((mut pages, _)) = object.state.try_lock(&mut in_space) else { return BUSY };
        if context == Context::NoFault {
            return Tried::Failed(no_fault(&state, mapping, &pages, at));
        }
        let (purpose, wait) = (Purpose::Reference, Wait::Never);
        match self.look(&state, mapping, &mut pages, at, access, purpose, wait) {
            Ok(Look::Done) => Tried::Resolved,
            Ok(Look::Filling | Look::Later) => Tried::Lane(Lane::Memory),
            Ok(Look::Gone) => Tried::Lane(Lane::Paging),
            Ok(Look::Absent) => {
                let kept = pages.pages.get(mapping.extent.page(at)).kept;
                Tried::Lane(if kept { Lane::Paging } else { Lane::Memory })
            }
            Err(error) => Tried::Failed(error),
        }
    }

    #[cold]
    fn pulse(
        self: &Arc<Self>,
        fault: (VirtualPage, Access, u64),
        lane: Lane,
        handler: &mut Token<'_, Handler>,
    ) -> Fault {
        let posted = self.manager.pulses.post(self, fault, lane, handler);
        if posted == Posted::New {
            self.manager.mmu.pulse(lane);
        }
        if posted == Posted::Full { Fault::Full } else { Fault::Pulsed }
    }

    /// Checks a page with both locks held, and makes the translation if the page is in memory.
    #[inline]
    #[expect(clippy::too_many_arguments, reason = "what both locks guard, and the fault")]
    fn look(
        &self,
        state: &SpaceState<M>,
        mapping: &Mapping<M>,
        of_object: &mut ObjectState<M>,
        at: VirtualPage,
        access: Access,
        purpose: Purpose,
        wait: Wait,
    ) -> Result<Look, FaultError> {
        let page = mapping.extent.page(at);
        if page.number() >= of_object.size {
            return Err(FaultError::PastEnd);
        }
        let Some(entry) = of_object.pages.find_mut(page) else {
            let wanted = purpose == Purpose::Reference || !mapping.lazy;
            return Ok(if wanted { of_object.no_memory(page) } else { Look::Done });
        };
        if purpose == Purpose::Keep && mapping.lazy && !entry.touched {
            return Ok(Look::Done);
        }
        match entry.state {
            State::Clean | State::Dirty | State::Evicting => {}
            State::Filling => return Ok(Look::Filling),
            State::Lost => return Err(FaultError::Lost),
            State::Absent | State::Compressed | State::Bad => return Ok(of_object.no_memory(page)),
        }
        let before = entry.state;
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
        match mmu.install(&self.machine, at, object, page, protection, writable, wait) {
            Ok(Installed::Done) => Ok(Look::Done),
            Ok(Installed::Later) => Ok(Look::Later),
            Err(MmuError::Gone) => {
                // This access has changed nothing.
                entry.state = before;
                Ok(Look::Gone)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The slow path: waits for locks, and calls the pager if needed. Called with nothing locked. If another thread
    /// fills the page, `pulse` is taken and put off until the end of the filling; without a pulse this thread waits.
    pub(crate) fn redo(
        self: &Arc<Self>,
        at: VirtualPage,
        access: Access,
        purpose: Purpose,
        pulse: &mut Option<Served<M>>,
    ) -> Result<(), FaultError> {
        let (mut attempt, mut gone) = (0_u32, 0);
        loop {
            match self.look_patiently(at, access, purpose, pulse)? {
                Found::Done => return Ok(()),
                Found::Claimed(object, claim) => object.fill(claim)?,
                Found::Gone => {
                    gone += 1;
                    if gone > REFILLS {
                        return Err(FaultError::Machine(MmuError::Gone));
                    }
                }
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
        pulse: &mut Option<Served<M>>,
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
        match self.look(&state, mapping, &mut of_object, at, access, purpose, Wait::Briefly)? {
            Look::Done => Ok(Found::Done),
            Look::Absent => {
                let kept = of_object.pages.get(page).kept;
                // Without a pager and without an eviction, any worker can fill it.
                let reserved = !kept && self.manager.try_reserve(&object.budget);
                if !reserved && self.passed_on(pulse, &mut in_object) {
                    return Ok(Found::Done);
                }
                let claim = of_object.claim(page, reserved).map_err(|error| {
                    if reserved {
                        self.manager.unreserve(&object.budget);
                    }
                    match error {
                        Error::Machine(error) => FaultError::Machine(error),
                        _ => FaultError::NoMemory,
                    }
                })?;
                Ok(Found::Claimed(Arc::clone(object), claim))
            }
            Look::Filling => {
                // The object's lock is held, so the filling cannot end before the pulse is put off.
                let put_off = pulse.as_ref().is_some_and(|served| {
                    self.put_off(&mut of_object, page, &served.pulse, &mut in_object)
                });
                if put_off {
                    *pulse = None;
                    return Ok(Found::Done);
                }
                // No memory to put it off: then a worker has to wait for the pager of the other thread.
                let passed_on = self.passed_on(pulse, &mut in_object);
                Ok(if passed_on { Found::Done } else { Found::Filling })
            }
            Look::Later => Ok(Found::Filling),
            Look::Gone => {
                if object.note_gone(&mut of_object, &mut in_object, page) {
                    return Ok(Found::Gone);
                }
                // Another thread writes it, and has made its copy while the page was there.
                let passed_on = self.passed_on(pulse, &mut in_object);
                Ok(if passed_on { Found::Done } else { Found::Filling })
            }
        }
    }

    /// Leaves a pulse to another worker, if the one that serves it may not wait for a pager.
    fn passed_on(
        &self,
        pulse: &mut Option<Served<M>>,
        in_object: &mut Token<'_, order::Object>,
    ) -> bool {
        let Some(Served { pulse: served, by }) = pulse else { return false };
        let pulses = &self.manager.pulses;
        let may_wait = served.lane == Lane::Paging
            || (*by == Worker::Any && pulses.promote(served.ticket, in_object));
        if may_wait {
            return false;
        }
        if pulses.pass_on(served.ticket, Lane::Paging, in_object) {
            self.manager.mmu.pulse(Lane::Paging);
        }
        *pulse = None;
        true
    }

    /// Puts a pulse off until the end of the filling of `page`. `false` without memory for that.
    fn put_off(
        &self,
        of_object: &mut ObjectState<M>,
        page: ObjectPage,
        pulse: &Pulse<M>,
        in_object: &mut Token<'_, order::Object>,
    ) -> bool {
        let pulses = &self.manager.pulses;
        if of_object.put_off.len() == of_object.put_off.capacity() {
            // Pulses that were cancelled meanwhile.
            of_object.put_off.retain(|put_off| pulses.is_open(put_off.ticket, in_object));
        }
        let Ok(entry) = of_object.pages.get_mut(page) else { return false };
        if of_object.put_off.try_reserve(1).is_err() {
            return false;
        }
        entry.awaited = true;
        of_object.put_off.push(PutOff { page, ticket: pulse.ticket, failed: None });
        pulses.defer(pulse.ticket, in_object);
        true
    }

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

/// The service of a pulse. Its drop ends the pulse and wakes its threads, unless the pulse was put off or passed on.
struct Serving<'a, M: Mmu> {
    space: &'a SpaceCore<M>,
    served: Option<Served<M>>,
    result: Result<(), FaultError>,
}

impl<M: Mmu> Drop for Serving<'_, M> {
    fn drop(&mut self) {
        let Some(Served { pulse, .. }) = self.served.take() else { return };
        let (space, manager) = (self.space, &self.space.manager);
        space.counts.serve(self.result);
        manager.pulses.done(pulse.ticket);
        manager.mmu.wake(&space.machine, pulse.at, pulse.access, pulse.cookie, self.result);
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

/// The result of [`SpaceCore::look_patiently`].
enum Found<M: Mmu> {
    Done,
    Claimed(Arc<ObjectCore<M>>, Claim),
    Filling,
    /// The page's memory had gone, and its state says so now.
    Gone,
}

impl<M: Mmu> ObjectState<M> {
    /// What to do with a page that has no memory.
    fn no_memory(&self, page: ObjectPage) -> Look {
        let discarded = self.discarding.is_some_and(|span| span.contains(page));
        if discarded { Look::Filling } else { Look::Absent }
    }
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
