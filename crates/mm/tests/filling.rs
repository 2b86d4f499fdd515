//! Memory for pages and for tables while there is little of it, and the manager's own accesses to pages.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use commonhold_mm::{
    Access, AddressSpace, Context, Fault, FaultError, Kind, Manager, MapRequest, MmuError, Object,
    ObjectPage, ObjectSpan, Pager, PagerError, Pages, Patience, Protection, Settings, State,
    VirtualPage, VirtualSpan, soft::SoftMmu,
};

type Machine = SoftMmu<parking_lot::RawMutex, parking_lot::RawRwLock>;

const BROKEN: PagerError = PagerError::Io { code: 5 };
/// Two leaves of a table.
const PAGES: u64 = 128;

/// Reads as ones, counts its reads, and fails on page 7.
#[derive(Default)]
struct Ones(AtomicU64);

impl Pager for Ones {
    fn read(&self, page: ObjectPage, into: &mut [u8]) -> Result<(), PagerError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        into.fill(1);
        if page == ObjectPage::new(7) { Err(BROKEN) } else { Ok(()) }
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
    pager: Arc<Ones>,
    file: Object<Machine>,
    space: AddressSpace<Machine>,
}

impl World {
    fn new(machine: Machine) -> Self {
        let manager = Manager::new(machine, Settings::default()).unwrap();
        let pager = Arc::<Ones>::default();
        let file = manager.object(Kind::File, Pages(PAGES), Arc::clone(&pager) as _).unwrap();
        let all = VirtualSpan::new(VirtualPage::new(0), Pages(2 * PAGES)).unwrap();
        let space = manager.space(all).unwrap();
        space.map(&file, MapRequest::new(Pages(PAGES))).unwrap();
        Self { manager, pager, file, space }
    }

    fn read(&self, page: u64) -> Result<u8, FaultError> {
        let mut byte = [0];
        let cpu = self.manager.mmu().cpu();
        cpu.read(&self.manager, &self.space, page * 16, &mut byte)?;
        Ok(byte[0])
    }

    fn write(&self, page: u64, access: Access, offset: usize) -> Result<(), FaultError> {
        let at = VirtualPage::new(page);
        self.space.access(at, access, Patience::Waits, |bytes| bytes.write(offset, &[2; 4]))?
    }
}

fn machine(frames: u32) -> Machine {
    Machine::new(16, frames, |_| unreachable!("one thread alone would wait"))
}

/// The bug: the page was read first, and then the fault failed, since there was no memory to put it into.
#[test]
fn a_machine_without_memory_for_a_page_evicts_another() {
    let it = World::new(machine(2));
    for page in 0..5 {
        assert_eq!(it.read(page), Ok(1));
    }
    assert_eq!((it.manager.resident(), it.manager.mmu().frames_left()), (Pages(2), 0));
    assert_eq!(it.manager.mmu().violations(), []);
}

/// The bug: as above.
#[test]
fn without_memory_for_the_page_its_pager_is_not_asked() {
    let it = World::new(machine(0));
    assert_eq!(it.read(0), Err(FaultError::NoMemory));
    assert_eq!(it.pager.0.load(Ordering::Relaxed), 0);
    assert_eq!(it.file.state(ObjectPage::new(0)), Some(State::Absent));
}

#[test]
fn memory_for_a_page_that_could_not_be_read_is_given_back() {
    let it = World::new(machine(2));
    assert_eq!(it.read(7), Err(FaultError::Pager(BROKEN)));
    // The second call of the machine, after the one for memory.
    it.manager.mmu().fail_in(1);
    assert_eq!(it.read(1), Err(FaultError::NoMemory));
    assert_eq!((it.manager.resident(), it.manager.mmu().frames_left()), (Pages(0), 2));
    assert_eq!(it.read(1), Ok(1));
}

/// The bug: a machine without memory for a table failed the fault, while there were pages to evict.
#[test]
fn a_machine_without_memory_for_a_table_evicts_a_page() {
    // One for each leaf, and one for a page.
    let it = World::new(machine(3).with_tables_in_frames());
    for page in [0, 1, 64, 2, 65, 64] {
        assert_eq!(it.read(page), Ok(1));
    }
    assert_eq!((it.manager.resident(), it.manager.mmu().frames_left()), (Pages(1), 0));
    assert_eq!(it.manager.mmu().violations(), []);
    // Without the space there are no tables.
    let World { manager, file, space, .. } = it;
    drop((file, space));
    assert_eq!(manager.mmu().frames_left(), 3);

    let it = World::new(machine(1).with_tables_in_frames());
    assert_eq!(it.read(0), Err(FaultError::NoMemory));
    assert_eq!(it.manager.pulses(), 0);
}

