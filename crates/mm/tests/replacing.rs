//! A mapping that replaces others: an access finds the old or the new one, and a refusal changes nothing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails there")]

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use commonhold_mm::{
    AddressSpace, Error, FailingPager, FaultError, Kind, Manager, MapRequest, Object, ObjectPage,
    ObjectSpan, Pager, PagerCall, PagerError, Pages, Placement, Protection, Residency, Settings,
    SpaceTotals, VirtualPage, VirtualSpan, Which, soft::SoftMmu,
};

type Machine = SoftMmu<parking_lot::RawMutex, parking_lot::RawRwLock>;

const PAGE: u64 = 16;

/// A pager whose pages consist of one byte.
#[derive(Debug)]
struct Filled(u8);

impl Pager for Filled {
    fn read(&self, _page: ObjectPage, into: &mut [u8]) -> Result<(), PagerError> {
        into.fill(self.0);
        Ok(())
    }

    fn write(&self, _page: ObjectPage, _from: &[u8]) -> Result<(), PagerError> {
        Ok(())
    }

    fn discard(&self, _pages: ObjectSpan) -> Result<(), PagerError> {
        Ok(())
    }
}

struct World {
    manager: Manager<Machine>,
    space: AddressSpace<Machine>,
    old: Object<Machine>,
    new: Object<Machine>,
}

impl World {
    /// The old object, full of ones, is shown at pages 0 to 7, with a gap at page 4. The new one is full of twos.
    fn new(budget: u64) -> Self {
        let machine = Machine::new(16, 1000, |_| std::thread::yield_now());
        let settings = Settings { budget: Pages(budget), ..Settings::default() };
        let manager = Manager::new(machine, settings).unwrap();
        let object = |byte| manager.object(Kind::File, Pages(8), Arc::new(Filled(byte))).unwrap();
        let (old, new) = (object(1), object(2));
        let space = manager.space(span(0, 64)).unwrap();
        space.map(&old, at(0, 8)).unwrap();
        space.unmap(span(4, 1)).unwrap();
        Self { manager, space, old, new }
    }

    /// The first byte of a page; `None` if nothing is mapped there.
    fn byte(&self, page: u64) -> Option<u8> {
        let mut byte = [0];
        match self.manager.mmu().cpu().read(&self.manager, &self.space, page * PAGE, &mut byte) {
            Ok(()) => Some(byte[0]),
            Err(FaultError::NotMapped) => None,
            Err(error) => panic!("{error:?} at page {page}"),
        }
    }

    fn bytes(&self) -> Vec<Option<u8>> {
        (0..8).map(|page| self.byte(page)).collect()
    }

    /// What a refused operation must not change.
    fn totals(&self) -> SpaceTotals {
        SpaceTotals { faults: Default::default(), ..self.space.totals() }
    }
}

fn span(first: u64, pages: u64) -> VirtualSpan {
    VirtualSpan::new(VirtualPage::new(first), Pages(pages)).unwrap()
}

fn at(page: u64, pages: u64) -> MapRequest {
    let placement = Placement::Fixed(VirtualPage::new(page));
    MapRequest { placement, ..MapRequest::new(Pages(pages)) }
}

fn over(page: u64, pages: u64) -> MapRequest {
    let placement = Placement::Replace(VirtualPage::new(page));
    MapRequest { placement, ..MapRequest::new(Pages(pages)) }
}

fn locked(request: MapRequest) -> MapRequest {
    MapRequest { residency: Some(Residency::Locked), ..request }
}

const OLD: [Option<u8>; 8] = [Some(1), Some(1), Some(1), Some(1), None, Some(1), Some(1), Some(1)];

#[test]
fn a_replacement_shows_the_new_pages_and_leaves_the_others() {
    let world = World::new(100);
    assert_eq!(world.bytes(), OLD);
    world.space.map(&world.new, over(2, 4)).unwrap();
    let shown = [1, 1, 2, 2, 2, 2, 1, 1].map(Some);
    assert_eq!(world.bytes(), shown);
    assert_eq!((world.totals().mappings, world.totals().mapped), (3, Pages(8)));
    assert_eq!((world.old.spaces(), world.new.spaces()), (1, 1));
    // All that showed the old object goes.
    world.space.map(&world.new, over(0, 8)).unwrap();
    assert_eq!((world.old.spaces(), world.totals().mappings), (0, 1));
    assert_eq!(world.bytes(), [Some(2); 8]);
    world.space.map(&world.new, over(0, 8)).unwrap();
    assert_eq!((world.new.spaces(), world.totals().mapped), (1, Pages(8)));
    assert_eq!(world.manager.mmu().violations(), []);
}

/// The bug: the old mappings were gone when the new one was refused.
#[test]
fn a_replacement_that_fails_at_any_call_of_the_machine_leaves_the_old_mappings() {
    for request in [over(2, 4), locked(over(2, 4)), locked(over(0, 8))] {
        let mut refused = 0;
        // More calls than a replacement makes. If the machine lacks a frame, the manager makes room and goes on.
        for calls in 0..40 {
            let world = World::new(100);
            assert_eq!(world.bytes(), OLD);
            world.space.lock(span(1, 2)).unwrap();
            let (before, resident) = (world.totals(), world.manager.resident());
            world.manager.mmu().fail_in(calls);
            let said = world.space.map(&world.new, request);
            world.manager.mmu().succeed();
            if said.is_ok() {
                let new = request.pages.0;
                assert_eq!(world.bytes().iter().filter(|b| **b == Some(2)).count() as u64, new);
                continue;
            }
            refused += 1;
            if matches!(said, Err(Error::Fault { .. })) && world.new.spaces() == 1 {
                // The replacement is made, and a translation is missing, which an access makes.
                world.manager.mmu().succeed();
                let new = request.pages.0;
                assert_eq!(world.bytes().iter().filter(|b| **b == Some(2)).count() as u64, new);
                continue;
            }
            assert_eq!(world.totals(), before, "{said:?} at call {calls}");
            assert!(world.manager.resident() >= resident, "pages of the old mapping have gone");
            assert_eq!(world.bytes(), OLD, "{said:?} at call {calls}");
            assert_eq!(world.new.spaces(), 0);
            assert_eq!(world.manager.mmu().violations(), []);
            world.space.map(&world.new, request).unwrap();
        }
        assert!(refused >= 1, "no call has failed");
    }
}

