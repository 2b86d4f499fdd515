//! The memory manager and its model, side by side: every operation is done in both, and then everything that can
//! be observed is compared (`check.rs`).

use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use commonhold_mm::{
    Access, AddressSpace, Advice, Budget, Context, Defaults, Error, FaultError, IoPrivilege, Kind,
    Manager, MapRequest, Object, ObjectPage, ObjectSpan, Pages, Placement, Residency, Settings,
    VirtualPage, VirtualSpan, soft::Cpu,
};

use crate::{
    machine::Machine,
    pager::{FAILURE, Failures, Store},
    program::{Op, Part, Setting},
    reference::{FIRST, LENGTH, Model, ObjectId, ObjectModel, PAGE, Place, Request, SpaceId},
    trouble::{self, Trouble},
};

/// More memory than any program needs: only budgets are short here.
pub(crate) const FRAMES: u32 = 100;

/// An object, and the handle of it, while there is one.
pub(crate) struct Slot {
    pub(crate) id: ObjectId,
    pub(crate) handle: Option<Object<Machine>>,
}

pub(crate) struct World {
    pub(crate) manager: Manager<Machine>,
    pub(crate) model: Model,
    pub(crate) setting: Setting,
    pub(crate) spaces: Vec<(SpaceId, AddressSpace<Machine>)>,
    /// The privileges that keep spaces super-locked.
    pub(crate) privileges: BTreeMap<SpaceId, Vec<IoPrivilege<Machine>>>,
    pub(crate) objects: Vec<Slot>,
    /// Of all objects that there ever were.
    pub(crate) stores: BTreeMap<ObjectId, Arc<Store>>,
    pub(crate) budgets: Vec<Budget<Machine>>,
    /// Pulses that were accepted, and have not been answered.
    pub(crate) owed: BTreeMap<(SpaceId, u64, Access), u32>,
    /// What the budgets had in memory before this operation.
    pub(crate) before: Vec<u64>,
    pub(crate) cpus: Vec<Cpu<parking_lot::RawMutex>>,
    failures: Arc<Mutex<Failures>>,
    trouble: Trouble,
    /// A part of this operation has failed, or may have.
    pub(crate) troubled: Cell<bool>,
    /// How often the machine had failed before.
    failed: usize,
}

impl World {
    pub(crate) fn new(setting: Setting) -> Self {
        let residency = |locked| if locked { Residency::Locked } else { Residency::Unlocked };
        let defaults = Defaults {
            anonymous: residency(setting.anonymous_locked),
            file: residency(setting.file_locked),
        };
        let (budget, pulses) = (Pages(setting.budget), setting.pulses);
        let settings = Settings { budget, pulses, defaults, ..Settings::default() };
        let manager = Manager::new(Machine::new(PAGE, FRAMES), settings).unwrap();
        let limits = setting.limits.iter();
        let mut world = Self {
            budgets: limits.map(|pages| manager.budget(Pages(*pages)).unwrap()).collect(),
            before: vec![0; 2],
            cpus: (0..3).map(|_| manager.mmu().soft.cpu()).collect(),
            manager,
            model: Model::default(),
            setting,
            spaces: Vec::new(),
            privileges: BTreeMap::new(),
            objects: Vec::new(),
            stores: BTreeMap::new(),
            owed: BTreeMap::new(),
            failures: Arc::default(),
            trouble: Trouble::None,
            troubled: Cell::new(false),
            failed: 0,
        };
        for _ in 0..3 {
            world.add_space();
        }
        for (file, budget) in [(false, None), (true, None), (false, Some(0)), (true, Some(1))] {
            let slot = world.make_object(file, 6, budget).unwrap();
            world.objects.push(slot);
        }
        world
    }

    /// Does one operation, with trouble, and compares.
    pub(crate) fn step(&mut self, op: Op, trouble: Trouble) {
        self.before = self.budgets.iter().map(|budget| budget.resident().0).collect();
        self.trouble = trouble;
        self.troubled.set(trouble != Trouble::None);
        self.failed = self.manager.mmu().failed();
        match trouble {
            Trouble::Pager { after, times } => self.failures.lock().unwrap().arm(after, times),
            Trouble::Machine(calls) => self.manager.mmu().soft.fail_in(calls),
            Trouble::Memory(_) | Trouble::None => {}
        }
        self.act(op);
        self.manager.mmu().soft.succeed();
        self.failures.lock().unwrap().disarm();
        self.trouble = Trouble::None;
        self.check();
    }

    /// A call of the manager, with as much memory as this operation has.
    pub(crate) fn call<T>(&self, call: impl FnOnce() -> T) -> T {
        match self.trouble {
            Trouble::Memory(bytes) => trouble::with_memory(bytes, call),
            _ => call(),
        }
    }

