//! Bugs that were fixed, each with its story.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex},
};

use commonhold_mm::{
    Access, AddressSpace, Advice, Context, Error, Fault, FaultError, Kind, Manager, MapRequest,
    MmuError, ObjectPage, ObjectSpan, Pager, PagerError, Pages, Placement, Protection, Residency,
    Scope, Settings, State, VirtualPage, VirtualSpan, soft::SoftMmu,
};

type Machine = SoftMmu<parking_lot::RawMutex, parking_lot::RawRwLock>;

const PAGE: usize = 16;
const BROKEN: PagerError = PagerError::Io { code: 5 };

/// What happens in the middle of a call of the pager.
type Meanwhile = Box<dyn FnOnce() + Send>;

/// Keeps what is written, fails to read one page, and runs `meanwhile` in the middle of a call.
#[derive(Default)]
struct Store {
    pages: Mutex<BTreeMap<u64, Vec<u8>>>,
    broken: Option<u64>,
    meanwhile: Mutex<Option<Meanwhile>>,
}

impl Store {
    fn interrupt(&self) {
        let meanwhile = self.meanwhile.lock().unwrap().take();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
    }
}

impl Pager for Store {
    fn read(&self, page: ObjectPage, into: &mut [u8]) -> Result<(), PagerError> {
        self.interrupt();
        if self.broken == Some(page.number()) {
            return Err(BROKEN);
        }
        into.fill(0);
        if let Some(bytes) = self.pages.lock().unwrap().get(&page.number()) {
            into.copy_from_slice(bytes);
        }
        Ok(())
    }

    fn write(&self, page: ObjectPage, from: &[u8]) -> Result<(), PagerError> {
        self.interrupt();
        self.pages.lock().unwrap().insert(page.number(), from.to_vec());
        Ok(())
    }

    fn discard(&self, _pages: ObjectSpan) -> Result<(), PagerError> {
        Ok(())
    }
}

fn manager(budget: u64) -> Manager<Machine> {
    manager_with(budget, |_| std::thread::yield_now())
}

fn manager_with(budget: u64, idle: fn(u32)) -> Manager<Machine> {
    let settings = Settings { budget: Pages(budget), ..Settings::default() };
    Manager::new(SoftMmu::new(PAGE, 1000, idle), settings).unwrap()
}

fn space(manager: &Manager<Machine>) -> AddressSpace<Machine> {
    manager.space(span(0, 64)).unwrap()
}

fn span(first: u64, pages: u64) -> VirtualSpan {
    VirtualSpan::new(VirtualPage::new(first), Pages(pages)).unwrap()
}

fn fixed(at: u64, pages: u64) -> MapRequest {
    MapRequest {
        placement: Placement::Fixed(VirtualPage::new(at)),
        ..MapRequest::new(Pages(pages))
    }
}

/// The search for a page to evict went from the largest budget to smaller ones, and skipped budgets of equal size.
/// With one page in memory, and a place for a second just taken in another budget, it never looked at the only
/// page that could go, and the fault failed for lack of memory.
#[test]
fn budgets_of_equal_size_are_all_searched() {
    let manager = manager(1);
    let own = manager.budget(Pages(1)).unwrap();
    let store = || Arc::new(Store::default());
    let first = manager.object(Kind::Anonymous, Pages(1), store()).unwrap();
    let second = manager.object_within(&own, Kind::Anonymous, Pages(1), store()).unwrap();
    let space = space(&manager);
    space.map(&first, fixed(0, 1)).unwrap();
    space.map(&second, fixed(8, 1)).unwrap();
    let cpu = manager.mmu().cpu();
    for _ in 0..3 {
        assert_eq!(cpu.write(&manager, &space, 0, &[1]), Ok(()));
        assert_eq!(cpu.write(&manager, &space, 8 * 16, &[2]), Ok(()));
    }
    assert_eq!(manager.mmu().violations(), []);
}

