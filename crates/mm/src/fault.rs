//! Faults: the fast path, and the slow path of a worker.
//!
//! [`AddressSpace::fault`] may run where nothing may block: it only *tries* both locks (its token permits nothing else,
//! see [`order`](crate::order)). If it gets them and the page is in memory, it makes the translation. Otherwise it
//! sends a *pulse*, and a worker redoes the whole fault ([`SpaceCore::redo`], called by `serve.rs`), and may wait. After every wait the
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
    Access, AddressSpace, FaultError, Installed, Lane, Mmu, MmuError, ObjectPage, PageBytes,
    PagerError, State, VirtualPage, Wait, Writable,
    fill::{Claim, Filled},
    lost::REFILLS,
    object::{ObjectCore, ObjectState},
    order::{Handler, Token},
    page::{Barred, PageEntry},
    prepare::Prepared,
    pulse::Posted,
    reads,
    serve::Served,
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

/// What is done once the page is in memory, with both locks held.
pub(crate) enum Aim<'a, M: Mmu> {
    /// A translation is made.
    Translate(Purpose, Wait),
    /// The manager accesses the page itself.
    Run(&'a mut dyn FnMut(&mut PageBytes<'_, M>)),
}

/// What the states say of a page.
enum Seen<'a> {
    /// It is in memory, and dirty if the access is a write; with its state before.
    There(&'a mut PageEntry, State),
    /// It is not wanted in memory.
    Unwanted,
    /// It has no memory.
    Absent,
    /// Another thread fills it.
    Filling,
}

