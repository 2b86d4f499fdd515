//! What an object costs depends on the pages that were touched, not on its size. Memory is counted by the allocator,
//! and steps by the mutex.
//!
//! Both counts are of the whole process, so the tests take turns.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::{
    alloc::System,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use cap::Cap;
use commonhold_mm::{
    AddressSpace, Advice, Kind, Manager, MapRequest, Object, ObjectPage, ObjectSpan, Pager,
    PagerError, Pages, Placement, Settings, State, VirtualPage, VirtualSpan, soft::SoftMmu,
};
use lock_api::RawMutex;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often a mutex of the manager was taken.
static TAKEN: AtomicU64 = AtomicU64::new(0);

struct Counting(parking_lot::RawMutex);

// SAFETY: it is the mutex inside, and counts besides.
#[expect(unsafe_code, reason = "a raw mutex is an unsafe trait")]
unsafe impl RawMutex for Counting {
    type GuardMarker = <parking_lot::RawMutex as RawMutex>::GuardMarker;

    const INIT: Self = Self(parking_lot::RawMutex::INIT);

    fn lock(&self) {
        TAKEN.fetch_add(1, Ordering::Relaxed);
        self.0.lock();
    }

    fn try_lock(&self) -> bool {
        TAKEN.fetch_add(1, Ordering::Relaxed);
        self.0.try_lock()
    }

    unsafe fn unlock(&self) {
        // SAFETY: the caller holds it.
        unsafe { self.0.unlock() };
    }
}

type Machine = SoftMmu<Counting, parking_lot::RawRwLock>;

const PAGE: usize = 16;
/// 64 TiB in pages of 4 KiB.
const HUGE: u64 = 1 << 34;

struct Zeros;

impl Pager for Zeros {
    fn read(&self, _page: ObjectPage, into: &mut [u8]) -> Result<(), PagerError> {
        into.fill(0);
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
    object: Object<Machine>,
}

impl World {
    /// An object of this many pages, mapped lazily as a whole.
    fn new(pages: u64) -> Self {
        let settings = Settings { budget: Pages(1 << 20), ..Settings::default() };
        let manager =
            Manager::new(SoftMmu::new(PAGE, 1 << 17, |_| std::thread::yield_now()), settings)
                .unwrap();
        let space = manager.space(span(pages)).unwrap();
        let object = manager.object(Kind::Anonymous, Pages(pages), Arc::new(Zeros)).unwrap();
        let placement = Placement::Fixed(VirtualPage::new(0));
        let request = MapRequest { placement, lazy: true, ..MapRequest::new(Pages(pages)) };
        space.map(&object, request).unwrap();
        Self { manager, space, object }
    }