/// One search through all pages was taken as proof that none can go. But a page that has been used since it lost
/// its translations is spared once. If all pages were such pages, the fault failed for lack of memory, although no
/// page was locked.
#[test]
fn pages_that_are_all_in_use_make_room_for_another() {
    let manager = manager(100);
    let own = manager.budget(Pages(32)).unwrap();
    let store = Arc::new(Store::default());
    let object = manager.object_within(&own, Kind::Anonymous, Pages(64), store).unwrap();
    let space = space(&manager);
    space.map(&object, fixed(0, 64)).unwrap();
    let cpu = manager.mmu().cpu();
    for page in 0..40 {
        cpu.read(&manager, &space, page * 16, &mut [0]).unwrap();
    }
    // Pages on trial are in memory, and have no translation.
    let on_trial = |at: &u64| {
        let at = VirtualPage::new(*at);
        let resident = space.query(at).unwrap().state == Some(State::Clean);
        resident && manager.mmu().translation(space.machine(), at).is_none()
    };
    let trial: Vec<u64> = (0..40).filter(on_trial).collect();
    assert!(!trial.is_empty());
    for page in (0..40).filter(|page| !trial.contains(page)) {
        space.advise(span(page, 1), Advice::DontNeed).unwrap();
    }
    for page in &trial {
        cpu.read(&manager, &space, page * 16, &mut [0]).unwrap();
    }
    own.set_limit(Pages(trial.len() as u64));
    assert_eq!(cpu.read(&manager, &space, 50 * 16, &mut [0]), Ok(()));
}

/// One thread had the only place of a budget, and waited for its pager, so no page was in memory to be evicted. The
/// fault of a second thread failed for lack of memory, although it only had to wait a little.
#[test]
fn two_threads_share_a_budget_of_one_page() {
    static GATE: (Mutex<(bool, bool)>, Condvar) = (Mutex::new((false, false)), Condvar::new());
    fn open() {
        GATE.0.lock().unwrap().1 = true;
        GATE.1.notify_all();
    }
    let manager = manager_with(1, |_| {
        open();
        std::thread::yield_now();
    });
    let store = Store {
        meanwhile: Mutex::new(Some(Box::new(|| {
            let mut gate = GATE.0.lock().unwrap();
            gate.0 = true;
            GATE.1.notify_all();
            drop(GATE.1.wait_while(gate, |gate| !gate.1).unwrap());
        }))),
        ..Store::default()
    };
    let object = manager.object(Kind::File, Pages(2), Arc::new(store)).unwrap();
    let space = space(&manager);
    space.map(&object, fixed(0, 2)).unwrap();
    let read = |page: u64| manager.mmu().cpu().read(&manager, &space, page * 16, &mut [0]);
    let results = std::thread::scope(|threads| {
        let first = threads.spawn(|| read(0));
        drop(GATE.1.wait_while(GATE.0.lock().unwrap(), |gate| !gate.0).unwrap());
        let second = read(1);
        open();
        (first.join().unwrap(), second)
    });
    assert_eq!(results, (Ok(()), Ok(())));
    assert_eq!(manager.mmu().violations(), []);
}

/// Locked neighbours are joined into one mapping. A lock of some pages brought in the whole mapping, and failed if
/// a page that was not asked for could not be brought in.
#[test]
fn a_lock_asks_for_its_own_pages_only() {
    let manager = manager(100);
    let store = Arc::new(Store { broken: Some(3), ..Store::default() });
    let object = manager.object(Kind::File, Pages(4), store).unwrap();
    let space = space(&manager);
    let none = |at| MapRequest { protection: Protection::None, ..fixed(at, 2) };
    space.map(&object, none(0)).unwrap();
    let (offset, residency) = (ObjectPage::new(2), Some(Residency::Locked));
    space.map(&object, MapRequest { offset, residency, ..none(2) }).unwrap();
    let error = Error::Fault { at: VirtualPage::new(3), error: FaultError::Pager(BROKEN) };
    assert_eq!(space.protect(span(2, 2), Protection::Read), Err(error));
    space.protect(span(0, 2), Protection::Read).unwrap();
    assert_eq!(space.lock(span(0, 2)), Ok(()));
    assert_eq!(space.totals().mappings, 1);
}

