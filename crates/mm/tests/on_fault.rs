//! Lock on fault, and mappings that reach past the end of their object.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::sync::Arc;

use commonhold_mm::{
    AddressSpace, Advice, Error, FailingPager, FaultError, Kind, LIMIT, Manager, MapRequest,
    Object, ObjectPage, Pager, PagerCall, PagerError, Pages, Placement, Protection, Residency,
    Scope, Settings, State, VirtualPage, VirtualSpan, Which, ZeroPager, soft::SoftMmu,
};

type Machine = SoftMmu<parking_lot::RawMutex, parking_lot::RawRwLock>;

fn manager(budget: u64) -> Manager<Machine> {
    let machine = SoftMmu::new(16, 1000, |_| std::thread::yield_now());
    let settings = Settings { budget: Pages(budget), ..Settings::default() };
    Manager::new(machine, settings).unwrap()
}

fn object(manager: &Manager<Machine>, pages: u64) -> Object<Machine> {
    manager.object(Kind::Anonymous, Pages(pages), Arc::new(ZeroPager)).unwrap()
}

fn space(manager: &Manager<Machine>) -> AddressSpace<Machine> {
    manager.space(span(0, 64)).unwrap()
}

fn span(first: u64, pages: u64) -> VirtualSpan {
    VirtualSpan::new(VirtualPage::new(first), Pages(pages)).unwrap()
}

fn fixed(first: u64, pages: u64) -> MapRequest {
    let placement = Placement::Fixed(VirtualPage::new(first));
    MapRequest { placement, ..MapRequest::new(Pages(pages)) }
}

fn with(residency: Residency, request: MapRequest) -> MapRequest {
    MapRequest { residency: Some(residency), ..request }
}

fn read(
    manager: &Manager<Machine>,
    space: &AddressSpace<Machine>,
    page: u64,
) -> Result<u8, FaultError> {
    let mut byte = [0];
    manager.mmu().cpu().read(manager, space, page * 16, &mut byte)?;
    Ok(byte[0])
}

fn write(manager: &Manager<Machine>, space: &AddressSpace<Machine>, page: u64, byte: u8) {
    manager.mmu().cpu().write(manager, space, page * 16, &[byte]).unwrap();
}

#[test]
fn a_lock_on_fault_brings_nothing_in_and_keeps_what_comes() {
    let manager = manager(100);
    let (object, space) = (object(&manager, 8), space(&manager));
    space.map(&object, fixed(0, 8)).unwrap();
    read(&manager, &space, 7).unwrap();
    space.lock_on_fault(span(0, 8)).unwrap();
    assert_eq!((manager.resident(), manager.locked()), (Pages(1), Pages(8)));
    assert_eq!(space.totals().locked, Pages(8));
    read(&manager, &space, 2).unwrap();
    assert_eq!(manager.page_out(Pages(100)), Pages(0));
    // What was evicted before a part is locked is brought in by its next access only.
    space.unlock(span(6, 2)).unwrap();
    assert_eq!(manager.page_out(Pages(100)), Pages(1));
    space.lock_on_fault(span(6, 2)).unwrap();
    assert_eq!(object.state(ObjectPage::new(7)), Some(State::Absent));
    read(&manager, &space, 7).unwrap();
    assert_eq!(manager.page_out(Pages(100)), Pages(0));
    assert_eq!(space.totals().mappings, 1);
    // A change of protection, or of the size, brings nothing in either.
    space.protect(span(0, 8), Protection::Read).unwrap();
    object.resize(Pages(6)).unwrap();
    object.resize(Pages(8)).unwrap();
    assert_eq!(manager.resident(), Pages(1));
    space.unlock_all();
    assert_eq!((manager.page_out(Pages(100)), manager.locked()), (Pages(1), Pages(0)));
}

