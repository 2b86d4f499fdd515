//! Locks, privileges, and what they refuse.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::sync::Arc;

use commonhold_mm::{
    Access, AddressSpace, Context, Error, Fault, FaultError, Kind, LIMIT, Manager, MapRequest,
    Object, ObjectPage, Pages, Placement, Protection, Residency, Scope, Settings, Span,
    VirtualPage, VirtualSpan, ZeroPager, soft::SoftMmu,
};

type Machine = SoftMmu<parking_lot::RawMutex, parking_lot::RawRwLock>;

fn machine() -> Machine {
    SoftMmu::new(16, 1000, |_| std::thread::yield_now())
}

fn manager(budget: u64) -> Manager<Machine> {
    let settings = Settings { budget: Pages(budget), ..Settings::default() };
    Manager::new(machine(), settings).unwrap()
}

fn object(manager: &Manager<Machine>, pages: u64) -> Object<Machine> {
    manager.object(Kind::Anonymous, Pages(pages), Arc::new(ZeroPager)).unwrap()
}

fn space(manager: &Manager<Machine>) -> AddressSpace<Machine> {
    manager.space(span(0, 64)).unwrap()
}

fn at(page: u64) -> VirtualPage {
    VirtualPage::new(page)
}

fn span(first: u64, pages: u64) -> VirtualSpan {
    VirtualSpan::new(at(first), Pages(pages)).unwrap()
}

fn fixed(first: u64, pages: u64) -> MapRequest {
    MapRequest { placement: Placement::Fixed(at(first)), ..MapRequest::new(Pages(pages)) }
}

/// The bug: such a lock succeeded, and its pages were not in memory.
#[test]
fn a_lock_of_pages_that_cannot_be_brought_in_names_the_first_and_locks_nothing() {
    let manager = manager(100);
    let (object, space) = (object(&manager, 8), space(&manager));
    space.map(&object, fixed(0, 8)).unwrap();
    space.protect(span(3, 2), Protection::None).unwrap();
    let refused = |at, error| Err(Error::Fault { at: VirtualPage::new(at), error });
    assert_eq!(space.lock(span(1, 6)), refused(3, FaultError::Protection));
    space.protect(span(3, 2), Protection::Read).unwrap();
    object.resize(Pages(6)).unwrap();
    assert_eq!(space.lock(span(1, 6)), refused(6, FaultError::PastEnd));
    assert_eq!((space.totals().locked, manager.resident()), (Pages(0), Pages(0)));
    space.lock(span(1, 5)).unwrap();
    assert_eq!((space.totals().locked, manager.resident()), (Pages(5), Pages(5)));
}

/// The bug: no fault could ever wait in such a manager, and every one of them was answered with `Full`.
#[test]
fn settings_with_room_for_no_pulse_are_refused() {
    let settings = Settings { pulses: 0, ..Settings::default() };
    assert_eq!(Manager::new(machine(), settings).unwrap_err(), Error::NoPulses);
}

/// The bug: numbers above the limit became the limit itself, so an operation took a span that nobody had asked for.
#[test]
fn page_numbers_above_the_limit_are_refused() {
    let manager = manager(100);
    let object = object(&manager, 8);
    let last = LIMIT - 1;
    let space = manager.space(span(LIMIT - 64, 64)).unwrap();
    space.map(&object, fixed(LIMIT - 8, 8)).unwrap();
    let beyond = at(LIMIT + 1);
    assert_ne!(beyond, at(LIMIT));
    assert_eq!(at(u64::MAX), beyond);
    let reaching = Span::between(at(LIMIT - 4), beyond);
    assert_eq!(space.unmap(reaching), Err(Error::BadSpan));
    assert_eq!(space.lock(reaching), Err(Error::BadSpan));
    assert_eq!(space.unlock(reaching), Err(Error::BadSpan));
    assert_eq!(space.protect(reaching, Protection::Read), Err(Error::BadSpan));
    assert_eq!(space.sync(reaching), Err(Error::BadSpan));
    assert_eq!(VirtualSpan::new(beyond, Pages(0)), None);
    let far = MapRequest { offset: ObjectPage::new(u64::MAX), ..MapRequest::new(Pages(1)) };
    assert_eq!(space.map(&object, far), Err(Error::BadSpan));
    for none in [LIMIT, u64::MAX] {
        assert_eq!(space.query(at(none)), None);
        let fault = space.fault(at(none), Access::Read, Context::Normal);
        assert_eq!(fault, Fault::Failed(FaultError::NotMapped));
    }
    assert!(space.query(at(last)).is_some());
    assert_eq!(object.resize(Pages(LIMIT + 1)), Err(Error::BadSpan));
}