/// The result of a look.
enum Look {
    /// The aim is reached, or the page is not wanted.
    Done,
    /// The page has no memory.
    Absent,
    /// Another thread fills it, or withdraws what is wanted.
    Filling,
    /// The machine would have had to wait.
    Later,
    /// The machine has no memory for its tables there.
    Unprepared,
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
        let mut aim = Aim::Translate(Purpose::Reference, Wait::Never);
        match self.look(&state, mapping, &mut pages, at, access, &mut aim) {
            Ok(Look::Done) => Tried::Resolved,
            Ok(Look::Filling | Look::Later | Look::Unprepared) => BUSY,
            Ok(Look::Gone) => Tried::Lane(Lane::Paging),
            Ok(Look::Absent) => {
                let kept = pages.pages.get(mapping.extent.page(at)).kept;
                Tried::Lane(if kept { Lane::Paging } else { Lane::Memory })
            }
            Err(error) => Tried::Failed(error),
        }
    }

    /// Runs the access if both locks are free and the page is in memory.
    pub(crate) fn try_run(
        &self,
        at: VirtualPage,
        access: Access,
        aim: &mut Aim<'_, M>,
    ) -> Result<(), FaultError> {
        let mut handler = Token::handler();
        let (state, mut in_space) = self.state.try_read(&mut handler).ok_or(FaultError::Busy)?;
        let mapping = permitted(&state, at, access)?;
        let object = &mapping.reference.object;
        let (mut pages, _) = object.state.try_lock(&mut in_space).ok_or(FaultError::Busy)?;
        match self.look(&state, mapping, &mut pages, at, access, aim)? {
            Look::Done => Ok(()),
            Look::Absent | Look::Filling | Look::Later | Look::Unprepared | Look::Gone => {
                Err(FaultError::Busy)
            }
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

    /// Checks a page with both locks held, and does what is aimed at if the page is in memory. Always inlined, with
    /// [`see`]: the fast path is 2 ns shorter so.
    #[inline(always)]
    fn look(
        &self,
        state: &SpaceState<M>,
        mapping: &Mapping<M>,
        of_object: &mut ObjectState<M>,
        at: VirtualPage,
        access: Access,
        aim: &mut Aim<'_, M>,
    ) -> Result<Look, FaultError> {
        let page = mapping.extent.page(at);
        let may_write = mapping.protection.permits(Access::Write);
        let keep = matches!(aim, Aim::Translate(Purpose::Keep, _));
        let writes = access == Access::Write || (state.super_locked && may_write);
        let (entry, before) = match see(mapping, of_object, page, writes, keep)? {
            Seen::There(entry, before) => (entry, before),
            Seen::Unwanted => return Ok(Look::Done),
            Seen::Absent => return Ok(Look::Absent),
            Seen::Filling => return Ok(Look::Filling),
        };
        let (mmu, object) = (&self.manager.mmu, &mapping.reference.object.machine);
        let wait = match aim {
            Aim::Translate(_, wait) => *wait,
            Aim::Run(run) => {
                run(&mut PageBytes::new(mmu, object, page, access));
                return Ok(Look::Done);
            }
        };
        let writable = may_write && entry.state == State::Dirty && entry.barred == Barred::No;
        let writable = if writable { Writable::Yes } else { Writable::No };
        let protection = mapping.protection;
        match mmu.install(&self.machine, at, object, page, protection, writable, wait) {
            Ok(Installed::Done) => Ok(Look::Done),
            Ok(Installed::Later) => Ok(Look::Later),
            Ok(Installed::Unprepared) => Ok(Look::Unprepared),
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
        self.reach(at, access, &mut Aim::Translate(purpose, Wait::Briefly), pulse)
    }

    /// As [`redo`](Self::redo), for any aim.
    pub(crate) fn reach(
        self: &Arc<Self>,
        at: VirtualPage,
        access: Access,
        aim: &mut Aim<'_, M>,
        pulse: &mut Option<Served<M>>,
    ) -> Result<(), FaultError> {
        let (mut attempt, mut round, mut gone) = (0_u32, 0, 0);
        loop {
            match self.look_patiently(at, access, aim, pulse)? {
                Found::Done => return Ok(()),
                Found::Claimed(object, claim) => {
                    if object.fill(claim, pulse)? == Filled::Left {
                        return Ok(());
                    }
                }
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
                Found::Unprepared => {
                    if self.prepare(at, round, pulse)? == Prepared::PassedOn {
                        return Ok(());
                    }
                    round += 1;
                }
            }
        }
    }

    /// Takes both locks and looks, and claims the page if it has no memory.
    fn look_patiently(
        &self,
        at: VirtualPage,
        access: Access,
        aim: &mut Aim<'_, M>,
        pulse: &mut Option<Served<M>>,
    ) -> Result<Found<M>, FaultError> {
        let mut nothing = Token::nothing_held();
        let (state, mut in_space) = self.state.read(&mut nothing);
        let mapping = match aim {
            Aim::Translate(Purpose::Keep, _) => kept(&state, at)?,
            Aim::Translate(Purpose::Reference, _) | Aim::Run(_) => permitted(&state, at, access)?,
        };
        let page = mapping.extent.page(at);
        let object = &mapping.reference.object;
        let (mut of_object, mut in_object) = object.state.lock(&mut in_space);
        match self.look(&state, mapping, &mut of_object, at, access, aim)? {
            Look::Done => Ok(Found::Done),
            Look::Absent => {
                let kept = of_object.pages.get(page).kept;
                // Without a pager and without an eviction, any worker can fill it.
                let reserved = !kept && self.manager.try_reserve(&object.budget);
                if !reserved && self.manager.passed_on(pulse, &mut in_object) {
                    return Ok(Found::Done);
                }
                let claim = of_object.claim(page, reserved).inspect_err(|_| {
                    if reserved {
                        self.manager.unreserve(&object.budget);
                    }
                })?;
                Ok(Found::Claimed(Arc::clone(object), claim))
            }
            Look::Filling => {
                // The object's lock is held, so the filling cannot end before the pulse is put off.
                let put_off = pulse.as_ref().is_some_and(|served| {
                    object.put_off(&mut of_object, page, served.ticket(), &mut in_object)
                });
                if put_off {
                    *pulse = None;
                    return Ok(Found::Done);
                }
                // No memory to put it off: then a worker has to wait for the pager of the other thread.
                let passed_on = self.manager.passed_on(pulse, &mut in_object);
                Ok(if passed_on { Found::Done } else { Found::Filling })
            }
            Look::Later => Ok(Found::Filling),
            Look::Unprepared => Ok(Found::Unprepared),
            Look::Gone => {
                if object.note_gone(&mut of_object, &mut in_object, page) {
                    return Ok(Found::Gone);
                }
                // Another thread writes it, and has made its copy while the page was there.
                let passed_on = self.manager.passed_on(pulse, &mut in_object);
                Ok(if passed_on { Found::Done } else { Found::Filling })
            }
        }
    }
}

/// The result of [`SpaceCore::look_patiently`].
enum Found<M: Mmu> {
    Done,
    Claimed(Arc<ObjectCore<M>>, Claim),
    Filling,
    Unprepared,
    /// The page's memory had gone, and its state says so now.
    Gone,
}

/// What the states say of a page that a fault or a lock wants, and makes it dirty if it is about to be written.
#[inline(always)]
fn see<'a, M: Mmu>(
    mapping: &Mapping<M>,
    of_object: &'a mut ObjectState<M>,
    page: ObjectPage,
    writes: bool,
    keep: bool,
) -> Result<Seen<'a>, FaultError> {
    if page.number() >= of_object.size {
        return Err(FaultError::PastEnd);
    }
    let ObjectState { pages, reads, discarding, .. } = of_object;
    let without_memory = || {
        let discarded = discarding.is_some_and(|span| span.contains(page));
        if discarded { Seen::Filling } else { Seen::Absent }
    };
    let Some(entry) = pages.find_mut(page) else {
        return Ok(if keep && mapping.lazy { Seen::Unwanted } else { without_memory() });
    };
    if keep && mapping.lazy && !entry.touched {
        return Ok(Seen::Unwanted);
    }
    match entry.state {
        State::Clean | State::Dirty | State::Evicting => {}
        State::Filling => return Ok(Seen::Filling),
        State::Bad if reads::is_overdue(reads, page) => {
            return Err(FaultError::Pager(PagerError::TimedOut));
        }
        State::Lost => return Err(FaultError::Lost),
        State::Absent | State::Compressed | State::Bad => return Ok(without_memory()),
    }
    match entry.barred {
        Barred::No => {}
        Barred::Writes if !writes => {}
        Barred::Writes | Barred::All => return Ok(Seen::Filling),
    }
    let before = entry.state;
    if writes {
        // An eviction or write-back that is under way sees this, and leaves the page.
        entry.state = State::Dirty;
    }
    entry.referenced |= !keep;
    Ok(Seen::There(entry, before))
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
    if mapping.is_brought_in(state) { Ok(mapping) } else { Err(FaultError::NotMapped) }
}
