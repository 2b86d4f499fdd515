//! Each operation of the memory manager on the software machine, one after the other.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::sync::{Arc, Mutex};

use commonhold_mm::{
    Access, Advice, Context, Error, FaultError, Kind, Manager, MapRequest, Object, ObjectPage,
    ObjectSpan, Pager, PagerError, Pages, Placement, Protection, Residency, Scope, Settings, State,
    VirtualPage, VirtualSpan, soft::SoftMmu,
};

type Machine = SoftMmu<parking_lot::RawMutex, parking_lot::RawRwLock>;

const PAGE: usize = 16;

/// Keeps what is written, and fails on command.
#[derive(Default)]
struct Store {
    pages: Mutex<std::collections::BTreeMap<u64, Vec<u8>>>,
    fail: Mutex<Option<PagerError>>,
}

impl Pager for Store {
    fn read(&self, page: ObjectPage, into: &mut [u8]) -> Result<(), PagerError> {
        if let Some(error) = *self.fail.lock().unwrap() {
            return Err(error);
        }
        match self.pages.lock().unwrap().get(&page.number()) {
            Some(bytes) => into.copy_from_slice(bytes),
            None => into.fill(0),
        }
        Ok(())
    }

    fn write(&self, page: ObjectPage, from: &[u8]) -> Result<(), PagerError> {
        if let Some(error) = *self.fail.lock().unwrap() {
            return Err(error);
        }
        self.pages.lock().unwrap().insert(page.number(), from.to_vec());
        Ok(())
    }

    fn discard(&self, pages: ObjectSpan) -> Result<(), PagerError> {
        self.pages.lock().unwrap().retain(|page, _| !pages.contains(ObjectPage::new(*page)));
        Ok(())
    }
}

