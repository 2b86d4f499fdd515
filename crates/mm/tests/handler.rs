//! A fault handler takes no lock that can block: on this machine, such a lock panics if a handler takes it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::{cell::Cell, sync::Arc};

use commonhold_mm::{
    Access, AddressSpace, Context, Fault, FaultError, Installed, Kind, Lane, Manager, MapRequest,
    Mmu, MmuError, ObjectPage, ObjectSpan, Pages, Placement, Protection, Released, Settings,
    VirtualPage, VirtualSpan, Wait, Writable, ZeroPager,
    soft::{SoftMmu, SoftObject, SoftSpace},
};

thread_local! {
    static HANDLER: Cell<bool> = const { Cell::new(false) };
}

/// Panics if a handler would wait.
fn may_wait() {
    assert!(!HANDLER.get(), "a fault handler takes a lock that can block");
}

struct Mutex(parking_lot::RawMutex);

// SAFETY: RawMutex requires mutual exclusion, which the inner lock gives.
unsafe impl lock_api::RawMutex for Mutex {
    #[allow(clippy::declare_interior_mutable_const, reason = "lock_api asks for it")]
    const INIT: Self = Self(parking_lot::RawMutex::INIT);
    type GuardMarker = <parking_lot::RawMutex as lock_api::RawMutex>::GuardMarker;

    fn lock(&self) {
        may_wait();
        self.0.lock();
    }

    fn try_lock(&self) -> bool {
        self.0.try_lock()
    }

    unsafe fn unlock(&self) {
        // SAFETY: the caller holds the lock, as this function requires too.
        unsafe { self.0.unlock() }
    }
}

struct RwLock(parking_lot::RawRwLock);

// SAFETY: RawRwLock requires that a writer is alone, for which the inner lock cares.
unsafe impl lock_api::RawRwLock for RwLock {
    #[allow(clippy::declare_interior_mutable_const, reason = "lock_api asks for it")]
    const INIT: Self = Self(parking_lot::RawRwLock::INIT);
    type GuardMarker = <parking_lot::RawRwLock as lock_api::RawRwLock>::GuardMarker;

    fn lock_shared(&self) {
        may_wait();
        self.0.lock_shared();
    }

    fn try_lock_shared(&self) -> bool {
        self.0.try_lock_shared()
    }

    unsafe fn unlock_shared(&self) {
        // SAFETY: the caller holds the lock, as this function requires too.
        unsafe { self.0.unlock_shared() }
    }

    fn lock_exclusive(&self) {
        may_wait();
        self.0.lock_exclusive();
    }

    fn try_lock_exclusive(&self) -> bool {
        self.0.try_lock_exclusive()
    }

    unsafe fn unlock_exclusive(&self) {
        // SAFETY: the caller holds the lock, as this function requires too.
        unsafe { self.0.unlock_exclusive() }
    }
}

/// A software machine whose tables have locks of the usual kind, and whose manager has those that panic.
struct Strict(SoftMmu<parking_lot::RawMutex, parking_lot::RawRwLock>);

impl Mmu for Strict {
    type Mutex = Mutex;
    type Leaf = parking_lot::RawMutex;
    type RwLock = RwLock;
    type Space = SoftSpace<parking_lot::RawMutex>;
    type Object = SoftObject<parking_lot::RawMutex>;

    fn page_size(&self) -> usize {
        self.0.page_size()
    }

    fn new_space(&self, span: VirtualSpan) -> Result<Self::Space, MmuError> {
        self.0.new_space(span)
    }

    fn new_object(&self, pages: Pages) -> Result<Self::Object, MmuError> {
        self.0.new_object(pages)
    }

    fn resize_object(&self, object: &Self::Object, pages: Pages) -> Result<(), MmuError> {
        self.0.resize_object(object, pages)
    }

    fn fill(&self, object: &Self::Object, page: ObjectPage, from: &[u8]) -> Result<(), MmuError> {
        self.0.fill(object, page, from)
    }

    fn copy_out(
        &self,
        object: &Self::Object,
        page: ObjectPage,
        into: &mut [u8],
    ) -> Result<(), MmuError> {
        self.0.copy_out(object, page, into)
    }

    fn release(&self, object: &Self::Object, page: ObjectPage) -> Released {
        self.0.release(object, page)
    }

    fn attach(
        &self,
        space: &Self::Space,
        span: VirtualSpan,
        object: &Self::Object,
        first: ObjectPage,
        protection: Protection,
    ) -> Result<(), MmuError> {
        self.0.attach(space, span, object, first, protection)
    }

    fn detach(&self, space: &Self::Space, span: VirtualSpan) {
        self.0.detach(space, span);
    }

    fn protect(
        &self,
        space: &Self::Space,
        span: VirtualSpan,
        protection: Protection,
    ) -> Result<(), MmuError> {
        self.0.protect(space, span, protection)
    }

    fn install(
        &self,
        space: &Self::Space,
        at: VirtualPage,
        object: &Self::Object,
        page: ObjectPage,
        protection: Protection,
        writable: Writable,
        wait: Wait,
    ) -> Result<Installed, MmuError> {
        assert_eq!(wait == Wait::Never, HANDLER.get(), "the machine is told who asks");
        self.0.install(space, at, object, page, protection, writable, wait)
    }

    fn write_protect(
        &self,
        space: &Self::Space,
        at: VirtualPage,
        object: &Self::Object,
        page: ObjectPage,
    ) {
        self.0.write_protect(space, at, object, page);
    }

    fn remove(
        &self,
        space: &Self::Space,
        span: VirtualSpan,
        object: &Self::Object,
        first: ObjectPage,
    ) {
        self.0.remove(space, span, object, first);
    }

    fn flush(&self, space: &Self::Space, span: VirtualSpan) {
        self.0.flush(space, span);
    }

    fn pulse(&self, lane: Lane) {
        self.0.pulse(lane);
    }

    fn wake(
        &self,
        space: &Self::Space,
        at: VirtualPage,
        access: Access,
        cookie: u64,
        result: Result<(), FaultError>,
    ) {
        self.0.wake(space, at, access, cookie, result);
    }

    fn idle(&self, attempt: u32) {
        self.0.idle(attempt);
    }
}

/// A fault of the handler.
fn fault(space: &AddressSpace<Strict>, at: u64, access: Access, context: Context) -> Fault {
    HANDLER.set(true);
    let fault = space.fault(VirtualPage::new(at), access, context);
    HANDLER.set(false);
    fault
}

#[test]
fn no_fault_takes_a_lock_that_can_block() {
    let machine = Strict(SoftMmu::new(16, 100, |_| ()));
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
    manager.mmu().0.late_in(0);
    all([pulsed, resolved, resolved, resolved, unmapped, not_locked]);
}
