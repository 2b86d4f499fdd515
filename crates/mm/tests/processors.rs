//! What processors remember of translations, and what they tell of accesses.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::{alloc::System, sync::Arc};

use cap::Cap;
use commonhold_mm::{
    Access, AddressSpace, BytesPager, Context, Kind, Manager, MapRequest, Object, ObjectPage,
    Pages, Placement, Settings, State, VirtualPage, VirtualSpan, soft::SoftMmu,
};

type Machine = SoftMmu<parking_lot::RawMutex, parking_lot::RawRwLock>;

const PAGE: usize = 16;
const PAGES: u64 = 16;

/// Limits the memory of the whole process.
#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// No test runs beside one that limits the memory.
static ALONE: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

/// A file of bytes 7, and a space that shows all of it.
fn file(machine: Machine) -> (Manager<Machine>, Object<Machine>, AddressSpace<Machine>) {
    let manager = Manager::new(machine, Settings::default()).unwrap();
    let pager = BytesPager::<parking_lot::RawMutex>::new(&[7; 16 * PAGE], PAGE).unwrap();
    let file = manager.object(Kind::File, Pages(PAGES), Arc::new(pager)).unwrap();
    let space =
        manager.space(VirtualSpan::new(VirtualPage::new(0), Pages(PAGES)).unwrap()).unwrap();
    let placement = Placement::Fixed(VirtualPage::new(0));
    space.map(&file, MapRequest { placement, ..MapRequest::new(Pages(PAGES)) }).unwrap();
    (manager, file, space)
}

fn machine() -> Machine {
    Machine::new(PAGE, 100, |_| unreachable!("one thread alone would wait"))
}

fn state(file: &Object<Machine>, page: u64) -> State {
    file.state(ObjectPage::new(page)).unwrap()
}

/// The bug: the processor remembered that the page was read-only, and faulted.
#[test]
fn no_processor_remembers_less_than_a_super_lock_gives() {
    let _alone = ALONE.lock();
    let machine = machine();
    machine.remember_less();
    let (manager, _file, space) = file(machine);
    let cpu = manager.mmu().cpu();
    cpu.read(&manager, &space, 0, &mut [0]).unwrap();
    let _privilege = space.io_privilege().unwrap();
    let at = VirtualPage::new(0);
    cpu.access(&manager, &space, at, Access::Write, Context::NoFault, |bytes| bytes[0] = 9)
        .unwrap();
}

#[test]
fn a_page_that_processors_tell_was_accessed_stays_without_a_fault() {
    let _alone = ALONE.lock();
    let machine = machine();
    machine.harvest_accessed();
    let (manager, file, space) = file(machine);
    let cpu = manager.mmu().cpu();
    for page in 0..PAGES {
        cpu.read(&manager, &space, page * PAGE as u64, &mut [0]).unwrap();
    }
    // The oldest go on trial, and of these the first leaves.
    assert_eq!(manager.page_out(Pages(1)), Pages(1));
    assert_eq!(state(&file, 0), State::Absent);
    let faults = space.totals().faults;
    cpu.read(&manager, &space, PAGE as u64, &mut [0]).unwrap();
    assert_eq!(space.totals().faults, faults, "the trial has left the translation");
    assert_eq!(manager.page_out(Pages(1)), Pages(1));
    assert_eq!([1, 2].map(|page| state(&file, page)), [State::Clean, State::Absent]);
}

/// The bug: the copy for the pager was allocated when the page was to go, so nothing could go when no memory was left.
#[test]
fn a_dirty_page_goes_with_no_memory_left() {
    let _alone = ALONE.lock();
    let (manager, file, space) = file(machine());
    let cpu = manager.mmu().cpu();
    // The pager has its place for the page from the first time.
    for byte in [8, 9] {
        cpu.write(&manager, &space, 0, &[byte]).unwrap();
        MEMORY.set_limit(if byte == 9 { MEMORY.allocated() } else { usize::MAX }).unwrap();
        let gone = manager.page_out(Pages(1));
        MEMORY.set_limit(usize::MAX).unwrap();
        assert_eq!(gone, Pages(1));
    }
    let mut read = [0];
    cpu.read(&manager, &space, 0, &mut read).unwrap();
    assert_eq!((read, file.totals().written), ([9], 2));
}