#[test]
fn a_lock_on_fault_takes_its_room_at_once() {
    let manager = manager(4);
    let (object, space) = (object(&manager, 8), space(&manager));
    space.map(&object, fixed(0, 8)).unwrap();
    assert_eq!(space.lock_on_fault(span(0, 5)), Err(Error::NoMemory));
    space.lock_on_fault(span(0, 3)).unwrap();
    assert_eq!(space.lock(span(4, 2)), Err(Error::NoMemory));
    space.set_locked_limit(Pages(3));
    let refused = Error::LockedLimit { limit: Pages(3), asked: Pages(4) };
    assert_eq!(space.lock_on_fault(span(4, 1)), Err(refused));
    assert_eq!(space.lock_on_fault(span(7, 2)), Err(Error::NotMapped { at: VirtualPage::new(8) }));
    let far = with(Residency::LockedOnFault, fixed(20, 1));
    assert_eq!(space.map(&object, far), Err(refused));
    // To lock what is locked takes no room, either way.
    space.lock(span(0, 3)).unwrap();
    assert_eq!((manager.resident(), manager.locked()), (Pages(3), Pages(3)));
    space.lock_on_fault(span(0, 3)).unwrap();
    assert_eq!(manager.page_out(Pages(9)), Pages(0));
}

#[test]
fn future_mappings_can_be_locked_on_fault() {
    let manager = manager(100);
    let (object, space) = (object(&manager, 8), space(&manager));
    space.map(&object, fixed(0, 2)).unwrap();
    space.lock_all_on_fault(Scope::Future).unwrap();
    assert_eq!(manager.locked(), Pages(0));
    space.map(&object, MapRequest { offset: ObjectPage::new(2), ..fixed(4, 2) }).unwrap();
    assert_eq!((manager.locked(), manager.resident()), (Pages(2), Pages(0)));
    space.lock_all_on_fault(Scope::PresentAndFuture).unwrap();
    assert_eq!((manager.locked(), manager.resident()), (Pages(4), Pages(0)));
    // A mapping that asks for more gets it.
    let more = MapRequest { offset: ObjectPage::new(4), ..fixed(8, 2) };
    space.map(&object, with(Residency::Locked, more)).unwrap();
    assert_eq!((manager.locked(), manager.resident()), (Pages(6), Pages(2)));
    space.unlock_all();
    space.map(&object, MapRequest { offset: ObjectPage::new(6), ..fixed(12, 2) }).unwrap();
    assert_eq!(manager.locked(), Pages(0));
    object.set_default_residency(Residency::LockedOnFault);
    assert_eq!(object.default_residency(), Residency::LockedOnFault);
    space.map(&object, fixed(20, 2)).unwrap();
    assert_eq!((manager.locked(), manager.resident()), (Pages(2), Pages(2)));
}

#[test]
fn a_lock_that_fails_leaves_pages_locked_on_fault_that_were_so_before() {
    let manager = manager(100);
    let pager = Arc::new(FailingPager::<_, parking_lot::RawMutex>::new(ZeroPager));
    let object = manager.object(Kind::File, Pages(6), Arc::clone(&pager) as Arc<dyn Pager>);
    let (object, space) = (object.unwrap(), space(&manager));
    space.map(&object, fixed(0, 6)).unwrap();
    space.lock_on_fault(span(1, 2)).unwrap();
    let error = PagerError::Io { code: 5 };
    pager.fail(PagerCall::Read, Which::Nth(5), error).unwrap();
    let at = VirtualPage::new(4);
    let failed = Error::Fault { at, error: FaultError::Pager(error) };
    assert_eq!(space.lock(span(0, 6)), Err(failed));
    assert_eq!((manager.locked(), space.totals().locked), (Pages(2), Pages(2)));
    assert_eq!((manager.page_out(Pages(9)), manager.resident()), (Pages(2), Pages(2)));
}

#[test]
fn a_super_lock_brings_pages_in_that_are_locked_on_fault() {
    let manager = manager(100);
    let (object, space) = (object(&manager, 4), space(&manager));
    space.map(&object, with(Residency::LockedOnFault, fixed(0, 4))).unwrap();
    let privilege = space.io_privilege().unwrap();
    assert_eq!(manager.resident(), Pages(4));
    drop(privilege);
    assert_eq!((manager.page_out(Pages(9)), manager.locked()), (Pages(0), Pages(4)));
}