fn manager(budget: u64) -> Manager<Machine> {
    let mmu = SoftMmu::new(PAGE, 1000, |_| std::thread::yield_now());
    Manager::new(mmu, Settings { budget: Pages(budget), ..Settings::default() }).unwrap()
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

fn states(object: &Object<Machine>) -> Vec<State> {
    (0..object.pages().0).map(|page| object.state(ObjectPage::new(page)).unwrap()).collect()
}

#[test]
fn what_is_written_is_read_through_every_mapping() {
    let manager = manager(100);
    let object = manager.object(Kind::Anonymous, Pages(4), Arc::new(Store::default())).unwrap();
    let (one, two) = (manager.space(span(0, 64)).unwrap(), manager.space(span(0, 64)).unwrap());
    one.map(&object, fixed(8, 4)).unwrap();
    two.map(&object, fixed(20, 4)).unwrap();
    let cpu = manager.mmu().cpu();
    let text = b"across the end of a page, and a second one";
    cpu.write(&manager, &one, 8 * 16 + 5, text).unwrap();
    let mut read = [0; 42];
    cpu.read(&manager, &two, 20 * 16 + 5, &mut read).unwrap();
    assert_eq!(&read, text);
    assert_eq!(states(&object), [State::Dirty, State::Dirty, State::Dirty, State::Absent]);
    assert_eq!(object.spaces(), 2);
    drop(one);
    assert_eq!(object.spaces(), 1);
    assert_eq!(manager.mmu().violations(), []);
}

#[test]
fn a_budget_of_two_pages_shows_all_pages_of_an_object_one_after_the_other() {
    let manager = manager(2);
    let object = manager.object(Kind::Anonymous, Pages(8), Arc::new(Store::default())).unwrap();
    let space = manager.space(span(0, 64)).unwrap();
    space.map(&object, fixed(0, 8)).unwrap();
    let cpu = manager.mmu().cpu();
    for round in 1..4 {
        for page in 0..8_u8 {
            let (address, mut before) = (u64::from(page) * 16, [0]);
            cpu.read(&manager, &space, address, &mut before).unwrap();
            assert_eq!(before[0], if round == 1 { 0 } else { round - 1 + 10 * page });
            cpu.write(&manager, &space, address, &[round + 10 * page]).unwrap();
            assert!(manager.resident() <= Pages(2));
        }
    }
    assert_eq!(manager.mmu().violations(), []);
}

#[test]
fn locked_pages_are_read_without_a_fault_and_stay() {
    let manager = manager(4);
    let object = manager.object(Kind::Anonymous, Pages(8), Arc::new(Store::default())).unwrap();
    let space = manager.space(span(0, 64)).unwrap();
    space.map(&object, fixed(0, 8)).unwrap();
    space.lock(span(2, 2)).unwrap();
    let cpu = manager.mmu().cpu();
    let before = space.totals().faults;
    cpu.read(&manager, &space, 2 * 16, &mut [0; 32]).unwrap();
    assert_eq!(space.totals().faults, before);
    cpu.write(&manager, &space, 2 * 16, &[1]).unwrap();
    assert_eq!(space.totals().faults.fast, before.fast + 1, "the first write is noticed");
    for page in 0..8 {
        cpu.read(&manager, &space, page * 16, &mut [0]).unwrap();
    }
    assert!(states(&object)[2..4].iter().all(|state| state.is_resident()));
    // A lock of more pages than the budget fails, and locks nothing.
    assert_eq!(space.lock(span(0, 8)), Err(Error::NoMemory));
    assert_eq!(space.totals().locked, Pages(2));
    space.unlock_all();
    assert_eq!(manager.page_out(Pages(10)), Pages(4));
    assert_eq!(manager.mmu().violations(), []);
}

#[test]
fn a_super_locked_space_faults_only_at_the_first_access_to_a_lazy_page() {
    let manager = manager(100);
    let object = manager.object(Kind::Anonymous, Pages(8), Arc::new(Store::default())).unwrap();
    let space = manager.space(span(0, 64)).unwrap();
    space.map(&object, fixed(0, 4)).unwrap();
    let lazy = MapRequest { lazy: true, offset: ObjectPage::new(4), ..fixed(8, 4) };
    space.map(&object, lazy).unwrap();
    let privilege = space.io_privilege().unwrap();
    let cpu = manager.mmu().cpu();
    let (no_fault, at) = (Context::NoFault, VirtualPage::new);
    for page in 0..4 {
        cpu.access(&manager, &space, at(page), Access::Write, no_fault, |_| ()).unwrap();
    }
    let error = cpu.access(&manager, &space, at(8), Access::Read, no_fault, |_| ()).unwrap_err();
    assert_eq!(error, FaultError::NeverReferenced);
    cpu.read(&manager, &space, 8 * 16, &mut [0]).unwrap();
    cpu.access(&manager, &space, at(8), Access::Write, no_fault, |_| ()).unwrap();
    object.sync(ObjectSpan::new(ObjectPage::new(0), Pages(8)).unwrap()).unwrap();
    for page in 0..4 {
        cpu.access(&manager, &space, at(page), Access::Write, no_fault, |_| ()).unwrap();
    }
    drop(privilege);
    assert_eq!(space.totals().locked, Pages(0));
    assert_eq!(manager.mmu().violations(), []);
}

#[test]
fn what_was_cut_off_comes_back_as_zeros() {
    let manager = manager(100);
    let object = manager.object(Kind::Anonymous, Pages(4), Arc::new(Store::default())).unwrap();
    let space = manager.space(span(0, 64)).unwrap();
    space.map(&object, fixed(0, 4)).unwrap();
    let cpu = manager.mmu().cpu();
    cpu.write(&manager, &space, 0, &[7; 64]).unwrap();
    space.advise(span(0, 4), Advice::DontNeed).unwrap();
    cpu.write(&manager, &space, 48, &[8]).unwrap();
    object.resize(Pages(2)).unwrap();
    let error = cpu.read(&manager, &space, 48, &mut [0]).unwrap_err();
    assert_eq!(error, FaultError::PastEnd);
    object.resize(Pages(4)).unwrap();
    let mut read = [1; 64];
    cpu.read(&manager, &space, 0, &mut read).unwrap();
    assert_eq!((&read[..32], &read[32..]), (&[7; 32][..], &[0; 32][..]));
    assert_eq!(manager.mmu().violations(), []);
}

/// Ten thousand maps of one page each stayed ten thousand mappings.
#[test]
fn maps_that_continue_each_other_become_one_mapping() {
    let manager = manager(100);
    let object = manager.object(Kind::Anonymous, Pages(8), Arc::new(Store::default())).unwrap();
    let space = manager.space(span(0, 64)).unwrap();
    let map = |at: u64, offset: u64, residency| {
        let offset = ObjectPage::new(offset);
        space.map(&object, MapRequest { offset, residency, ..fixed(at, 1) }).unwrap();
        space.totals().mappings
    };
    assert_eq!(map(10, 0, None), 1);
    assert_eq!(map(12, 2, None), 2);
    assert_eq!(map(11, 1, None), 1, "it joins the mappings before and behind it");
    assert_eq!(map(13, 4, None), 2, "it shows another page than the next one");
    assert_eq!(map(20, 5, Some(Residency::Locked)), 3);
    assert_eq!(map(21, 6, Some(Residency::Locked)), 3);
    assert_eq!(map(22, 7, None), 4, "it is not locked");
    let cpu = manager.mmu().cpu();
    cpu.write(&manager, &space, 10 * 16, &[7; 64]).unwrap();
    space.advise(span(10, 4), Advice::DontNeed).unwrap();
    space.unmap(span(10, 4)).unwrap();
    assert_eq!((space.totals().mappings, object.spaces()), (2, 1));
    space.unmap(span(20, 3)).unwrap();
    assert_eq!(object.spaces(), 0);
    assert_eq!(manager.mmu().violations(), []);
}

#[test]
fn unmap_and_protect_take_parts_of_mappings() {
    let manager = manager(100);
    let object = manager.object(Kind::Anonymous, Pages(8), Arc::new(Store::default())).unwrap();
    let space = manager.space(span(0, 64)).unwrap();
    space.map(&object, fixed(0, 8)).unwrap();
    let cpu = manager.mmu().cpu();
    cpu.write(&manager, &space, 0, &[1; 128]).unwrap();
    space.protect(span(2, 2), Protection::Read).unwrap();
    assert_eq!(cpu.write(&manager, &space, 32, &[2]), Err(FaultError::Protection));
    assert_eq!(space.totals().mappings, 3);
    space.protect(span(2, 2), Protection::ReadWrite).unwrap();
    assert_eq!(space.totals().mappings, 1);
    space.unmap(span(3, 2)).unwrap();
    assert_eq!(cpu.read(&manager, &space, 48, &mut [0]), Err(FaultError::NotMapped));
    assert_eq!(space.totals().mapped, Pages(6));
    assert_eq!(space.lock(span(2, 2)), Err(Error::NotMapped { at: VirtualPage::new(3) }));
    cpu.write(&manager, &space, 80, &[3; 48]).unwrap();
    space.lock_all(Scope::PresentAndFuture).unwrap();
    let placed = space.map(&object, MapRequest::new(Pages(2))).unwrap();
    assert!(space.query(placed.first()).unwrap().locked);
    assert_eq!(manager.mmu().violations(), []);
}

#[test]
fn a_pager_error_reaches_the_faulting_access_and_the_next_fault_tries_again() {
    let manager = manager(100);
    let store = Arc::new(Store::default());
    let object = manager.object(Kind::File, Pages(2), Arc::clone(&store) as _).unwrap();
    let space = manager.space(span(0, 64)).unwrap();
    let locked = MapRequest { residency: Some(Residency::Locked), ..fixed(8, 2) };
    space.map(&object, fixed(0, 2)).unwrap();
    let cpu = manager.mmu().cpu();
    let failure = PagerError::Io { code: 5 };
    *store.fail.lock().unwrap() = Some(failure);
    assert_eq!(cpu.read(&manager, &space, 0, &mut [0]), Err(FaultError::Pager(failure)));
    assert_eq!(states(&object), [State::Bad, State::Absent]);
    let error = space.map(&object, locked).unwrap_err();
    assert!(matches!(error, Error::Fault { error: FaultError::Pager(_), .. }));
    assert_eq!(space.totals().mapped, Pages(2));
    *store.fail.lock().unwrap() = None;
    cpu.write(&manager, &space, 0, &[1]).unwrap();
    *store.fail.lock().unwrap() = Some(failure);
    assert!(space.sync(span(0, 2)).is_err());
    assert_eq!(manager.page_out(Pages(1)), Pages(0));
    assert_eq!(states(&object)[0], State::Dirty);
    *store.fail.lock().unwrap() = None;
    assert_eq!(space.sync(span(0, 2)), Ok(Pages(1)));
    assert_eq!(store.pages.lock().unwrap()[&0][0], 1);
    assert_eq!(manager.mmu().violations(), []);
}
