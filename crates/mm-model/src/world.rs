//! The memory manager and its model, side by side.
//!
//! # What it owns
//! The manager of one program, the handles that the program has, and the model. `operations.rs`, `residency.rs` and
//! `access.rs` do each operation in both; `check.rs` compares everything that can be observed then.
//!
//! # Invariants
//! 1. A result differs from the model's only with an excuse: a failure that was armed, or memory that is short since
//!    pages must stay ([`World::excuses`]).
//! 2. A difference is an error of the function that finds it, as a sentence. Nothing here panics, so a program can be
//!    run again with fewer steps.

use alloc::{
    collections::BTreeMap,
    format,
    string::{String, ToString},
    sync::Arc,
    vec,
    vec::Vec,
};

use commonhold_mm::{
    Access, AddressSpace, Budget, Defaults, Error, FaultError, IoPrivilege, Kind, Manager, Mmu,
    Object, Pager, Pages, Residency, Settings, VirtualPage, VirtualSpan,
};

use crate::{
    machine::{Machine, Translated},
    pager::{FAILURE, Pagers, Store},
    program::{Setting, Trouble},
    reference::{BYTES, FIRST, LENGTH, Model, ObjectId, ObjectModel, SpaceId},
    shortage::Shortage,
};

/// `Err` says what differs.
pub(crate) type Checked<T = ()> = Result<T, String>;
/// The mutex of a machine's manager.
pub(crate) type Lock<M> = <<M as Machine>::Mmu as Mmu>::Mutex;
/// The space, page, access and cookie of a pulse.
pub(crate) type PulseKey = (SpaceId, u64, Access, u64);

/// An object, and the handle of it, while there is one.
pub(crate) struct Slot<M: Machine> {
    pub(crate) id: ObjectId,
    pub(crate) handle: Option<Object<M::Mmu>>,
}

/// One program under way.
pub(crate) struct World<'m, M: Machine> {
    pub(crate) machine: &'m M,
    pub(crate) manager: Manager<M::Mmu>,
    pub(crate) model: Model,
    pub(crate) setting: Setting,
    pub(crate) spaces: Vec<(SpaceId, AddressSpace<M::Mmu>)>,
    /// The name of each space that there ever was, by the machine's number.
    pub(crate) numbers: BTreeMap<u64, SpaceId>,
    /// The privileges that keep spaces super-locked.
    pub(crate) privileges: BTreeMap<SpaceId, Vec<IoPrivilege<M::Mmu>>>,
    pub(crate) objects: Vec<Slot<M>>,
    /// Of all objects that there ever were.
    pub(crate) stores: BTreeMap<ObjectId, Arc<Store<Lock<M>>>>,
    pub(crate) budgets: Vec<Budget<M::Mmu>>,
    /// Pulses that were accepted, and have not been answered. Empty if the machine does not record wakes.
    pub(crate) owed: BTreeMap<PulseKey, u32>,
    /// What the budgets had in memory before this operation.
    pub(crate) before: Vec<u64>,
    pub(crate) pagers: Arc<Pagers<Lock<M>>>,
    /// The machine records wakes.
    pub(crate) told: bool,
    shortage: Arc<Shortage>,
    trouble: Trouble,
    /// A part of this operation has failed, or may have.
    pub(crate) troubled: bool,
    /// How often the machine had failed before.
    failed: u64,
    next_space: SpaceId,
    /// Counts the steps.
    pub(crate) turn: usize,
}

