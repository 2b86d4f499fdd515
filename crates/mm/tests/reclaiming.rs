//! What one search for a page that can go costs.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::sync::Arc;

use commonhold_mm::{
    Access, AddressSpace, BytesPager, Context, FailingPager, Fault, Kind, Manager, MapRequest,
    Object, ObjectPage, ObjectSpan, PagerCall, PagerError, Pages, Placement, Settings, State,
    VirtualPage, VirtualSpan, Which, soft::SoftMmu,
};

type Machine = SoftMmu<parking_lot::RawMutex, parking_lot::RawRwLock>;
type Store = FailingPager<BytesPager<parking_lot::RawMutex>, parking_lot::RawMutex>;

const PAGE: usize = 16;
const PAGES: u64 = 50;
/// Of one object.
const CONTENTS: [u8; PAGE * 50] = [0; PAGE * 50];

/// Objects whose pages are all in memory and dirty, and use up the budget; and one without a page in memory.
struct Full {
    manager: Manager<Machine>,
    space: AddressSpace<Machine>,
    pagers: Vec<Arc<Store>>,
    objects: Vec<Object<Machine>>,
}

impl Full {
    fn new(objects: u64) -> Self {
        let settings = Settings { budget: Pages(objects * PAGES), ..Settings::default() };
        let manager =
            Manager::new(SoftMmu::new(PAGE, 10_000, |_| std::thread::yield_now()), settings)
                .unwrap();
        let space = manager.space(span(0, (objects + 1) * PAGES)).unwrap();
        let pagers: Vec<_> = (0..=objects).map(|_| store()).collect();
        let objects = (0..).zip(&pagers).map(|(number, pager)| {
            let pager = Arc::clone(pager) as _;
            let object = manager.object(Kind::Anonymous, Pages(PAGES), pager).unwrap();
            let placement = Placement::Fixed(VirtualPage::new(number * PAGES));
            let request = MapRequest { placement, ..MapRequest::new(Pages(PAGES)) };
            space.map(&object, request).unwrap();
            object
        });
        let objects: Vec<_> = objects.collect();
        let full = Self { manager, space, pagers, objects };
        let cpu = full.manager.mmu().cpu();
        for page in 0..full.first_unused() {
            cpu.write(&full.manager, &full.space, page * PAGE as u64, &[1]).unwrap();
        }
        full
    }

    fn first_unused(&self) -> u64 {
        (self.objects.len() as u64 - 1) * PAGES
    }

    fn break_all(&self, error: PagerError) {
        for pager in &self.pagers {
            pager.fail(PagerCall::Write, Which::All, error).unwrap();
        }
    }

    /// One fault on a page that is not in memory: it is posted, and served.
    fn fault(&self) {
        let at = VirtualPage::new(self.first_unused());
        assert_eq!(self.space.fault(at, Access::Read, Context::Normal), Fault::Pulsed);
        assert!(self.manager.serve());
    }

    fn is_served(&self) -> bool {
        let at = VirtualPage::new(self.first_unused());
        self.space.query(at).unwrap().state == Some(State::Clean)
    }

    fn writes(&self) -> Vec<u64> {
        let writes = self.pagers.iter().map(|pager| pager.calls(PagerCall::Write));
        writes.take(self.objects.len() - 1).collect()
    }
}

fn store() -> Arc<Store> {
    Arc::new(Store::new(BytesPager::new(&CONTENTS, PAGE).unwrap()))
}

fn span(first: u64, pages: u64) -> VirtualSpan {
    VirtualSpan::new(VirtualPage::new(first), Pages(pages)).unwrap()
}

/// A fault searched its budget twice, and then all budgets twice, and each search wrote each dirty page again. On a
/// full medium, one fault made four writes for every dirty page, and all of them failed.
#[test]
fn a_fault_writes_to_a_full_medium_twice_for_each_object() {
    let full = Full::new(3);
    full.break_all(PagerError::Full);
    full.fault();
    assert!(!full.is_served());
    assert_eq!(full.writes(), [2; 3]);
}

/// As above, for a device that fails. A page of a sound device may fail, too, so a few are tried.
#[test]
fn a_fault_writes_to_a_broken_device_a_few_times_for_each_object() {
    let full = Full::new(3);
    full.break_all(PagerError::Io { code: 5 });
    full.fault();
    assert!(!full.is_served());
    assert_eq!(full.writes(), [4; 3]);
}

#[test]
fn the_next_fault_asks_a_medium_that_was_full_again() {
    let full = Full::new(3);
    full.break_all(PagerError::Full);
    full.fault();
    full.fault();
    assert_eq!(full.writes(), [4; 3]);
    for pager in &full.pagers {
        pager.heal();
    }
    full.fault();
    assert!(full.is_served());
    assert_eq!(full.writes().iter().sum::<u64>(), 13);
}

#[test]
fn a_full_medium_does_not_keep_the_pages_of_other_objects_in_memory() {
    let full = Full::new(2);
    full.pagers[0].fail(PagerCall::Write, Which::All, PagerError::Full).unwrap();
    full.fault();
    assert!(full.is_served());
    assert_eq!(full.writes(), [2, 1]);
}

#[test]
fn three_bad_pages_of_a_device_do_not_fail_a_fault() {
    let full = Full::new(1);
    let bad = ObjectSpan::new(ObjectPage::new(0), Pages(3)).unwrap();
    full.pagers[0].fail(PagerCall::Write, Which::Pages(bad), PagerError::Io { code: 5 }).unwrap();
    full.fault();
    assert!(full.is_served());
    assert_eq!(full.pagers[0].failures(PagerCall::Write), 3);
}
