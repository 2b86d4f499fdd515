//! Discard of pages of an object, and memory that goes without the memory manager.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, RwLock},
};

use commonhold_mm::{
    Access, AddressSpace, Context, Error, Fault, FaultError, Kind, Manager, MapRequest, MmuError,
    Object, ObjectPage, ObjectSpan, Pager, PagerError, Pages, Placement, Settings, Span, State,
    VirtualPage, VirtualSpan, soft::SoftMmu,
};
use parking_lot::Mutex;

const PAGE: usize = 16;
const PAGES: u64 = 8;
const BROKEN: PagerError = PagerError::Io { code: 5 };

type Machine = SoftMmu<parking_lot::RawMutex, parking_lot::RawRwLock>;
type Meanwhile = Mutex<Option<Box<dyn FnOnce() + Send>>>;

/// Has 100 and the page's number in every byte at first, and keeps what is written.
#[derive(Default)]
struct Store {
    pages: Mutex<BTreeMap<u64, u8>>,
    /// The calls, in order.
    calls: Mutex<Vec<String>>,
    fails: Mutex<bool>,
    /// Notes discards, and keeps no zeros for them.
    forgets: Mutex<bool>,
    /// Reads wait while a test holds this to write.
    gate: RwLock<()>,
    in_write: Meanwhile,
    in_discard: Meanwhile,
}

impl Store {
    fn interrupt(at: &Meanwhile) {
        let meanwhile = at.lock().take();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock())
    }
}

impl Pager for Store {
    fn read(&self, page: ObjectPage, into: &mut [u8]) -> Result<(), PagerError> {
        let number = page.number();
        self.calls.lock().push(format!("read {number}"));
        let byte = self.pages.lock().get(&number).copied().unwrap_or(initial(number));
        into.fill(byte);
        let _open = self.gate.read().unwrap();
        Ok(())
    }

    fn write(&self, page: ObjectPage, from: &[u8]) -> Result<(), PagerError> {
        self.calls.lock().push(format!("write {}", page.number()));
        Self::interrupt(&self.in_write);
        self.pages.lock().extend(from.first().map(|byte| (page.number(), *byte)));
        Ok(())
    }

    fn discard(&self, pages: ObjectSpan) -> Result<(), PagerError> {
        let (first, end) = (pages.first().number(), pages.end().number());
        self.calls.lock().push(format!("discard {first}..{end}"));
        Self::interrupt(&self.in_discard);
        if *self.fails.lock() {
            return Err(BROKEN);
        }
        if *self.forgets.lock() {
            return Ok(());
        }
        let mut kept = self.pages.lock();
        kept.extend((first..end).map(|page| (page, 0)));
        Ok(())
    }
}

fn initial(page: u64) -> u8 {
    100 + u8::try_from(page).unwrap()
}

struct World {
    manager: Manager<Machine>,
    pager: Arc<Store>,
    object: Object<Machine>,
    space: AddressSpace<Machine>,
}

impl World {
    /// A file of 8 pages, mapped at 0 and once more at 20.
    fn new() -> Arc<Self> {
        let mmu = SoftMmu::new(PAGE, 1000, |_| std::thread::yield_now());
        let settings = Settings { budget: Pages(100), ..Settings::default() };
        let manager = Manager::new(mmu, settings).unwrap();
        let pager = Arc::new(Store::default());
        let object = manager.object(Kind::File, Pages(PAGES), Arc::clone(&pager) as _).unwrap();
        let space = manager.space(at(0, 64)).unwrap();
        for first in [0, 20] {
            let placement = Placement::Fixed(VirtualPage::new(first));
            space.map(&object, MapRequest { placement, ..MapRequest::new(Pages(PAGES)) }).unwrap();
        }
        Arc::new(Self { manager, pager, object, space })
    }

    fn write(&self, page: u64, value: u8) -> Result<(), FaultError> {
        let cpu = self.manager.mmu().cpu();
        cpu.write(&self.manager, &self.space, page * PAGE as u64, &[value])
    }

    fn read(&self, page: u64) -> Result<u8, FaultError> {
        let (cpu, mut byte) = (self.manager.mmu().cpu(), [0]);
        cpu.read(&self.manager, &self.space, page * PAGE as u64, &mut byte)?;
        Ok(byte[0])
    }

    fn state(&self, page: u64) -> State {
        self.object.state(ObjectPage::new(page)).unwrap()
    }

    /// What a program does that punches a hole: translations and memory go.
    fn steal(&self, page: u64) {
        self.manager.mmu().steal(self.object.machine(), ObjectPage::new(page));
    }

