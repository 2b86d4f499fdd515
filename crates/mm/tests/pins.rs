//! Pins: memory that I/O uses without translations stays, and counts as changed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::sync::Arc;

use commonhold_mm::{
    Access, AddressSpace, Advice, BytesPager, Context, Error, Fault, FaultError, Kind, Manager,
    MapRequest, Mmu, Object, ObjectPage, ObjectSpan, Pager, Pages, Placement, Protection, Settings,
    Span, State, VirtualPage, VirtualSpan,
    soft::{SoftMmu, SoftSpace},
};
use parking_lot::RawMutex;

const PAGE: usize = 16;
const PAGES: u64 = 8;

type Machine = SoftMmu<RawMutex, parking_lot::RawRwLock>;

struct World {
    manager: Manager<Machine>,
    object: Object<Machine>,
    space: AddressSpace<Machine>,
    file: Arc<dyn Pager>,
}

impl World {
    /// A file of 8 pages, mapped at 0 and once more at 20.
    fn new() -> Self {
        let mmu = SoftMmu::new(PAGE, 1000, |_| std::thread::yield_now());
        let settings = Settings { budget: Pages(PAGES), ..Settings::default() };
        let manager = Manager::new(mmu, settings).unwrap();
        let file: Arc<dyn Pager> =
            Arc::new(BytesPager::<RawMutex>::new(&[0; 8 * PAGE], PAGE).unwrap());
        let object = manager.object(Kind::File, Pages(PAGES), Arc::clone(&file)).unwrap();
        let space = manager.space(at(0, 64)).unwrap();
        for first in [0, 20] {
            let placement = Placement::Fixed(VirtualPage::new(first));
            space.map(&object, MapRequest { placement, ..MapRequest::new(Pages(PAGES)) }).unwrap();
        }
        Self { manager, object, space, file }
    }

    fn states(&self) -> Vec<State> {
        (0..PAGES).map(|page| self.object.state(ObjectPage::new(page)).unwrap()).collect()
    }

    fn read(&self, page: u64) -> u8 {
        let (cpu, mut byte) = (self.manager.mmu().cpu(), [0]);
        cpu.read(&self.manager, &self.space, page * PAGE as u64, &mut byte).unwrap();
        byte[0]
    }

    /// What a device does: it writes through what it learned before, and no page faults.
    fn device(&self) -> Device<'_> {
        Device {
            mmu: self.manager.mmu(),
            space: self.space.machine(),
            cpu: self.manager.mmu().cpu(),
        }
    }
}

/// Remembers the memory of a page when it begins, as direct I/O does.
struct Device<'a> {
    mmu: &'a Machine,
    space: &'a SoftSpace<RawMutex>,
    cpu: commonhold_mm::soft::Cpu<RawMutex>,
}

impl Device<'_> {
    fn write(&self, page: u64, value: u8) -> bool {
        let at = VirtualPage::new(page);
        self.cpu.try_access(self.mmu, self.space, at, Access::Write, &mut |bytes| bytes.fill(value))
    }
}

fn at(first: u64, pages: u64) -> VirtualSpan {
    Span::new(VirtualPage::new(first), Pages(pages)).unwrap()
}

fn of_object(first: u64, pages: u64) -> ObjectSpan {
    Span::new(ObjectPage::new(first), Pages(pages)).unwrap()
}

#[test]
fn pinned_pages_stay_until_the_last_pin_has_ended() {
    let world = World::new();
    let first = world.space.pin(at(1, 3), Access::Write).unwrap();
    let second = world.space.pin(at(22, 3), Access::Read).unwrap();
    assert_eq!(world.space.totals().pinned, Pages(6));
    assert_eq!(world.manager.page_out(Pages(PAGES)), Pages(0));
    // Neither advice nor an unlock or an unmapping ends a pin.
    assert_eq!(world.space.advise(at(0, 8), Advice::DontNeed), Ok(Pages(0)));
    world.space.lock(at(1, 3)).unwrap();
    world.space.unlock_all();
    world.space.unmap(at(20, 8)).unwrap();
    assert_eq!(world.manager.page_out(Pages(PAGES)), Pages(0));
    let locked = Err(Error::Locked { page: ObjectPage::new(1) });
    assert_eq!(world.object.discard(of_object(0, PAGES)), locked);
    drop(first);
    // Page 1.
    assert_eq!(world.manager.page_out(Pages(PAGES)), Pages(1));
    drop(second);
    assert_eq!(world.space.totals().pinned, Pages(0));
    assert_eq!(world.manager.page_out(Pages(PAGES)), Pages(3));
    // What was locked before stays locked.
    world.space.lock(at(5, 1)).unwrap();
    drop(world.space.pin(at(4, 3), Access::Write).unwrap());
    assert_eq!(world.manager.page_out(Pages(PAGES)), Pages(2));
}