#[test]
fn a_worker_that_waits_for_no_pager_leaves_the_eviction_for_a_table_to_others() {
    let it = World::new(machine(4).with_tables_in_frames());
    for page in [0, 1] {
        assert_eq!(it.write(page, Access::Write, 0), Ok(()));
    }
    // Two dirty pages, and one that has no translation, since its table has no memory.
    assert_eq!((it.read(64), it.write(65, Access::Write, 0)), (Ok(1), Ok(())));
    let other = it.manager.space(VirtualSpan::new(VirtualPage::new(0), Pages(PAGES)).unwrap());
    let other = other.unwrap();
    other.map(&it.file, MapRequest::new(Pages(PAGES))).unwrap();
    let at = VirtualPage::new(65);
    assert_eq!(other.fault(at, Access::Read, Context::Normal), Fault::Pulsed);
    let written = it.file.totals().written;
    assert!(it.manager.serve_memory());
    assert_eq!((it.manager.pulses(), it.file.totals().written), (1, written));
    assert!(!it.manager.serve_memory());
    while it.manager.serve_paging() || it.manager.serve_memory() {}
    assert!(it.manager.mmu().translation(other.machine(), at).is_some());
    assert_eq!((it.manager.pulses(), it.manager.mmu().violations()), (0, vec![]));
}

#[test]
fn a_worker_that_waits_for_no_pager_leaves_the_eviction_for_a_page_to_others() {
    let it = World::new(machine(1));
    assert_eq!(it.write(0, Access::Write, 0), Ok(()));
    let zeros = it.manager.object(Kind::Anonymous, Pages(1), Arc::clone(&it.pager) as _).unwrap();
    let request = MapRequest::new(Pages(1));
    let at = it.space.map(&zeros, request).unwrap().first();
    assert_eq!(it.space.fault(at, Access::Read, Context::Normal), Fault::Pulsed);
    assert!(it.manager.serve_memory());
    let page = ObjectPage::new(0);
    assert_eq!((zeros.state(page), it.file.totals().written), (Some(State::Absent), 0));
    assert!(it.manager.serve_paging());
    assert_eq!((zeros.state(page), it.file.totals().written), (Some(State::Clean), 1));
    assert_eq!((it.manager.resident(), it.manager.pulses()), (Pages(1), 0));
}

#[test]
fn the_manager_reads_and_writes_a_page_under_its_locks() {
    let it = World::new(machine(4));
    let (at, page) = (VirtualPage::new(3), ObjectPage::new(3));
    let read = |patience| {
        it.space.access(at, Access::Read, patience, |bytes| {
            // The locks are held: nothing can evict the page now.
            let busy = it.space.access(at, Access::Read, Patience::Never, |_| ());
            assert_eq!(busy, Err(FaultError::Busy));
            let mut into = [0; 4];
            bytes.read(12, &mut into).map(|()| into)
        })
    };
    assert_eq!(read(Patience::Never), Err(FaultError::Busy), "not in memory");
    assert_eq!(read(Patience::Waits), Ok(Ok([1; 4])));
    assert_eq!(it.file.state(page), Some(State::Clean));
    assert_eq!(it.write(3, Access::Write, 12), Ok(()));
    assert_eq!(it.file.state(page), Some(State::Dirty));
    assert_eq!(read(Patience::Never), Ok(Ok([2; 4])));
    assert_eq!(it.read(3), Ok(1));

    assert_eq!(it.write(3, Access::Read, 0), Err(FaultError::Protection));
    let past = Err(FaultError::Machine(MmuError::PastPage));
    assert_eq!([13, usize::MAX].map(|offset| it.write(3, Access::Write, offset)), [past; 2]);
    assert_eq!(it.write(PAGES, Access::Write, 0), Err(FaultError::NotMapped));
    it.file.resize(Pages(3)).unwrap();
    assert_eq!(it.write(3, Access::Write, 0), Err(FaultError::PastEnd));
    let span = VirtualSpan::new(VirtualPage::new(0), Pages(1)).unwrap();
    it.space.protect(span, Protection::Read).unwrap();
    assert_eq!(it.write(0, Access::Write, 0), Err(FaultError::Protection));
    assert_eq!(it.write(7, Access::Write, 0), Err(FaultError::PastEnd));
    assert_eq!(it.manager.resident(), Pages(0));
}

#[test]
fn a_write_of_the_manager_is_seen_by_a_write_back_and_by_an_eviction() {
    let it = World::new(machine(4));
    assert_eq!(it.write(0, Access::Write, 0), Ok(()));
    let all = ObjectSpan::new(ObjectPage::new(0), Pages(PAGES)).unwrap();
    assert_eq!(it.file.sync(all), Ok(Pages(1)));
    assert_eq!(it.write(0, Access::Write, 4), Ok(()));
    assert_eq!(it.manager.page_out(Pages(1)), Pages(1));
    assert_eq!(it.file.totals().written, 2);
}