    /// The pages in memory, by the budget and by the machine.
    fn resident(&self) -> (u64, i64) {
        (self.manager.resident().0, 1000 - self.manager.mmu().frames_left())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.manager.mmu().violations(), []);
            assert_eq!(self.object.totals().resident, self.manager.resident());
        }
    }
}

fn at(first: u64, pages: u64) -> VirtualSpan {
    Span::new(VirtualPage::new(first), Pages(pages)).unwrap()
}

fn of_object(first: u64, pages: u64) -> ObjectSpan {
    Span::new(ObjectPage::new(first), Pages(pages)).unwrap()
}

#[test]
fn discarded_pages_are_zeros_and_nothing_is_written_back() {
    let world = World::new();
    world.write(1, 1).unwrap();
    world.write(2, 2).unwrap();
    world.write(3, 3).unwrap();
    assert_eq!((world.read(24), world.read(5)), (Ok(104), Ok(105)));
    assert_eq!(world.manager.page_out(Pages(1)), Pages(1));
    world.pager.calls();
    assert_eq!(world.resident(), (4, 4));
    // Pages 2 to 4 in memory, 6 and 7 never touched.
    assert_eq!(world.object.discard(of_object(2, 3)), Ok(Pages(3)));
    assert_eq!(world.object.discard(of_object(6, 50)), Ok(Pages(0)));
    assert_eq!(world.pager.calls(), ["discard 2..5", "discard 6..8"]);
    assert_eq!(world.resident(), (1, 1));
    let read: Vec<_> = (0..PAGES).map(|page| world.read(20 + page).unwrap()).collect();
    assert_eq!(read, [100, 1, 0, 0, 0, 105, 0, 0]);
    world.write(3, 33).unwrap();
    assert_eq!(world.read(23), Ok(33));
}

#[test]
fn a_pager_that_cannot_discard_loses_nothing() {
    let world = World::new();
    world.write(1, 1).unwrap();
    assert_eq!(world.read(2), Ok(102));
    *world.pager.fails.lock() = true;
    let error = Error::Pager { page: ObjectPage::new(1), error: BROKEN };
    assert_eq!(world.object.discard(of_object(1, 4)), Err(error));
    // The pager may have dropped page 2 nevertheless.
    assert_eq!(
        [world.state(1), world.state(2), world.state(3)],
        [State::Dirty, State::Dirty, State::Absent]
    );
    assert_eq!([1, 2, 3].map(|page| world.read(page).unwrap()), [1, 102, 103]);
    *world.pager.fails.lock() = false;
    assert_eq!(world.object.discard(of_object(1, 4)), Ok(Pages(3)));
    assert_eq!([1, 2, 3].map(|page| world.read(page).unwrap()), [0, 0, 0]);
}

#[test]
fn pages_that_must_stay_in_memory_are_refused() {
    let world = World::new();
    world.write(1, 1).unwrap();
    world.space.lock(at(23, 1)).unwrap();
    world.pager.calls();
    let locked = Err(Error::Locked { page: ObjectPage::new(3) });
    assert_eq!(world.object.discard(of_object(1, 4)), locked);
    assert_eq!((world.read(1), world.pager.calls()), (Ok(1), vec![]));
    world.space.unlock_all();
    let privilege = world.space.io_privilege().unwrap();
    assert_eq!(world.object.discard(of_object(3, 1)), locked);
    drop(privilege);
    assert_eq!(world.object.discard(of_object(3, 1)), Ok(Pages(1)));
}

#[test]
fn a_page_that_is_on_its_way_is_waited_for() {
    let world = World::new();
    let closed = world.pager.gate.write().unwrap();
    std::thread::scope(|scope| {
        // It reads the page, and waits with the old contents.
        let filling = scope.spawn(|| world.read(3));
        while world.pager.calls.lock().is_empty() {
            std::thread::yield_now();
        }
        let discarding = scope.spawn(|| world.object.discard(of_object(2, 3)));
        // The pager is asked for what lies before it.
        while world.pager.calls.lock().len() < 2 {
            std::thread::yield_now();
        }
        drop(closed);
        assert!(matches!(filling.join().unwrap(), Ok(0 | 103)));
        discarding.join().unwrap().unwrap();
    });
    assert_eq!(world.read(3), Ok(0));
    let calls = world.pager.calls();
    assert_eq!(calls[..3], ["read 3", "discard 2..3", "discard 3..5"]);
}