impl<'m, M: Machine> World<'m, M> {
    pub(crate) fn new(machine: &'m mut M, setting: Setting) -> Checked<Self> {
        let residency = |locked| if locked { Residency::Locked } else { Residency::Unlocked };
        let defaults = Defaults {
            anonymous: residency(setting.anonymous_locked),
            file: residency(setting.file_locked),
        };
        let (budget, pulses) = (Pages(setting.budget), setting.pulses);
        let settings = Settings { budget, pulses, defaults, ..Settings::default() };
        let manager = machine.start(settings).map_err(said("the machine does not start"))?;
        let machine = &*machine;
        let page_size = manager.mmu().page_size();
        ensure!(
            page_size > 0 && page_size.is_multiple_of(BYTES),
            "pages of {page_size} bytes: the checker wants a multiple of {BYTES}"
        );
        let budgets = setting.limits.iter().map(|pages| manager.budget(Pages(*pages)));
        let budgets: Result<_, _> = budgets.collect();
        let shortage = machine.shortage();
        let told = machine.wakes().is_some();
        let mut world = Self {
            budgets: budgets.map_err(said("no budget"))?,
            before: vec![0; setting.limits.len()],
            machine,
            manager,
            model: Model::default(),
            setting,
            spaces: Vec::new(),
            numbers: BTreeMap::new(),
            privileges: BTreeMap::new(),
            objects: Vec::new(),
            stores: BTreeMap::new(),
            owed: BTreeMap::new(),
            pagers: Arc::new(Pagers::new(Arc::clone(&shortage))),
            told,
            shortage,
            trouble: Trouble::None,
            troubled: false,
            failed: 0,
            next_space: 0,
            turn: 0,
        };
        for _ in 0..3 {
            world.add_space()?;
        }
        for (file, budget) in [(false, None), (true, None), (false, Some(0)), (true, Some(1))] {
            let slot = world.make_object(file, 6, budget)?;
            let slot = slot.map_err(said("no object"))?;
            world.objects.push(slot);
        }
        Ok(world)
    }

    /// Arms what is to fail during an operation.
    pub(crate) fn arm(&mut self, trouble: Trouble) {
        self.before = self.budgets.iter().map(|budget| budget.resident().0).collect();
        self.turn = self.turn.wrapping_add(1);
        self.trouble = trouble;
        self.troubled = trouble != Trouble::None;
        self.failed = self.machine.failed();
        match trouble {
            Trouble::Pager { after, times } => self.pagers.arm(after, times),
            Trouble::Machine(calls) => self.machine.fail_in(Some(calls)),
            Trouble::Memory(_) | Trouble::None => {}
        }
    }

    /// Waits for the threads of the machine, and then nothing fails any more.
    pub(crate) fn disarm(&mut self) {
        self.machine.settle();
        self.machine.fail_in(None);
        self.pagers.disarm();
        self.trouble = Trouble::None;
    }

    /// Whether something was armed for this operation.
    pub(crate) fn is_armed(&self) -> bool {
        self.trouble != Trouble::None
    }

    /// A call of the manager, with as much memory as this operation has.
    pub(crate) fn call<T>(&self, call: impl FnOnce() -> T) -> T {
        match self.trouble {
            Trouble::Memory(bytes) => self.shortage.with(bytes, call),
            _ => call(),
        }
    }

    /// Whether an armed failure has happened. With a limit on memory this is unknown, and the answer is yes.
    pub(crate) fn fired(&self) -> bool {
        matches!(self.trouble, Trouble::Memory(_))
            || self.machine.failed() > self.failed
            || self.pagers.has_failed()
    }

    /// Whether this error may be the result of an armed failure, or of memory that is short because pages must stay in
    /// the state `after`.
    pub(crate) fn excuses(&self, error: FaultError, after: &Model) -> bool {
        match error {
            FaultError::NoMemory => self.fired() || self.is_short(after),
            FaultError::Pager(error) => self.fired() && error == FAILURE,
            _ => false,
        }
    }

    /// Whether pages that must stay may use up a budget.
    pub(crate) fn is_short(&self, model: &Model) -> bool {
        let own =
            |(n, budget): (usize, &Budget<M::Mmu>)| model.pinned(Some(Some(n))) >= budget.limit().0;
        self.budgets.iter().enumerate().any(own) || model.pinned(None) >= self.setting.budget
    }

    /// Checks that an operation had the model's result, or an excuse. Returns whether it was done.
    pub(crate) fn agrees<T>(
        &mut self,
        expected: Result<(), Error>,
        real: &Result<T, Error>,
        after: &Model,
    ) -> Checked<bool> {
        let Err(error) = real else {
            ensure!(expected.is_ok(), "it was done, and not {expected:?}");
            return Ok(true);
        };
        self.troubled = true;
        let excused = match *error {
            Error::NoMemory => self.excuses(FaultError::NoMemory, after),
            Error::Pager { error, .. } => self.excuses(FaultError::Pager(error), after),
            Error::Fault { error, .. } => self.excuses(error, after),
            _ => false,
        };
        ensure!(expected == Err(*error) || excused, "{error:?}, and not {expected:?}");
        Ok(false)
    }

