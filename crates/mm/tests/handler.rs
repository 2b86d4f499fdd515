//! Locks and the machine: a fault handler takes no lock that can block, and no lock is held while the machine finishes a
//! gather. On this machine such a lock panics if a handler takes it, and `finish` if one is held.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails there")]

mod wrapped;

use std::sync::{Arc, Mutex};

use commonhold_mm::{
    Access, AddressSpace, Advice, BytesPager, Context, Error, Fault, FaultError, Kind, Manager,
    MapRequest, Object, ObjectPage, ObjectSpan, Pages, Placement, Settings, State, VirtualPage,
    VirtualSpan, Wait, Writable, ZeroPager,
};

use wrapped::{Around, Wrapped, locks};

/// Checks that the machine is told whether it may wait, and that no lock is held where it may. It has what another thread
/// does while the machine finishes a gather, before a processor has heeded it: the last first.
#[derive(Default)]
struct Strict(Mutex<Vec<Meanwhile>>);

type Meanwhile = Box<dyn FnOnce() + Send>;
type Machine = Wrapped<Strict>;

impl Around for Strict {
    fn installs(&self, wait: Wait) {
        assert_eq!(wait == Wait::Never, locks::is_handler(), "the machine is told who asks");
    }

    fn finishes(&self) {
        assert_eq!(locks::held(), 0, "a lock is held while the machine waits for processors");
        let meanwhile = self.0.lock().unwrap().pop();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
    }
}

/// A fault of the handler.
fn fault(space: &AddressSpace<Machine>, at: u64, access: Access, context: Context) -> Fault {
    locks::handle(|| space.fault(VirtualPage::new(at), access, context))
}

#[test]
fn no_fault_takes_a_lock_that_can_block() {
    let machine = Wrapped::new(16, 100, Strict::default());
    let manager = Manager::new(machine, Settings { pulses: 2, ..Settings::default() }).unwrap();
    let [zeros, file] = [Kind::Anonymous, Kind::File]
        .map(|kind| manager.object(kind, Pages(4), Arc::new(ZeroPager)).unwrap());
    let space = manager.space(VirtualSpan::new(VirtualPage::new(0), Pages(20)).unwrap()).unwrap();
    for (object, at) in [(&zeros, 0), (&file, 8)] {
        let placement = Placement::Fixed(VirtualPage::new(at));
        space.map(object, MapRequest { placement, ..MapRequest::new(Pages(4)) }).unwrap();
    }
    let all = |expected: [Fault; 6]| {
        let (normal, none) = (Context::Normal, Context::NoFault);
        let faults = [
            fault(&space, 0, Access::Read, normal),
            fault(&space, 0, Access::Read, normal),
            fault(&space, 8, Access::Write, normal),
            fault(&space, 1, Access::Write, normal),
            fault(&space, 19, Access::Read, normal),
            fault(&space, 0, Access::Read, none),
        ];
        assert_eq!(faults, expected);
    };
    let (pulsed, unmapped) = (Fault::Pulsed, Fault::Failed(FaultError::NotMapped));
    let [not_locked, busy] = [FaultError::NotSuperLocked, FaultError::Busy].map(Fault::Failed);
    all([pulsed, pulsed, pulsed, Fault::Full, unmapped, not_locked]);
    while manager.serve() {}
    let resolved = Fault::Resolved;
    all([resolved, resolved, resolved, pulsed, unmapped, not_locked]);
    while manager.serve() {}
    // With the object locked.
    zeros.walk(ObjectSpan::one(ObjectPage::new(0)), |_| {
        all([pulsed, pulsed, resolved, pulsed, unmapped, busy]);
    });
    while manager.serve() {}
    assert_eq!(manager.pulses(), 0);
    manager.mmu().soft.late_in(0);
    all([pulsed, resolved, resolved, resolved, unmapped, not_locked]);
}