#[test]
fn a_fault_during_a_discard_waits_for_it_and_finds_zeros() {
    let world = World::new();
    world.write(1, 1).unwrap();
    let other = Arc::clone(&world);
    *world.pager.in_discard.lock() = Some(Box::new(move || {
        // What is in memory can be used.
        assert_eq!(other.read(1), Ok(1));
        other.pager.calls();
        for page in [2, 3] {
            let fault = other.space.fault(VirtualPage::new(page), Access::Read, Context::Normal);
            assert_eq!(fault, Fault::Pulsed);
        }
        while other.manager.serve() {}
        // Page 3 is not discarded.
        assert_eq!((other.manager.pulses(), other.pager.calls()), (1, vec!["read 3".to_owned()]));
    }));
    assert_eq!(world.object.discard(of_object(1, 2)), Ok(Pages(1)));
    while world.manager.serve() {}
    assert_eq!((world.manager.pulses(), world.manager.mmu().wakes() > 0), (0, true));
    assert_eq!([1, 2, 3].map(|page| world.read(page).unwrap()), [0, 0, 103]);
}

#[test]
fn a_page_that_is_locked_during_a_discard_keeps_its_contents() {
    let world = World::new();
    for page in 1..5 {
        world.write(page, 1).unwrap();
    }
    let other = Arc::clone(&world);
    *world.pager.in_discard.lock() = Some(Box::new(move || other.space.lock(at(22, 2)).unwrap()));
    let locked = Err(Error::Locked { page: ObjectPage::new(2) });
    assert_eq!(world.object.discard(of_object(1, 4)), locked);
    assert_eq!([1, 2, 3, 4].map(|page| world.read(page).unwrap()), [0, 1, 1, 0]);
    assert_eq!(world.state(2), State::Dirty);
}

#[test]
fn a_pager_that_panics_in_a_discard_stops_nothing() {
    let world = World::new();
    world.write(1, 1).unwrap();
    *world.pager.in_discard.lock() = Some(Box::new(|| panic!("this pager panics for a test")));
    let panicked = catch_unwind(AssertUnwindSafe(|| world.object.discard(of_object(1, 2))));
    panicked.unwrap_err();
    assert_eq!((world.read(1), world.read(2)), (Ok(1), Ok(102)));
    assert_eq!(world.object.discard(of_object(1, 2)), Ok(Pages(2)));
    world.object.resize(Pages(4)).unwrap();
}

/// Each access to such a page failed for ever, since the page was believed to be in memory.
#[test]
fn a_clean_page_whose_memory_has_gone_is_brought_in_again() {
    let world = World::new();
    world.object.discard(of_object(5, 1)).unwrap();
    assert_eq!((world.read(1), world.read(5)), (Ok(101), Ok(0)));
    assert_eq!(world.resident(), (2, 2));
    world.steal(1);
    world.steal(5);
    assert_eq!((world.read(1), world.read(25)), (Ok(101), Ok(0)));
    assert_eq!(world.resident(), (2, 2));
    world.steal(1);
    world.write(21, 7).unwrap();
    assert_eq!((world.read(1), world.state(1)), (Ok(7), State::Dirty));
    world.steal(5);
    // A lock looks as well.
    world.space.lock(at(5, 1)).unwrap();
    assert_eq!(world.resident(), (2, 2));
    assert_eq!(world.object.totals().lost, Pages(0));
}

#[test]
fn a_page_that_goes_again_and_again_is_an_error_and_not_tried_without_end() {
    let world = World::new();
    let mmu = world.manager.mmu();
    mmu.steal_fills(16);
    assert_eq!((world.read(1), world.pager.calls().len()), (Ok(101), 17));
    mmu.steal_fills(u64::MAX);
    assert_eq!(world.read(2), Err(FaultError::Machine(MmuError::Gone)));
    assert_eq!(world.pager.calls().len(), 17);
    mmu.steal_fills(0);
    assert_eq!((world.read(2), world.resident()), (Ok(102), (2, 2)));
    assert_eq!(world.object.totals().lost, Pages(0));
}

