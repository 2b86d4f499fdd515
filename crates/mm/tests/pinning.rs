//! Locked pages of all spaces, counted in their budgets.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::sync::{
    Arc, Barrier,
    atomic::{AtomicU64, Ordering},
};

use commonhold_mm::{
    AddressSpace, Error, Kind, Manager, MapRequest, Object, Pages, Placement, Protection,
    Residency, Scope, Settings, VirtualPage, VirtualSpan, ZeroPager, soft::SoftMmu,
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

fn locked(request: MapRequest) -> MapRequest {
    MapRequest { residency: Some(Residency::Locked), ..request }
}

/// A space that shows a new object of `pages` pages from page 0 on.
fn shown(manager: &Manager<Machine>, pages: u64) -> (Object<Machine>, AddressSpace<Machine>) {
    let (object, space) = (object(manager, pages), space(manager));
    space.map(&object, fixed(0, pages)).unwrap();
    (object, space)
}

/// The bug: each lock was compared with the budget alone. The second one evicted the pages of a bystander before it
/// failed.
#[test]
fn two_spaces_lock_no_more_than_the_budget_together() {
    let manager = manager(5);
    let (bystander, theirs) = shown(&manager, 2);
    let cpu = manager.mmu().cpu();
    cpu.read(&manager, &theirs, 0, &mut [0; 32]).unwrap();
    let [(_, one), (object, two)] = [0; 2].map(|_| shown(&manager, 4));
    one.lock(span(0, 3)).unwrap();
    let untouched = |said: Result<(), Error>| {
        assert_eq!(said, Err(Error::NoMemory));
        assert_eq!((bystander.totals().evicted, object.totals().filled), (0, 0));
        assert_eq!((two.totals().locked, one.totals().locked), (Pages(0), Pages(3)));
    };
    untouched(two.lock(span(0, 3)));
    untouched(two.lock_all(Scope::Present));
    untouched(two.io_privilege().map(drop));
    untouched(two.map(&object, locked(fixed(8, 3))).map(drop));
    two.lock(span(0, 2)).unwrap();
    assert_eq!(manager.resident(), Pages(5));
    one.unlock_all();
    two.lock(span(0, 4)).unwrap();
}

/// The bug: the same, for the budget of some objects.
#[test]
fn two_objects_lock_no_more_than_their_own_budget_together() {
    let manager = manager(100);
    let budget = manager.budget(Pages(4)).unwrap();
    let [one, two] = [0; 2].map(|_| {
        let pager = Arc::new(ZeroPager);
        let object = manager.object_within(&budget, Kind::Anonymous, Pages(4), pager).unwrap();
        let space = space(&manager);
        space.map(&object, fixed(0, 4)).unwrap();
        space
    });
    one.lock(span(0, 3)).unwrap();
    assert_eq!(two.lock(span(0, 2)), Err(Error::NoMemory));
    two.lock(span(0, 1)).unwrap();
    assert_eq!((budget.locked(), manager.locked()), (Pages(4), Pages(4)));
    // Pages that other objects lock do not count there.
    let (_, other) = shown(&manager, 8);
    other.lock(span(0, 8)).unwrap();
    assert_eq!((budget.locked(), manager.locked()), (Pages(4), Pages(12)));
    budget.set_limit(Pages(2));
    assert_eq!(two.lock(span(0, 2)), Err(Error::NoMemory));
    two.lock(span(0, 1)).unwrap();
}

#[test]
fn a_page_that_two_spaces_lock_counts_once_and_stays_until_both_unlock_it() {
    let manager = manager(4);
    let (object, one) = shown(&manager, 4);
    let two = space(&manager);
    two.map(&object, fixed(10, 3)).unwrap();
    two.map(&object, fixed(20, 4)).unwrap();
    one.lock(span(0, 4)).unwrap();
    two.lock(span(10, 3)).unwrap();
    two.lock(span(20, 4)).unwrap();
    assert_eq!(manager.locked(), Pages(4));
    one.unlock(span(0, 4)).unwrap();
    two.unlock(span(21, 3)).unwrap();
    assert_eq!(manager.locked(), Pages(3));
    assert_eq!(manager.page_out(Pages(9)), Pages(1));
    two.unlock(span(11, 1)).unwrap();
    assert_eq!((manager.locked(), manager.page_out(Pages(9))), (Pages(2), Pages(1)));
    two.unmap(span(10, 14)).unwrap();
    assert_eq!((manager.locked(), manager.page_out(Pages(9))), (Pages(0), Pages(2)));
}

#[test]
fn every_way_to_end_a_lock_gives_back_exactly_what_it_took() {
    let manager = manager(100);
    let count = || manager.locked().0;
    let (object, space) = shown(&manager, 8);
    space.lock(span(0, 8)).unwrap();
    space.lock(span(2, 3)).unwrap();
    assert_eq!(count(), 8);
    space.unlock(span(1, 2)).unwrap();
    assert_eq!(count(), 6);
    space.unmap(span(3, 2)).unwrap();
    assert_eq!(count(), 4);
    object.resize(Pages(7)).unwrap();
    assert_eq!(count(), 3);
    object.resize(Pages(8)).unwrap();
    assert_eq!(count(), 4);
    let privilege = space.io_privilege().unwrap();
    assert_eq!(count(), 6);
    space.lock(span(1, 1)).unwrap();
    space.unlock(span(0, 1)).unwrap();
    space.map(&object, fixed(20, 8)).unwrap();
    assert_eq!(count(), 8);
    space.unmap(span(20, 8)).unwrap();
    assert_eq!(count(), 6);
    space.protect(span(5, 2), Protection::None).unwrap();
    drop(privilege);
    assert_eq!(count(), 4);
    let replace = MapRequest { placement: Placement::Replace(VirtualPage::new(5)), ..fixed(0, 2) };
    space.map(&object, locked(replace)).unwrap();
    assert_eq!(count(), 3, "pages 0, 1 and 7; page 1 is locked twice");
    space.unlock_all();
    assert_eq!(count(), 0);
    space.lock_all(Scope::PresentAndFuture).unwrap();
    object.destroy();
    drop(object);
    let before = count();
    assert!(before > 0 && manager.resident().0 >= before);
    drop(space);
    assert_eq!((count(), manager.resident()), (0, Pages(0)));
}

/// The bug: the pages that an object grew by were brought in for its locked mappings even if they were too many.
#[test]
fn an_object_does_not_grow_by_locked_pages_that_do_not_fit() {
    let manager = manager(6);
    let (object, space) = shown(&manager, 4);
    let (_, other) = shown(&manager, 2);
    space.lock(span(0, 4)).unwrap();
    object.resize(Pages(2)).unwrap();
    other.lock(span(0, 2)).unwrap();
    let (_, third) = shown(&manager, 1);
    third.lock(span(0, 1)).unwrap();
    assert_eq!((manager.locked(), object.resize(Pages(4))), (Pages(5), Err(Error::NoMemory)));
    assert_eq!((object.pages(), manager.locked()), (Pages(2), Pages(5)));
    object.resize(Pages(3)).unwrap();
    assert_eq!((manager.locked(), manager.resident()), (Pages(6), Pages(6)));
    // Pages that no mapping has locked may be as many as one likes.
    object.destroy();
    third.unmap(span(0, 1)).unwrap();
    object.resize(Pages(4)).unwrap();
    assert_eq!(manager.locked(), Pages(6));
}

/// A machine that fails while an object grows leaves its size and its count as they were.
#[test]
fn a_growth_that_the_machine_refuses_gives_its_room_back() {
    let manager = manager(100);
    let (object, space) = shown(&manager, 4);
    space.lock(span(0, 4)).unwrap();
    object.resize(Pages(2)).unwrap();
    manager.mmu().fail_in(0);
    assert_eq!(object.resize(Pages(4)), Err(Error::NoMemory));
    manager.mmu().succeed();
    assert_eq!((object.pages(), manager.locked()), (Pages(2), Pages(2)));
}

/// The bug: two locks at once were each compared with a budget that neither had taken from yet.
#[test]
fn of_two_locks_at_once_that_do_not_fit_together_none_takes_pages_of_the_other() {
    for _ in 0..200 {
        let manager = manager(4);
        let spaces = [0; 2].map(|_| shown(&manager, 3).1);
        let (barrier, done) = (Barrier::new(2), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for space in &spaces {
                scope.spawn(|| {
                    barrier.wait();
                    match space.lock(span(0, 3)) {
                        Ok(()) => _ = done.fetch_add(1, Ordering::Relaxed),
                        Err(error) => assert_eq!(error, Error::NoMemory),
                    }
                });
            }
        });
        assert_eq!((done.into_inner(), manager.locked()), (1, Pages(3)));
    }
}