/// The bug: a super-lock was a flag, and the first to end it ended it for all.
#[test]
fn the_last_of_several_privileges_restores_what_was() {
    let manager = manager(100);
    let (object, space) = (object(&manager, 8), space(&manager));
    space.map(&object, fixed(0, 8)).unwrap();
    space.lock(span(0, 2)).unwrap();
    let first = space.io_privilege().unwrap();
    let second = space.io_privilege().unwrap();
    drop(first);
    assert!(space.is_super_locked());
    let cpu = manager.mmu().cpu();
    for page in 0..8 {
        cpu.access(&manager, &space, at(page), Access::Write, Context::NoFault, |_| ()).unwrap();
    }
    drop(second);
    assert!(!space.is_super_locked());
    assert_eq!(space.totals().locked, Pages(2));
    assert_eq!(manager.mmu().violations(), []);
}

#[test]
fn a_privilege_that_cannot_be_granted_takes_none_away() {
    let manager = manager(4);
    let (object, space) = (object(&manager, 8), space(&manager));
    space.map(&object, fixed(0, 4)).unwrap();
    let first = space.io_privilege().unwrap();
    assert!(space.map(&object, fixed(8, 8)).is_err());
    let second = space.io_privilege().unwrap();
    drop(first);
    assert!(space.is_super_locked());
    drop(second);
    assert!(!space.is_super_locked());
    space.map(&object, fixed(8, 8)).unwrap();
    assert!(space.io_privilege().is_err());
    assert!(!space.is_super_locked());
}

/// The bug: the pages of others were evicted one after the other before the lock failed.
#[test]
fn a_lock_of_more_than_the_budget_evicts_nothing() {
    let manager = manager(4);
    let (bystander, theirs) = (object(&manager, 3), space(&manager));
    theirs.map(&bystander, fixed(0, 3)).unwrap();
    let cpu = manager.mmu().cpu();
    cpu.read(&manager, &theirs, 0, &mut [0; 48]).unwrap();
    let (large, space) = (object(&manager, 8), space(&manager));
    space.map(&large, fixed(0, 8)).unwrap();
    let untouched = || {
        assert_eq!((bystander.totals().resident, bystander.totals().evicted), (Pages(3), 0));
        assert_eq!((space.totals().locked, space.totals().mapped), (Pages(0), Pages(8)));
    };
    assert_eq!(space.lock(span(0, 8)), Err(Error::NoMemory));
    untouched();
    assert_eq!(space.lock_all(Scope::Present), Err(Error::NoMemory));
    untouched();
    assert_eq!(space.io_privilege().unwrap_err(), Error::NoMemory);
    untouched();
    let locked = MapRequest { residency: Some(Residency::Locked), ..fixed(16, 8) };
    assert_eq!(space.map(&large, locked), Err(Error::NoMemory));
    untouched();
    // A page that is shown twice counts once.
    space.unmap(span(4, 4)).unwrap();
    space.map(&large, fixed(20, 4)).unwrap();
    space.lock(span(0, 4)).unwrap();
    space.unlock_all();
    space.lock_all(Scope::Present).unwrap();
}

#[test]
fn a_space_locks_no_more_than_its_limit() {
    let manager = manager(100);
    let (object, space) = (object(&manager, 16), space(&manager));
    space.map(&object, fixed(0, 8)).unwrap();
    space.set_locked_limit(Pages(4));
    let refused = |asked| Error::LockedLimit { limit: Pages(4), asked: Pages(asked) };
    assert_eq!(space.lock(span(0, 5)), Err(refused(5)));
    space.lock(span(0, 3)).unwrap();
    space.lock(span(1, 3)).unwrap();
    assert_eq!(space.lock(span(4, 1)), Err(refused(5)));
    let locked = MapRequest { residency: Some(Residency::Locked), ..fixed(16, 1) };
    assert_eq!(space.map(&object, locked), Err(refused(5)));
    assert_eq!(space.io_privilege().unwrap_err(), refused(8));
    assert_eq!(space.totals().locked, Pages(4));
    space.unlock(span(0, 1)).unwrap();
    space.unmap(span(1, 1)).unwrap();
    space.lock(span(4, 2)).unwrap();
    space.unlock_all();
    space.lock(span(2, 4)).unwrap();
}

#[test]
fn the_default_residency_of_an_object_can_change() {
    let manager = manager(100);
    let (object, space) = (object(&manager, 8), space(&manager));
    assert_eq!(object.default_residency(), Residency::Unlocked);
    object.set_default_residency(Residency::Locked);
    space.map(&object, fixed(0, 2)).unwrap();
    assert_eq!((space.totals().locked, manager.resident()), (Pages(2), Pages(2)));
    object.set_default_residency(Residency::Unlocked);
    space.map(&object, fixed(4, 2)).unwrap();
    assert_eq!(space.totals().locked, Pages(2));
}

#[test]
fn future_mappings_can_be_locked_without_the_present_ones() {
    let manager = manager(100);
    let (object, space) = (object(&manager, 8), space(&manager));
    space.map(&object, fixed(0, 2)).unwrap();
    space.lock_all(Scope::Future).unwrap();
    assert_eq!((space.totals().locked, manager.resident()), (Pages(0), Pages(0)));
    space.map(&object, fixed(4, 2)).unwrap();
    assert_eq!((space.totals().locked, manager.resident()), (Pages(2), Pages(2)));
}