    // What there is. Numbers in programs are taken modulo what exists.

    pub(crate) fn space(&self, space: usize) -> Checked<(SpaceId, AddressSpace<M::Mmu>)> {
        let found = self.spaces.get(space % self.spaces.len().max(1));
        let (id, handle) = found.ok_or("there is no space")?;
        Ok((*id, handle.clone()))
    }

    pub(crate) fn slot(&self, object: usize) -> Checked<&Slot<M>> {
        let found = self.objects.get(object % self.objects.len().max(1));
        found.ok_or_else(|| "there is no object".to_string())
    }

    pub(crate) fn slot_mut(&mut self, object: usize) -> Checked<&mut Slot<M>> {
        let slots = self.objects.len().max(1);
        self.objects.get_mut(object % slots).ok_or_else(|| "there is no object".to_string())
    }

    pub(crate) fn budget(&self, budget: usize) -> Checked<&Budget<M::Mmu>> {
        let found = self.budgets.get(budget % self.budgets.len().max(1));
        found.ok_or_else(|| "there is no budget".to_string())
    }

    pub(crate) fn add_space(&mut self) -> Checked {
        let failed = self.machine.failed();
        let whole = span(FIRST, LENGTH)?;
        let first = self.machine.open(&self.manager, whole);
        let space = match first {
            Err(_) if self.machine.failed() > failed => self.machine.open(&self.manager, whole),
            first => first,
        };
        let space = space.map_err(said("no space"))?;
        let id = self.next_space;
        self.next_space += 1;
        self.numbers.insert(self.machine.space_number(&space), id);
        self.model.spaces.insert(id, Default::default());
        self.spaces.push((id, space));
        Ok(())
    }

    /// A new object; of a file, with every other page written.
    pub(crate) fn make_object(
        &mut self,
        file: bool,
        size: u64,
        own: Option<usize>,
    ) -> Checked<Result<Slot<M>, Error>> {
        let id = self.stores.len();
        let kind = if file { Kind::File } else { Kind::Anonymous };
        let written = (0..size).step_by(2).filter(|_| file);
        let bytes: BTreeMap<_, _> = written.map(|n| (n, [0xA0; BYTES])).collect();
        let store = Arc::new(Store::new(bytes.clone(), self.setting, &self.pagers));
        let pager = Arc::clone(&store) as Arc<dyn Pager>;
        let within = own.map(|n| self.budget(n)).transpose()?;
        let real = self.call(|| match within {
            None => self.manager.object(kind, Pages(size), pager),
            Some(budget) => self.manager.object_within(budget, kind, Pages(size), pager),
        });
        let now = self.model.clone();
        self.agrees(Ok(()), &real, &now)?;
        Ok(real.map(|handle| {
            self.stores.insert(id, store);
            let object = ObjectModel {
                kind,
                size,
                budget: own.map(|n| n % self.budgets.len().max(1)),
                destroyed: false,
                bytes,
                touched: Default::default(),
            };
            self.model.create(id, object);
            Slot { id, handle: Some(handle) }
        }))
    }

    /// What a page translates to.
    pub(crate) fn translation(&self, space: &AddressSpace<M::Mmu>, at: u64) -> Translated {
        self.machine.translation(space, page(at))
    }
}

/// An error of the manager where there is no excuse for one.
pub(crate) fn said(what: &str) -> impl FnOnce(Error) -> String {
    move |error| format!("{what}: {error:?}")
}

pub(crate) fn page(at: u64) -> VirtualPage {
    VirtualPage::new(at)
}

pub(crate) fn span(at: u64, pages: u64) -> Checked<VirtualSpan> {
    let span = VirtualSpan::new(page(at), Pages(pages));
    span.ok_or_else(|| format!("{pages} pages from {at} on are no span"))
}