/// To bring in the new pages of an object where they are locked, `resize` listed the mappings first, and looked each
/// up again by its first page. If a mapping was cut in two meanwhile, its second part was forgotten.
#[test]
fn a_mapping_that_is_cut_in_two_meanwhile_gets_all_grown_pages() {
    let manager = manager(4);
    let object = manager.object(Kind::Anonymous, Pages(4), Arc::new(Store::default())).unwrap();
    let store = Arc::new(Store::default());
    let other = manager.object(Kind::Anonymous, Pages(1), Arc::clone(&store) as _).unwrap();
    let space = space(&manager);
    let locked = |at| MapRequest { residency: Some(Residency::Locked), ..fixed(at, 4) };
    space.map(&object, locked(0)).unwrap();
    space.map(&object, locked(10)).unwrap();
    object.resize(Pages(2)).unwrap();
    space.map(&other, fixed(20, 1)).unwrap();
    let cpu = manager.mmu().cpu();
    cpu.write(&manager, &space, 20 * 16, &[1]).unwrap();
    // The other object has the last place of the budget, and its page has to be written before it can go.
    let cut = space.clone();
    *store.meanwhile.lock().unwrap() =
        Some(Box::new(move || cut.protect(span(10, 2), Protection::Read).unwrap()));
    object.resize(Pages(4)).unwrap();
    assert_eq!(space.totals().mappings, 4);
    let before = space.totals().faults;
    cpu.read(&manager, &space, 12 * 16, &mut [0; 32]).unwrap();
    assert_eq!(space.totals().faults, before);
}

/// `lock_all` listed the mappings and locked one after the other. If a part of one was unmapped meanwhile, the rest
/// of it was not locked, and `lock_all` succeeded.
#[test]
fn lock_all_locks_the_rest_of_a_mapping_that_is_cut_meanwhile() {
    let manager = manager(100);
    let store = Arc::new(Store::default());
    let object = manager.object(Kind::File, Pages(4), Arc::clone(&store) as _).unwrap();
    let space = space(&manager);
    space.map(&object, fixed(0, 1)).unwrap();
    space.map(&object, fixed(10, 4)).unwrap();
    let cut = space.clone();
    *store.meanwhile.lock().unwrap() = Some(Box::new(move || cut.unmap(span(10, 1)).unwrap()));
    space.lock_all(Scope::Present).unwrap();
    assert!(space.query(VirtualPage::new(11)).unwrap().locked);
    assert_eq!(space.totals().locked, space.totals().mapped);
}

/// A fault where none may happen was reported as the first access to a lazy page, even if the page had been accessed
/// before; and past the end of an object it was reported as a missing super-lock, although the space had one.
#[test]
fn a_fault_where_none_may_happen_says_why() {
    let manager = manager(100);
    let object = manager.object(Kind::Anonymous, Pages(4), Arc::new(Store::default())).unwrap();
    let space = space(&manager);
    space.map(&object, MapRequest { lazy: true, ..fixed(0, 2) }).unwrap();
    let offset = ObjectPage::new(2);
    space.map(&object, MapRequest { offset, ..fixed(10, 2) }).unwrap();
    let fault = |at| space.fault(VirtualPage::new(at), Access::Read, Context::NoFault);
    let cpu = manager.mmu().cpu();
    cpu.write(&manager, &space, 0, &[1]).unwrap();
    space.advise(span(0, 1), Advice::DontNeed).unwrap();
    assert_eq!(fault(0), Fault::Failed(FaultError::NotSuperLocked));
    assert_eq!(fault(1), Fault::Failed(FaultError::NeverReferenced));
    let _privilege = space.io_privilege().unwrap();
    object.resize(Pages(3)).unwrap();
    assert_eq!(fault(11), Fault::Failed(FaultError::PastEnd));
    assert_eq!(fault(1), Fault::Failed(FaultError::NeverReferenced));
}

