//! Locks and the machine: a fault handler takes no lock that can block, and no lock is held while the machine finishes a
//! gather. On this machine such a lock panics if a handler takes it, and `finish` if one is held.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::{cell::Cell, sync::Arc};

use commonhold_mm::{
    Access, AddressSpace, Advice, BytesPager, Contents, Context, Error, Fault, FaultError,
    Installed, Kind, Lane, Manager, MapRequest, Mmu, MmuError, Object, ObjectPage, ObjectSpan,
    Pages, Placement, Protection, Seen, Settings, State, VirtualPage, VirtualSpan, Wait, Writable,
    ZeroPager,
    soft::{SoftFrame, SoftGather, SoftMmu, SoftObject, SoftSpace},
};

thread_local! {
    static HANDLER: Cell<bool> = const { Cell::new(false) };
    /// Locks that this thread holds.
    static HELD: Cell<u32> = const { Cell::new(0) };
}

fn held(taken: bool) -> bool {
    HELD.set(HELD.get() + u32::from(taken));
    taken
}

fn given_back() {
    HELD.set(HELD.get() - 1);
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
        held(true);
    }

    fn try_lock(&self) -> bool {
        held(self.0.try_lock())
    }

    unsafe fn unlock(&self) {
        given_back();
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
        held(true);
    }

    fn try_lock_shared(&self) -> bool {
        held(self.0.try_lock_shared())
    }

    unsafe fn unlock_shared(&self) {
        given_back();
        // SAFETY: the caller holds the lock, as this function requires too.
        unsafe { self.0.unlock_shared() }
    }

    fn lock_exclusive(&self) {
        may_wait();
        self.0.lock_exclusive();
        held(true);
    }

    fn try_lock_exclusive(&self) -> bool {
        held(self.0.try_lock_exclusive())
    }

    unsafe fn unlock_exclusive(&self) {
        given_back();
        // SAFETY: the caller holds the lock, as this function requires too.
        unsafe { self.0.unlock_exclusive() }
    }
}

/// A software machine whose tables have locks of the usual kind, and whose manager has those that panic.
struct Strict(SoftMmu<parking_lot::RawMutex, parking_lot::RawRwLock>, Meanwhile);

/// What another thread does while the machine finishes a gather, before a processor has heeded it.
type Meanwhile = std::sync::Mutex<Vec<Box<dyn FnOnce() + Send>>>;

fn machine(page_size: usize) -> Strict {
    Strict(SoftMmu::new(page_size, 100, |_| ()), Meanwhile::default())
}

impl Mmu for Strict {
    type Mutex = Mutex;
    type Leaf = parking_lot::RawMutex;
    type RwLock = RwLock;
    type Space = SoftSpace<parking_lot::RawMutex>;
    type Object = SoftObject<parking_lot::RawMutex>;
    type Gather = SoftGather;
    type Frame = SoftFrame<parking_lot::RawMutex>;

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

    fn take_frame(
        &self,
        object: &Self::Object,
        page: ObjectPage,
        contents: Contents,
    ) -> Result<Self::Frame, MmuError> {
        self.0.take_frame(object, page, contents)
    }

    fn ready(
        &self,
        object: &Self::Object,
        page: ObjectPage,
        frame: &mut Self::Frame,
    ) -> Result<(), MmuError> {
        self.0.ready(object, page, frame)
    }

    fn adopt(&self, object: &Self::Object, page: ObjectPage, frame: Self::Frame) {
        self.0.adopt(object, page, frame);
    }

    fn read(
        &self,
        object: &Self::Object,
        page: ObjectPage,
        offset: usize,
        into: &mut [u8],
    ) -> Result<(), MmuError> {
        self.0.read(object, page, offset, into)
    }

    fn write(
        &self,
        object: &Self::Object,
        page: ObjectPage,
        offset: usize,
        from: &[u8],
    ) -> Result<(), MmuError> {
        self.0.write(object, page, offset, from)
    }

    fn release(&self, object: &Self::Object, page: ObjectPage) {
        self.0.release(object, page);
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
        gather: &mut SoftGather,
    ) -> Result<(), MmuError> {
        self.0.write_protect(space, at, object, page, gather)
    }

    fn remove(
        &self,
        space: &Self::Space,
        span: VirtualSpan,
        object: &Self::Object,
        first: ObjectPage,
        gather: &mut SoftGather,
    ) -> Result<(), MmuError> {
        self.0.remove(space, span, object, first, gather)
    }

    fn finish(
        &self,
        gather: SoftGather,
        seen: &mut dyn FnMut(ObjectPage, Seen),
    ) -> Result<(), MmuError> {
        assert_eq!(HELD.get(), 0, "a lock is held while the machine waits for processors");
        let meanwhile = self.1.lock().unwrap().pop();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        self.0.finish(gather, seen)
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
    let manager = Manager::new(machine(16), Settings { pulses: 2, ..Settings::default() }).unwrap();
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

/// A file of bytes 7, two pages of which are shown and were written to.
fn written() -> (Manager<Strict>, Object<Strict>, AddressSpace<Strict>) {
    let manager = Manager::new(machine(16), Settings::default()).unwrap();
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
    manager.mmu().1.lock().unwrap().push(Box::new(move || {
        assert_eq!(fault(&theirs, 0, Access::Read, Context::Normal), Fault::Resolved);
        assert_eq!(fault(&theirs, 0, Access::Write, Context::Normal), Fault::Pulsed);
        assert!(serving.serve_memory(), "a worker looks, and puts the fault off");
        assert_eq!((serving.pulses(), serving.serve()), (1, false));
    }));
    file.sync(ObjectSpan::one(ObjectPage::new(0))).unwrap();
    assert_eq!(file.state(ObjectPage::new(0)), Some(State::Clean));
    let translation = manager.mmu().0.translation(space.machine(), VirtualPage::new(0)).unwrap();
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
    manager.mmu().1.lock().unwrap().extend([read, Box::new(|| ())]);
    let one = VirtualSpan::one(VirtualPage::new(0));
    assert_eq!(space.advise(one, Advice::DontNeed), Ok(Pages(1)));
    assert_eq!(file.state(ObjectPage::new(0)), Some(State::Absent));
    while manager.serve() {}
    assert_eq!((manager.pulses(), file.totals().filled), (0, 3));
    assert_eq!(manager.mmu().0.violations(), []);
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
        manager.mmu().0.fail_in(calls);
        assert_eq!(space.advise(one, Advice::DontNeed), Err(Error::NoMemory));
        assert_eq!(file.state(ObjectPage::new(0)), Some(left), "call {calls}");
        manager.mmu().0.succeed();
    }
    assert_eq!(space.advise(one, Advice::DontNeed), Ok(Pages(1)));
    assert_eq!(manager.mmu().0.violations(), []);
}