/// The bug: the same, for what the manager itself refuses.
#[test]
fn a_replacement_that_the_manager_refuses_leaves_the_old_mappings() {
    let world = World::new(12);
    let refused = |object: &Object<Machine>, request, error| {
        let before = world.totals();
        assert_eq!(world.space.map(object, request), Err(error));
        assert_eq!((world.totals(), world.bytes()), (before, OLD.to_vec()));
    };
    world.space.lock(span(0, 3)).unwrap();
    world.space.set_locked_limit(Pages(4));
    let (limit, asked) = (Pages(4), Pages(5));
    refused(&world.new, locked(over(3, 2)), Error::LockedLimit { limit, asked });
    // What it replaces does not count, so the limit permits this.
    world.space.map(&world.old, locked(over(0, 4))).unwrap();
    world.space.set_locked_limit(Pages(100));
    let large = world.manager.object(Kind::File, Pages(9), Arc::new(Filled(3))).unwrap();
    refused(&large, locked(over(0, 9)), Error::NoMemory);
    refused(&large, over(60, 9), Error::BadSpan);
    large.destroy();
    refused(&large, over(0, 9), Error::Destroyed);
    refused(&large, locked(over(0, 2)), Error::Destroyed);
    assert_eq!(large.totals().filled, 0);
    assert_eq!(world.new.totals().filled, 0, "a page was brought in in vain");
}

/// The bug: the same, where the pages of a locked mapping could not be brought in.
#[test]
fn a_locked_replacement_whose_pager_fails_leaves_the_old_mappings() {
    let world = World::new(100);
    let pager = Arc::new(FailingPager::<_, parking_lot::RawMutex>::new(Filled(3)));
    let broken = world.manager.object(Kind::File, Pages(8), Arc::clone(&pager) as _).unwrap();
    let error = PagerError::Io { code: 5 };
    pager.fail(PagerCall::Read, Which::Nth(3), error).unwrap();
    assert_eq!(world.bytes(), OLD);
    let before = world.totals();
    let said = world.space.map(&broken, locked(over(1, 6)));
    let at = VirtualPage::new(3);
    assert_eq!(said, Err(Error::Fault { at, error: FaultError::Pager(error) }));
    assert_eq!((world.totals(), world.bytes()), (before, OLD.to_vec()));
    assert_eq!((broken.spaces(), broken.totals().resident), (0, Pages(2)));
    // Nothing keeps them any more.
    assert_eq!(world.manager.page_out(Pages(100)), Pages(9));
    world.space.map(&broken, locked(over(1, 6))).unwrap();
    assert_eq!(world.bytes(), [1, 3, 3, 3, 3, 3, 3, 1].map(Some));
    assert_eq!(world.totals().locked, Pages(6));
}

#[test]
fn a_replacement_in_a_super_locked_space_is_in_memory_at_once() {
    let world = World::new(100);
    let privilege = world.space.io_privilege().unwrap();
    world.space.map(&world.new, over(2, 4)).unwrap();
    let cpu = world.manager.mmu().cpu();
    for page in (0..8).map(VirtualPage::new) {
        let (access, context) = (commonhold_mm::Access::Write, commonhold_mm::Context::NoFault);
        cpu.access(&world.manager, &world.space, page, access, context, |_| ()).unwrap();
    }
    drop(privilege);
    assert_eq!(world.manager.page_out(Pages(100)), Pages(11));
}

#[test]
fn a_replacement_takes_protection_and_laziness_from_the_request() {
    let world = World::new(100);
    let lazy = MapRequest { protection: Protection::Read, lazy: true, ..locked(over(0, 8)) };
    world.space.map(&world.new, lazy).unwrap();
    assert_eq!((world.new.totals().resident, world.totals().locked), (Pages(0), Pages(8)));
    let cpu = world.manager.mmu().cpu();
    let said = cpu.write(&world.manager, &world.space, 0, &[9]);
    assert_eq!(said, Err(FaultError::Protection));
    assert_eq!(world.byte(0), Some(2));
    assert_eq!(world.manager.page_out(Pages(100)), Pages(0));
}

/// The bug: an access between the unmapping and the mapping found nothing.
#[test]
fn an_access_during_replacements_finds_the_old_or_the_new_pages() {
    let world = World::new(100);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let cpu = world.manager.mmu().cpu();
            while !done.load(Ordering::Relaxed) {
                let mut byte = [0];
                let said = cpu.read(&world.manager, &world.space, 2 * PAGE, &mut byte);
                assert!(said.is_ok() && (1..=2).contains(&byte[0]), "{said:?} and {byte:?}");
            }
        });
        for round in 0..3000 {
            let object = if round % 2 == 0 { &world.new } else { &world.old };
            world.space.map(object, over(1 + round % 2, 3)).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
    assert_eq!(world.manager.mmu().violations(), []);
}
