//! A fault handler takes no lock that can block: on this machine, such a lock panics if a handler takes it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails there")]

mod wrapped;

use std::sync::Arc;

use commonhold_mm::{
    Access, AddressSpace, Context, Fault, FaultError, Kind, Manager, MapRequest, ObjectPage,
    ObjectSpan, Pages, Placement, Settings, VirtualPage, VirtualSpan, Wait, ZeroPager,
};

use wrapped::{Around, Wrapped, locks};

/// Checks that the machine is told whether it may wait.
struct Strict;

impl Around for Strict {
    fn installs(&self, wait: Wait) {
        assert_eq!(wait == Wait::Never, locks::is_handler(), "the machine is told who asks");
    }
}

/// A fault of the handler.
fn fault(
    space: &AddressSpace<Wrapped<Strict>>,
    at: u64,
    access: Access,
    context: Context,
) -> Fault {
    locks::handle(|| space.fault(VirtualPage::new(at), access, context))
}

#[test]
fn no_fault_takes_a_lock_that_can_block() {
    let machine = Wrapped::new(16, 100, Strict);
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