/// What a device wrote after a write-back was lost at the next eviction: the page was clean.
#[test]
fn a_page_that_is_pinned_for_writing_stays_dirty_when_it_is_written_back() {
    let world = World::new();
    let pinned = world.space.pin(at(2, 2), Access::Write).unwrap();
    let reading = world.space.pin(at(5, 1), Access::Read).unwrap();
    assert_eq!(world.states()[2..6], [State::Dirty, State::Dirty, State::Absent, State::Clean]);
    let device = world.device();
    assert!(device.write(2, 1));
    assert_eq!(world.object.sync(of_object(0, PAGES)), Ok(Pages(2)));
    let mut bytes = [0; PAGE];
    world.file.read(ObjectPage::new(2), &mut bytes).unwrap();
    assert_eq!((bytes[0], world.states()[2]), (1, State::Dirty));
    drop(pinned);
    assert_eq!(world.states()[2], State::Dirty);
    assert_eq!(world.object.sync(of_object(0, PAGES)), Ok(Pages(2)));
    assert_eq!(world.states()[2], State::Clean);
    drop(reading);
    assert_eq!(world.read(2), 1);
}

#[test]
fn a_pin_that_cannot_hold_pins_nothing() {
    let world = World::new();
    let zeros = world.manager.object(Kind::Anonymous, Pages(20), Arc::clone(&world.file)).unwrap();
    let placement = Placement::Fixed(VirtualPage::new(40));
    world.space.map(&zeros, MapRequest { placement, ..MapRequest::new(Pages(20)) }).unwrap();
    assert_eq!(world.read(1), 0);
    // More than the budget, a gap, past the end, no right, and over the limit.
    let pin = |span, access| world.space.pin(span, access).map(drop);
    assert_eq!(pin(at(40, 9), Access::Read), Err(Error::NoMemory));
    assert_eq!(world.manager.resident(), Pages(1));
    assert_eq!(pin(at(6, 4), Access::Read), Err(Error::NotMapped { at: VirtualPage::new(8) }));
    world.object.resize(Pages(6)).unwrap();
    let error = FaultError::PastEnd;
    assert_eq!(pin(at(4, 4), Access::Read), Err(Error::Fault { at: VirtualPage::new(6), error }));
    world.space.protect(at(2, 1), Protection::Read).unwrap();
    let error = FaultError::Protection;
    let refused = Err(Error::Fault { at: VirtualPage::new(2), error });
    assert_eq!(pin(at(0, 4), Access::Write), refused);
    assert_eq!(pin(at(0, 4), Access::Read), Ok(()));
    world.space.set_locked_limit(Pages(3));
    let held = world.space.pin(at(0, 2), Access::Write).unwrap();
    let over = |asked| Err(Error::LockedLimit { limit: Pages(3), asked: Pages(asked) });
    assert_eq!(pin(at(0, 2), Access::Write), over(4));
    assert_eq!(world.space.lock(at(3, 2)), over(4));
    drop(held);
    assert_eq!(world.space.lock(at(3, 2)), Ok(()));
    assert_eq!(world.space.totals().pinned, Pages(0));
    world.space.unlock_all();
    let resident = world.manager.resident();
    assert_eq!(world.manager.page_out(Pages(PAGES)), resident);
}

#[test]
fn a_pin_during_an_eviction_keeps_the_page() {
    // A pager whose write pins the page that is being evicted.
    struct Pinning {
        bytes: BytesPager<RawMutex>,
        act: parking_lot::Mutex<Option<Box<dyn FnOnce() + Send>>>,
    }
    impl Pager for Pinning {
        fn read(&self, page: ObjectPage, into: &mut [u8]) -> Result<(), commonhold_mm::PagerError> {
            self.bytes.read(page, into)
        }
        fn write(&self, page: ObjectPage, from: &[u8]) -> Result<(), commonhold_mm::PagerError> {
            let act = self.act.lock().take();
            if let Some(act) = act {
                act();
            }
            self.bytes.write(page, from)
        }
        fn discard(&self, pages: ObjectSpan) -> Result<(), commonhold_mm::PagerError> {
            self.bytes.discard(pages)
        }
    }
    let world = World::new();
    let pager = Arc::new(Pinning {
        bytes: BytesPager::new(&[0; PAGE], PAGE).unwrap(),
        act: parking_lot::Mutex::default(),
    });
    let object = world.manager.object(Kind::Anonymous, Pages(1), Arc::clone(&pager) as _).unwrap();
    let placement = Placement::Fixed(VirtualPage::new(40));
    world.space.map(&object, MapRequest { placement, ..MapRequest::new(Pages(1)) }).unwrap();
    let write = world.space.fault(VirtualPage::new(40), Access::Write, Context::Normal);
    assert_eq!((write, world.manager.serve()), (Fault::Pulsed, true));
    let held = Arc::new(parking_lot::Mutex::new(None));
    let (space, into) = (world.space.clone(), Arc::clone(&held));
    *pager.act.lock() = Some(Box::new(move || {
        *into.lock() = Some(space.pin(at(40, 1), Access::Write).unwrap());
    }));
    assert_eq!(world.space.advise(at(40, 1), Advice::DontNeed), Ok(Pages(0)));
    assert_eq!(object.state(ObjectPage::new(0)), Some(State::Dirty));
    assert_eq!(world.manager.mmu().page_size(), PAGE);
    held.lock().take();
    assert_eq!(world.space.advise(at(40, 1), Advice::DontNeed), Ok(Pages(1)));
}