/// A file of bytes 7, two pages of which are shown and were written to.
fn written() -> (Manager<Machine>, Object<Machine>, AddressSpace<Machine>) {
    let manager =
        Manager::new(Wrapped::new(16, 100, Strict::default()), Settings::default()).unwrap();
    let pager = BytesPager::<parking_lot::RawMutex>::new(&[7; 64], 16).unwrap();
    let file = manager.object(Kind::File, Pages(4), Arc::new(pager)).unwrap();
    let space = manager.space(VirtualSpan::new(VirtualPage::new(0), Pages(4)).unwrap()).unwrap();
    let placement = Placement::Fixed(VirtualPage::new(0));
    space.map(&file, MapRequest { placement, ..MapRequest::new(Pages(4)) }).unwrap();
    for page in 0..2 {
        assert_eq!(fault(&space, page, Access::Write, Context::Normal), Fault::Pulsed);
    }
    while manager.serve() {}
    (manager, file, space)
}

/// The bug: the machine made its changes, and waited for other processors, under the object's lock.
#[test]
fn nothing_is_locked_while_the_machine_finishes() {
    let (manager, file, space) = written();
    file.sync(ObjectSpan::one(ObjectPage::new(0))).unwrap();
    assert_eq!(manager.page_out(Pages(2)), Pages(2));
    let _ = fault(&space, 3, Access::Read, Context::Normal);
    while manager.serve() {}
    file.resize(Pages(1)).unwrap();
    assert_eq!(manager.resident(), Pages(0));
}

#[test]
fn a_write_waits_until_write_access_is_gone_everywhere_and_a_read_does_not() {
    let (manager, file, space) = written();
    let (theirs, serving) = (space.clone(), manager.clone());
    manager.mmu().around.0.lock().unwrap().push(Box::new(move || {
        assert_eq!(fault(&theirs, 0, Access::Read, Context::Normal), Fault::Resolved);
        assert_eq!(fault(&theirs, 0, Access::Write, Context::Normal), Fault::Pulsed);
        assert!(serving.serve_memory(), "a worker looks, and puts the fault off");
        assert_eq!((serving.pulses(), serving.serve()), (1, false));
    }));
    file.sync(ObjectSpan::one(ObjectPage::new(0))).unwrap();
    assert_eq!(file.state(ObjectPage::new(0)), Some(State::Clean));
    let translation =
        manager.mmu().soft.translation(&space.machine().soft, VirtualPage::new(0)).unwrap();
    assert_eq!(translation.writable, Writable::No);
    assert!(manager.serve_memory());
    assert_eq!(manager.pulses(), 0);
    assert_eq!(file.state(ObjectPage::new(0)), Some(State::Dirty));
}

#[test]
fn a_read_waits_until_an_eviction_has_taken_its_translation_and_reads_what_was_written() {
    let (manager, file, space) = written();
    let (theirs, serving) = (space.clone(), manager.clone());
    let read: Box<dyn FnOnce() + Send> = Box::new(move || {
        assert_eq!(fault(&theirs, 0, Access::Read, Context::Normal), Fault::Pulsed);
        assert!(serving.serve_memory());
        assert_eq!((serving.pulses(), serving.serve()), (1, false));
    });
    // The first gather of the eviction takes write access away, the second the translation.
    manager.mmu().around.0.lock().unwrap().extend([read, Box::new(|| ())]);
    let one = VirtualSpan::one(VirtualPage::new(0));
    assert_eq!(space.advise(one, Advice::DontNeed), Ok(Pages(1)));
    assert_eq!(file.state(ObjectPage::new(0)), Some(State::Absent));
    while manager.serve() {}
    assert_eq!((manager.pulses(), file.totals().filled), (0, 3));
    assert_eq!(manager.mmu().soft.violations(), []);
}

#[test]
fn a_page_is_released_only_if_the_machine_has_finished() {
    let (manager, file, space) = written();
    let one = VirtualSpan::one(VirtualPage::new(0));
    // Noting, finishing and copying for the pager; then noting and finishing for a page that is clean.
    for (calls, left) in [
        (0, State::Dirty),
        (1, State::Dirty),
        (2, State::Dirty),
        (3, State::Clean),
        (1, State::Clean),
    ] {
        manager.mmu().soft.fail_in(calls);
        assert_eq!(space.advise(one, Advice::DontNeed), Err(Error::NoMemory));
        assert_eq!(file.state(ObjectPage::new(0)), Some(left), "call {calls}");
        manager.mmu().soft.succeed();
    }
    assert_eq!(space.advise(one, Advice::DontNeed), Ok(Pages(1)));
    assert_eq!(manager.mmu().soft.violations(), []);
}