/// Zeros were written to the pager as the page's contents, or each access failed for ever.
#[test]
fn a_dirty_page_whose_memory_has_gone_is_lost_until_it_is_discarded() {
    let world = World::new();
    for page in 1..5 {
        world.write(page, 1).unwrap();
        world.steal(page);
    }
    world.write(6, 6).unwrap();
    world.pager.calls();
    // Found by an access, by a write-back, and by an eviction.
    for _ in 0..2 {
        assert_eq!(world.read(1), Err(FaultError::Lost));
        assert_eq!(world.write(21, 1), Err(FaultError::Lost));
    }
    let lost = |page| Err(Error::Lost { page: ObjectPage::new(page) });
    assert_eq!(world.object.sync(of_object(2, 1)), lost(2));
    assert_eq!(world.manager.page_out(Pages(3)), Pages(3));
    assert_eq!(world.pager.calls(), ["write 6"]);
    assert_eq!(world.resident(), (0, 0));
    assert_eq!(world.object.totals().lost, Pages(4));
    // What is not lost is written, and the error is told each time.
    world.write(7, 7).unwrap();
    for _ in 0..2 {
        assert_eq!(world.object.sync(of_object(0, PAGES)), lost(1));
        assert_eq!(world.space.sync(at(20, 8)), lost(1));
    }
    assert_eq!(world.pager.calls(), ["read 7", "write 7"]);
    let error = FaultError::Lost;
    assert_eq!(world.space.lock(at(1, 1)), Err(Error::Fault { at: VirtualPage::new(1), error }));

    world.object.discard(of_object(1, 1)).unwrap();
    assert_eq!((world.read(1), world.object.totals().lost), (Ok(0), Pages(3)));
    world.object.resize(Pages(2)).unwrap();
    world.object.resize(Pages(PAGES)).unwrap();
    assert_eq!((world.read(2), world.object.totals().lost), (Ok(0), Pages(0)));
    assert_eq!(world.object.sync(of_object(0, PAGES)), Ok(Pages(0)));
}

#[test]
fn a_page_that_goes_while_the_pager_writes_it_is_read_from_the_pager() {
    let world = World::new();
    world.write(1, 1).unwrap();
    let other = Arc::clone(&world);
    *world.pager.in_write.lock() = Some(Box::new(move || {
        other.steal(1);
        // No thread may read it from the pager now, and it is not lost.
        let fault = other.space.fault(VirtualPage::new(1), Access::Write, Context::Normal);
        assert_eq!(fault, Fault::Pulsed);
        // A worker that looks leaves it to one that may wait for the pager.
        other.manager.mmu().late_in(0);
        let fault = other.space.fault(VirtualPage::new(21), Access::Read, Context::Normal);
        assert_eq!((fault, other.manager.serve_memory()), (Fault::Pulsed, true));
        assert_eq!((other.manager.pulses(), other.manager.serve_memory()), (2, false));
        assert_eq!(other.state(1), State::Clean);
    }));
    assert_eq!(world.object.sync(of_object(0, PAGES)), Ok(Pages(1)));
    while world.manager.serve() {}
    assert_eq!((world.read(1), world.object.totals().lost), (Ok(1), Pages(0)));
    assert_eq!(world.resident(), (1, 1));
}

#[test]
fn changes_of_a_file_that_are_lost_are_told_when_the_object_is_dropped() {
    let world = World::new();
    let manager = world.manager.clone();
    for page in [1, 2] {
        world.write(page, 1).unwrap();
        world.steal(page);
    }
    assert_eq!(world.read(1), Err(FaultError::Lost));
    assert_eq!(manager.take_error(), None);
    let calls = Arc::clone(&world.pager);
    calls.calls();
    drop(world);
    assert_eq!(manager.take_error(), Some(Error::Lost { page: ObjectPage::new(1) }));
    assert_eq!((calls.calls(), manager.resident()), (vec![], Pages(0)));
    assert_eq!(MmuError::Gone.to_string(), "the page's memory was taken away from outside");
}

#[test]
fn the_object_is_given_up_between_runs_of_64_pages_in_memory() {
    let mmu = SoftMmu::new(PAGE, 1000, |_| std::thread::yield_now());
    let manager: Manager<Machine> = Manager::new(mmu, Settings::default()).unwrap();
    let pager = Arc::new(Store::default());
    let zeros = manager.object(Kind::Anonymous, Pages(1 << 40), Arc::clone(&pager) as _).unwrap();
    let space = manager.space(at(0, 200)).unwrap();
    let placement = Placement::Fixed(VirtualPage::new(0));
    space.map(&zeros, MapRequest { placement, ..MapRequest::new(Pages(150)) }).unwrap();
    assert_eq!(space.advise(at(0, 150), commonhold_mm::Advice::WillNeed), Ok(Pages(150)));
    // A pager that fails is asked for one run only.
    *pager.fails.lock() = true;
    let error = Error::Pager { page: ObjectPage::new(0), error: BROKEN };
    assert_eq!(zeros.discard(of_object(0, 1 << 40)), Err(error));
    assert_eq!((pager.calls(), manager.resident()), (vec!["discard 0..64".to_owned()], Pages(150)));
    *pager.fails.lock() = false;
    *pager.forgets.lock() = true;
    assert_eq!(zeros.discard(of_object(0, 1 << 40)), Ok(Pages(150)));
    let end = 1_u64 << 40;
    assert_eq!(
        pager.calls(),
        ["discard 0..64".to_owned(), "discard 64..128".to_owned(), format!("discard 128..{end}")]
    );
    assert_eq!((manager.resident(), manager.mmu().violations()), (Pages(0), vec![]));
}