/// A mapping past the end was refused, while one that a cut had left there was not.
#[test]
fn pages_past_the_end_are_an_error_until_the_object_grows() {
    let manager = manager(100);
    let (object, space) = (object(&manager, 2), space(&manager));
    space.map(&object, fixed(0, 4)).unwrap();
    let behind = MapRequest { offset: ObjectPage::new(5), ..fixed(10, 3) };
    space.map(&object, behind).unwrap();
    write(&manager, &space, 1, 7);
    for page in [2, 3, 10, 12] {
        assert_eq!(read(&manager, &space, page), Err(FaultError::PastEnd));
        assert_eq!(space.query(VirtualPage::new(page)).unwrap().state, None);
    }
    assert_eq!(space.advise(span(0, 4), Advice::WillNeed), Ok(Pages(1)));
    assert_eq!(space.sync(span(10, 3)), Ok(Pages(0)));
    object.resize(Pages(7)).unwrap();
    for page in [2, 3, 10, 11] {
        assert_eq!(read(&manager, &space, page), Ok(0));
        write(&manager, &space, page, 8);
    }
    assert_eq!(read(&manager, &space, 12), Err(FaultError::PastEnd));
    // Cut and grown once more, they are zeros.
    object.resize(Pages(3)).unwrap();
    assert_eq!(read(&manager, &space, 3), Err(FaultError::PastEnd));
    object.resize(Pages(8)).unwrap();
    let bytes = [1, 2, 3, 10, 11, 12].map(|page| read(&manager, &space, page).unwrap());
    assert_eq!(bytes, [7, 8, 0, 0, 0, 0]);
    assert_eq!(manager.mmu().violations(), []);
    let beyond = MapRequest { offset: ObjectPage::new(LIMIT - 1), ..MapRequest::new(Pages(2)) };
    assert_eq!(space.map(&object, beyond), Err(Error::BadSpan));
    let last = MapRequest { offset: ObjectPage::new(LIMIT - 2), ..MapRequest::new(Pages(2)) };
    let at = space.map(&object, last).unwrap();
    assert_eq!(read(&manager, &space, at.first().number()), Err(FaultError::PastEnd));
}

#[test]
fn a_locked_mapping_has_the_pages_that_exist_in_memory_and_gets_the_others_when_the_object_grows() {
    let manager = manager(6);
    let (object, space) = (object(&manager, 2), space(&manager));
    space.map(&object, with(Residency::Locked, fixed(0, 1 << 5))).unwrap();
    assert_eq!((manager.resident(), manager.locked()), (Pages(2), Pages(2)));
    space.lock_all(Scope::Present).unwrap();
    object.resize(Pages(5)).unwrap();
    assert_eq!((manager.resident(), manager.locked()), (Pages(5), Pages(5)));
    assert_eq!(object.resize(Pages(7)), Err(Error::NoMemory));
    assert_eq!((object.pages(), manager.page_out(Pages(9))), (Pages(5), Pages(0)));
    object.resize(Pages(1)).unwrap();
    assert_eq!((manager.resident(), manager.locked()), (Pages(1), Pages(1)));
    let past = Error::Fault { at: VirtualPage::new(1), error: FaultError::PastEnd };
    space.unlock_all();
    assert_eq!(space.lock(span(0, 2)), Err(past));
    space.lock_on_fault(span(0, 2)).unwrap();
    object.resize(Pages(3)).unwrap();
    assert_eq!((manager.resident(), manager.locked()), (Pages(1), Pages(2)));
    let privilege = space.io_privilege().unwrap();
    object.resize(Pages(4)).unwrap();
    assert_eq!(manager.resident(), Pages(4));
    drop(privilege);
    assert_eq!(manager.locked(), Pages(2));
}