    fn touch(&self, page: u64) {
        let cpu = self.manager.mmu().cpu();
        let address = page * PAGE as u64;
        assert_eq!(cpu.write(&self.manager, &self.space, address, &[1]), Ok(()));
    }
}

fn span(pages: u64) -> VirtualSpan {
    VirtualSpan::new(VirtualPage::new(0), Pages(pages)).unwrap()
}

fn taken_by(work: impl FnOnce()) -> u64 {
    let before = TAKEN.load(Ordering::Relaxed);
    work();
    TAKEN.load(Ordering::Relaxed) - before
}

/// The memory that the first touch of a page takes.
fn memory_of_touch(pages: u64, page: u64) -> usize {
    let world = World::new(pages);
    let before = MEMORY.allocated();
    world.touch(page);
    MEMORY.allocated() - before
}

/// The table of pages was an array of the leaves: 192 MiB for the last page of 4 TiB.
#[test]
fn the_first_touch_of_a_page_costs_no_more_in_a_huge_object() {
    let _turn = turn();
    let small = memory_of_touch(1000, 999);
    for page in [0, HUGE / 3, HUGE / 256 - 1, HUGE - 1] {
        let huge = memory_of_touch(HUGE, page);
        assert!(huge <= 3 * small, "{huge} bytes, and {small} in a small object");
    }
}

/// A leaf was never freed before the object was.
#[test]
fn a_cut_frees_the_table_behind_the_end() {
    let _turn = turn();
    let world = World::new(1 << 20);
    world.touch(0);
    world.object.resize(Pages(1)).unwrap();
    world.object.resize(Pages(1 << 20)).unwrap();
    let before = MEMORY.allocated();
    for page in 1..=200 {
        world.touch(page * 4096);
    }
    let touched = MEMORY.allocated() - before;
    world.object.resize(Pages(1)).unwrap();
    let left = MEMORY.allocated().saturating_sub(before);
    // What is left are queues and tables that do not shrink.
    assert!(left < touched / 3, "{left} bytes are left of {touched}");
    assert_eq!(world.object.totals().resident, Pages(1));
    world.object.resize(Pages(1 << 20)).unwrap();
    world.touch(4096);
    assert_eq!(world.object.totals().resident, Pages(2));
}

/// The mutexes that a fault takes for which another page has to go. Each budget has `each` pages in memory.
fn taken_by_a_fault_that_evicts(budgets: u64, each: u64) -> u64 {
    const FAULTS: u64 = 50;
    let settings = Settings { budget: Pages(budgets * each), ..Settings::default() };
    let machine = SoftMmu::new(PAGE, 1 << 17, |_| std::thread::yield_now());
    let manager: Manager<Machine> = Manager::new(machine, settings).unwrap();
    let space = manager.space(span(1 << 20)).unwrap();
    let map = |object: &Object<Machine>, at, pages| {
        let placement = Placement::Fixed(VirtualPage::new(at));
        space.map(object, MapRequest { placement, ..MapRequest::new(Pages(pages)) }).unwrap();
    };
    let cpu = manager.mmu().cpu();
    let read = |page| {
        assert_eq!(cpu.read(&manager, &space, page * PAGE as u64, &mut [0]), Ok(()));
    };
    let mut kept = Vec::new();
    for number in 0..budgets {
        let budget = manager.budget(Pages(u64::MAX)).unwrap();
        let zeros = Arc::new(Zeros);
        let object = manager.object_within(&budget, Kind::Anonymous, Pages(each), zeros).unwrap();
        map(&object, number * each, each);
        kept.push(budget);
    }
    let object = manager.object(Kind::Anonymous, Pages(2 * FAULTS), Arc::new(Zeros)).unwrap();
    let first = budgets * each;
    map(&object, first, 2 * FAULTS);
    // The first evictions put many pages on trial, with few budgets more than with many.
    (0..first + FAULTS).for_each(read);
    taken_by(|| (first + FAULTS..first + 2 * FAULTS).for_each(read)) / FAULTS
}

/// Every budget was asked for its number of pages: 5.5 us with one, 234 us with 5,000.
#[test]
fn a_fault_that_evicts_looks_at_few_budgets() {
    let _turn = turn();
    let (one, many) =
        (taken_by_a_fault_that_evicts(1, 4_000), taken_by_a_fault_that_evicts(1_000, 4));
    assert!(many <= 3 * one, "{many} mutexes with 1,000 budgets, {one} with one");
}

/// It brought every page in, to find for each that it was never touched.
#[test]
fn a_lock_passes_over_the_untouched_pages_of_a_lazy_mapping() {
    let _turn = turn();
    let pages = 1 << 18;
    let world = World::new(pages);
    let touched = [5, 130, 70_000, pages - 1];
    for page in touched {
        world.touch(page);
    }
    world.space.advise(span(pages), Advice::DontNeed).unwrap();
    assert_eq!(world.object.totals().resident, Pages(0));
    let taken = taken_by(|| world.space.lock(span(pages)).unwrap());
    for page in touched {
        assert_ne!(world.object.state(ObjectPage::new(page)), Some(State::Absent));
    }
    assert_eq!(world.object.totals().resident, Pages(4));
    assert!(taken < 200, "a mutex was taken {taken} times for 4 pages");
}

/// It tried to evict every page.
#[test]
fn advice_passes_over_pages_that_are_not_in_memory() {
    let _turn = turn();
    let pages = 1 << 18;
    let world = World::new(pages);
    world.touch(5);
    world.touch(pages - 1);
    let taken = taken_by(|| {
        assert_eq!(world.space.advise(span(pages), Advice::DontNeed).unwrap(), Pages(2));
    });
    assert!(taken < 100, "a mutex was taken {taken} times for 2 pages");
}

/// They held the object's lock for the whole count.
#[test]
fn totals_give_the_lock_of_the_object_up() {
    let _turn = turn();
    let leaves = 500;
    let world = World::new(1 << 20);
    for leaf in 0..leaves {
        world.touch(leaf * 128);
    }
    let taken = taken_by(|| assert_eq!(world.object.totals().resident, Pages(leaves)));
    assert!(taken > 5, "it was taken {taken} times for {leaves} leaves");
    let taken = taken_by(|| assert_eq!(world.space.totals().resident, Pages(leaves)));
    assert!(taken > 5, "it was taken {taken} times for {leaves} leaves");
}

/// `totals` of a space looked at every mapped page, and would not end here for minutes.
#[test]
fn totals_of_a_space_pass_over_untouched_pages() {
    let _turn = turn();
    let world = World::new(HUGE);
    world.touch(7);
    world.touch(HUGE - 1);
    let totals = world.space.totals();
    assert_eq!((totals.mapped, totals.resident, totals.dirty), (Pages(HUGE), Pages(2), Pages(2)));
}

#[test]
fn a_page_tells_the_number_of_its_object() {
    let _turn = turn();
    let world = World::new(10);
    let other = world.manager.object(Kind::Anonymous, Pages(1), Arc::new(Zeros)).unwrap();
    let info = world.space.query(VirtualPage::new(3)).unwrap();
    assert_eq!(info.object, world.object.number());
    assert_ne!(info.object, other.number());
}