/// The pulses of a dropped space were dropped without a wake, so threads that had faulted there waited for ever.
#[test]
fn waiters_in_a_dropped_space_are_woken() {
    let manager = manager(100);
    let object = manager.object(Kind::Anonymous, Pages(4), Arc::new(Store::default())).unwrap();
    let space = space(&manager);
    space.map(&object, fixed(0, 4)).unwrap();
    for at in 0..3 {
        let fault = space.fault(VirtualPage::new(at), Access::Read, Context::Normal);
        assert_eq!(fault, Fault::Pulsed);
    }
    drop(space);
    assert_eq!((manager.mmu().wakes(), manager.pulses()), (3, 0));
    assert!(!manager.serve());
}

/// Never a bug here, but the one that is made most easily: the mapping changes while a pulse waits. The mapping at the
/// time the pulse is served decides, not the one at the time it was sent.
#[test]
fn a_pulse_is_validated_anew_when_it_is_served() {
    let manager = manager(100);
    let object = manager.object(Kind::Anonymous, Pages(4), Arc::new(Store::default())).unwrap();
    let space = space(&manager);
    space.map(&object, fixed(0, 4)).unwrap();
    let fault = |at| space.fault(VirtualPage::new(at), Access::Write, Context::Normal);
    assert_eq!(fault(0), Fault::Pulsed);
    space.protect(span(0, 1), Protection::Read).unwrap();
    assert!(manager.serve());
    assert_eq!(space.totals().faults.failed, 1, "to write is not permitted any more");
    assert_eq!(fault(3), Fault::Pulsed);
    object.resize(Pages(3)).unwrap();
    assert!(manager.serve());
    assert_eq!(space.totals().faults.failed, 2, "the page is past the end by now");
    assert_eq!(fault(2), Fault::Pulsed);
    let replace = MapRequest { placement: Placement::Replace(VirtualPage::new(2)), ..fixed(2, 1) };
    space.map(&object, replace).unwrap();
    assert!(!manager.serve(), "the pulse is not served in the new mapping");
    assert_eq!((space.totals().faults.cancelled, manager.mmu().wakes()), (1, 3));
    assert_eq!((object.totals().resident, manager.pulses()), (Pages(0), 0));
}

/// Each error is a sentence with the number of the page.
#[test]
fn errors_say_which_page_and_what_to_do() {
    let at = VirtualPage::new(7);
    let page = ObjectPage::new(9);
    let fault = Error::Fault { at, error: FaultError::NeverReferenced };
    assert!(
        fault.to_string().starts_with("page 7: ") && fault.to_string().contains("touch it before")
    );
    assert!(Error::Pager { page, error: BROKEN }.to_string().contains("page 9"));
    assert!(Error::Occupied { at }.to_string().contains("page 7"));
    assert!(Error::NotMapped { at }.to_string().contains("page 7"));
    assert!(Error::NoGap { asked: Pages(3) }.to_string().contains("3 pages"));
    let failed = MmuError::Failed { code: 12 };
    assert_eq!(Error::from(failed), Error::Machine(failed));
    assert_eq!(Error::from(MmuError::NoMemory), Error::NoMemory);
    assert!(Error::Machine(failed).to_string().contains("error 12"));
    assert_eq!(FaultError::from(failed).to_string(), Error::Machine(failed).to_string());
    let all = [FaultError::NotMapped, FaultError::Protection, FaultError::PastEnd];
    let all = all.into_iter().chain([FaultError::NoMemory, FaultError::NotSuperLocked]);
    let told: std::collections::BTreeSet<String> = all.map(|error| error.to_string()).collect();
    assert_eq!(told.len(), 5, "each has a message of its own: {told:?}");
}