    /// Whether an armed failure has happened. With a limit on memory this is unknown, and the answer is yes.
    fn fired(&self) -> bool {
        matches!(self.trouble, Trouble::Memory(_))
            || self.manager.mmu().failed() > self.failed
            || self.failures.lock().unwrap().have_failed()
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

    fn is_short(&self, model: &Model) -> bool {
        let own = |n: usize| model.pinned(Some(Some(n))) >= self.budgets[n].limit().0;
        own(0) || own(1) || model.pinned(None) >= self.setting.budget
    }

    /// Checks that an operation had the model's result, or an excuse. Returns whether it was done.
    pub(crate) fn agrees<T: std::fmt::Debug>(
        &self,
        expected: Result<(), Error>,
        real: &Result<T, Error>,
        after: &Model,
    ) -> bool {
        let Err(error) = real else {
            assert_eq!(expected, Ok(()), "but it was done: {real:?}");
            return true;
        };
        self.troubled.set(true);
        let excused = match *error {
            Error::NoMemory => self.excuses(FaultError::NoMemory, after),
            Error::Pager { error, .. } => self.excuses(FaultError::Pager(error), after),
            Error::Fault { error, .. } => self.excuses(error, after),
            _ => false,
        };
        assert!(expected == Err(*error) || excused, "{error:?}, and not {expected:?}");
        false
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each operation")]
    fn act(&mut self, op: Op) {
        match op {
            Op::Map { space, object, place, offset, pages, protection, lazy, locked } => {
                let kind = self.model.objects[&self.objects[object].id].kind;
                let default = match kind {
                    Kind::Anonymous => self.setting.anonymous_locked,
                    Kind::File => self.setting.file_locked,
                };
                let object_id = self.objects[object].id;
                let request = Request {
                    object: object_id,
                    place,
                    offset,
                    pages,
                    protection,
                    lazy,
                    locked: locked.unwrap_or(default),
                };
                self.map(space, object, request, locked);
            }
            Op::Unmap { space, part: (at, pages) } => {
                let (id, handle) = self.space(space);
                let expected = self.model.may_unmap(id, at, pages);
                let real = self.call(|| handle.unmap(span(at, pages)));
                if self.agrees(expected, &real, &self.model) {
                    self.model.unmap(id, at, pages);
                    self.none_waits(id, at, pages);
                }
            }
            Op::Protect { space, part: (at, pages), protection } => {
                let (id, handle) = self.space(space);
                let expected = self.model.all_mapped(id, at, pages);
                let real = self.call(|| handle.protect(span(at, pages), protection));
                if self.agrees(expected, &real, &self.model) {
                    self.model.protect(id, at, pages, protection);
                    self.model.brought(id, at, pages);
                } else if matches!(real, Err(Error::Fault { .. })) {
                    self.model.protect(id, at, pages, protection);
                    self.forgive(id);
                }
            }
            Op::Resize { object, pages } => self.resize(object, pages),
            Op::SyncObject { object, part: (first, pages) } => {
                let Some(handle) = self.objects[object].handle.clone() else { return };
                let span = ObjectSpan::new(ObjectPage::new(first), Pages(pages)).unwrap();
                let real = self.call(|| handle.sync(span));
                if self.agrees(Ok(()), &real, &self.model) {
                    self.is_kept(self.objects[object].id, first, pages);
                }
            }
            Op::SyncSpace { space, part } => self.sync_space(space, part),
            Op::WillNeed { space, part } => self.advise(space, part, Advice::WillNeed),
            Op::DontNeed { space, part } => self.advise(space, part, Advice::DontNeed),
            Op::Write { cpu, space, address, length, value } => {
                let bytes: Vec<u8> = (0..20).map(|n| value.wrapping_add(n)).take(length).collect();
                self.write(cpu, space, address, &bytes);
            }
            Op::Read { cpu, space, address, length } => {
                self.read(cpu, space, address, length);
            }
            Op::NoFault { cpu, space, at, access } => self.no_fault(cpu, space, at, access),
            Op::Fault { space, at, access } => {
                let (id, handle) = self.space(space);
                let before = self.manager.pulses();
                let fault = self.call(|| handle.fault(page(at), access, Context::Normal));
                self.book(id, at, access, before);
                self.compare_fault(id, at, access, fault);
            }
            Op::Serve => self.serve(),
            Op::PageOut { pages } => {
                let before = self.manager.resident();
                let gone = self.call(|| self.manager.page_out(Pages(pages)));
                assert!(gone.0 <= pages && before.0 == gone.0 + self.manager.resident().0);
                let all = self.model.pinned(None) == 0 && pages >= before.0 && !self.fired();
                assert!(!all || gone == before, "{gone:?} of {before:?} pages that need not stay");
            }
            Op::SetLimit { budget, pages } => self.budgets[budget].set_limit(Pages(pages)),
            Op::Destroy { object } => {
                if let Some(handle) = &self.objects[object].handle {
                    handle.destroy();
                    let id = self.objects[object].id;
                    self.model.objects.get_mut(&id).unwrap().destroyed = true;
                }
            }
            Op::DropObject { object } => drop(self.objects[object].handle.take()),
            Op::NewObject { object, file, pages, budget } => {
                if let Ok(slot) = self.make_object(file, pages, budget) {
                    self.objects[object] = slot;
                }
            }
            Op::NewSpace { space } => {
                let last = self.spaces.len() - 1;
                self.spaces.swap(space, last);
                let (id, handle) = self.spaces.pop().unwrap();
                self.privileges.remove(&id);
                drop(handle);
                self.model.spaces.remove(&id);
                self.add_space();
                self.spaces.swap(space, last);
            }
            Op::ReadAll { cpu } => self.read_all(cpu),
            Op::Lock { .. } | Op::Unlock { .. } | Op::LockAll { .. } | Op::UnlockAll { .. } => {
                self.lock(op);
            }
            Op::Grant { .. } | Op::Revoke { .. } => self.privilege(op),
        }
    }

    pub(crate) fn space(&self, space: usize) -> (SpaceId, AddressSpace<Machine>) {
        let (id, handle) = &self.spaces[space];
        (*id, handle.clone())
    }

    fn add_space(&mut self) {
        let failed = self.manager.mmu().failed();
        let whole = VirtualSpan::new(page(FIRST), Pages(LENGTH)).unwrap();
        let space = self.manager.space(whole).or_else(|error| {
            assert!(self.manager.mmu().failed() > failed, "{error}");
            self.manager.space(whole)
        });
        let space = space.unwrap();
        let id = space.machine().number;
        self.model.spaces.insert(id, Default::default());
        self.spaces.push((id, space));
    }

    /// A new object; of a file, with every other page written.
    fn make_object(&mut self, file: bool, size: u64, own: Option<usize>) -> Result<Slot, Error> {
        let id = self.stores.len();
        let kind = if file { Kind::File } else { Kind::Anonymous };
        let written = (0..size).step_by(2).filter(|_| file);
        let bytes: BTreeMap<_, _> = written.map(|n| (n, [0xA0; PAGE])).collect();
        let store = Arc::new(Store::new(bytes.clone(), self.setting, &self.failures));
        let pager = Arc::clone(&store) as Arc<dyn commonhold_mm::Pager>;
        let real = self.call(|| match own {
            None => self.manager.object(kind, Pages(size), pager),
            Some(n) => self.manager.object_within(&self.budgets[n], kind, Pages(size), pager),
        });
        self.agrees(Ok(()), &real, &self.model);
        let handle = Some(real?);
        self.stores.insert(id, store);
        let object = ObjectModel {
            kind,
            size,
            budget: own,
            destroyed: false,
            bytes,
            touched: Default::default(),
        };
        self.model.create(id, object);
        Ok(Slot { id, handle })
    }

    fn map(&mut self, space: usize, object: usize, request: Request, locked: Option<bool>) {
        let Some(handle) = self.objects[object].handle.clone() else { return };
        let (id, of_space) = self.space(space);
        let (placement, target) = match request.place {
            Place::Anywhere => (Placement::Anywhere, None),
            Place::Fixed(at) => (Placement::Fixed(page(at)), None),
            Place::Replace(at) => (Placement::Replace(page(at)), Some(at)),
        };
        let residency = |locked| if locked { Residency::Locked } else { Residency::Unlocked };
        let real_request = MapRequest {
            placement,
            offset: ObjectPage::new(request.offset),
            pages: Pages(request.pages),
            protection: request.protection,
            lazy: request.lazy,
            residency: locked.map(residency),
        };
        let expected = self.model.may_map(id, &request);
        let real = self.call(|| of_space.map(&handle, real_request));
        let mut after = self.model.clone();
        if let Place::Fixed(at) | Place::Replace(at) = request.place {
            after.map(id, &request, at);
        }
        // It is unknown where the mapping would have gone, but known how many more pages must stay.
        let somewhere = matches!(request.place, Place::Anywhere)
            && (request.locked || after.spaces[&id].lock_future || after.spaces[&id].super_locked);
        // Pages that are to be replaced stay in memory until the new ones are in.
        let replaced = if target.is_some() { request.pages } else { 0 };
        let tight = |budget: Option<usize>, limit| {
            let more = if somewhere { request.pages } else { replaced };
            after.pinned(budget.map(Some)) + more >= limit
        };
        let own = after.objects[&request.object].budget;
        let short = tight(None, self.setting.budget)
            || own.is_some_and(|n| tight(Some(n), self.budgets[n].limit().0));
        let done = match real {
            Err(Error::NoMemory | Error::Fault { error: FaultError::NoMemory, .. }) if short => {
                assert_eq!(expected, Ok(()));
                self.troubled.set(true);
                false
            }
            _ => self.agrees(expected, &real, &after),
        };
        let inside = crate::reference::span(target.unwrap_or(FIRST), request.pages).is_ok();
        if let Some(at) = target.filter(|_| inside && done) {
            self.model.unmap(id, at, request.pages);
            self.none_waits(id, at, request.pages);
        }
        if let (true, Ok(span)) = (done, real) {
            let at = span.first().number();
            let asked = target.or(match request.place {
                Place::Fixed(at) => Some(at),
                _ => None,
            });
            assert!(span.pages().0 == request.pages && asked.is_none_or(|asked| asked == at));
            let expected = Err(Error::NotMapped { at: page(at) });
            assert_eq!(self.model.may_unmap(id, at, request.pages), expected);
            self.model.map(id, &request, at);
            // A translation that fails after the replacement is made by the page's first access.
            if target.is_some() && self.fired() {
                self.forgive(id);
            }
        }
    }

    /// Checks that no pulse is left for pages that have been unmapped.
    fn none_waits(&mut self, id: SpaceId, at: u64, pages: u64) {
        self.take_wakes();
        let waits =
            |key: &&(SpaceId, u64, Access)| key.0 == id && (at..at + pages).contains(&key.1);
        assert_eq!(self.owed.keys().find(waits), None, "not cancelled");
    }

    fn resize(&mut self, object: usize, pages: u64) {
        let Some(handle) = self.objects[object].handle.clone() else { return };
        let id = self.objects[object].id;
        let before = self.model.objects[&id].size;
        let mut after = self.model.clone();
        after.resize(id, pages);
        let mut real = self.call(|| handle.resize(Pages(pages)));
        let cut = ObjectPage::new(pages);
        if !self.setting.discards && real == Err(Error::Pager { page: cut, error: FAILURE }) {
            real = Ok(());
        }
        let done = self.agrees(Ok(()), &real, &after);
        let in_part = matches!(real, Err(Error::Fault { .. } | Error::Pager { .. }));
        // The size has changed nevertheless, unless what was to grow could not.
        if done || in_part || pages < before || handle.pages().0 == pages {
            self.model = after;
        }
        if !done {
            let ids: Vec<_> = self.model.spaces.keys().copied().collect();
            ids.into_iter().for_each(|id| self.forgive(id));
        }
    }

    /// Pages that a failed operation left out may be missing until another operation brings them in.
    fn forgive(&mut self, id: SpaceId) {
        let space = &self.spaces.iter().find(|(number, _)| *number == id).unwrap().1;
        let soft = &self.manager.mmu().soft;
        for (at, shown) in &mut self.model.spaces.get_mut(&id).unwrap().pages {
            let there = soft.translation(&space.machine().soft, page(*at));
            shown.missing |= there.is_none();
        }
    }

    fn sync_space(&mut self, space: usize, (at, pages): Part) {
        let (id, handle) = self.space(space);
        let expected = self.model.all_mapped(id, at, pages);
        let real = self.call(|| handle.sync(span(at, pages)));
        if self.agrees(expected, &real, &self.model) {
            for at in at..at + pages {
                let shown = *self.model.shown(id, at).unwrap();
                self.is_kept(shown.object, shown.page, 1);
            }
        }
    }

    /// Checks that the pager has the contents of the pages.
    pub(crate) fn is_kept(&self, object: ObjectId, first: u64, pages: u64) {
        for page in first..first + pages {
            let bytes = self.model.bytes(object, page);
            let kept = self.stores[&object].page(page);
            assert!(bytes == [0; PAGE] || kept == Some(bytes), "page {page} is {kept:?}");
        }
    }

    fn advise(&mut self, space: usize, (at, pages): Part, advice: Advice) {
        let (id, handle) = self.space(space);
        let expected = self.model.all_mapped(id, at, pages);
        let real = self.call(|| handle.advise(span(at, pages), advice));
        if self.agrees(expected, &real, &self.model) {
            assert!(real.unwrap().0 <= pages);
        }
        for at in at..at + pages {
            let Some(shown) = self.model.shown(id, at).copied() else { continue };
            if advice == Advice::WillNeed {
                self.model.objects.get_mut(&shown.object).unwrap().touched.insert(shown.page);
            }
        }
    }
}

pub(crate) fn page(at: u64) -> VirtualPage {
    VirtualPage::new(at)
}

pub(crate) fn span(at: u64, pages: u64) -> VirtualSpan {
    VirtualSpan::new(page(at), Pages(pages)).unwrap()
}
