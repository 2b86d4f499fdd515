//! What one thread does while another works with a pager. Most tests need no second thread: a pager is called with
//! no lock held, so the pager itself can do what another thread would do meanwhile.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::sync::{Arc, Condvar, Mutex};

use commonhold_mm::{
    Access, AddressSpace, Advice, Context, Fault, Kind, Manager, MapRequest, Object, ObjectPage,
    ObjectSpan, Pager, PagerError, Pages, Placement, Residency, Settings, State, VirtualPage,
    VirtualSpan, ZeroPager, soft::SoftMmu,
};

type Machine = SoftMmu<parking_lot::RawMutex, parking_lot::RawRwLock>;

const BROKEN: PagerError = PagerError::Io { code: 5 };

/// Reads as zeros. Runs `meanwhile` in the middle of a call, and returns its result.
struct Interrupted {
    meanwhile: Mutex<Option<Meanwhile>>,
}

type Meanwhile = Box<dyn FnOnce() -> Result<(), PagerError> + Send>;

impl Interrupted {
    fn interrupt(&self) -> Result<(), PagerError> {
        let meanwhile = self.meanwhile.lock().unwrap().take();
        meanwhile.map_or(Ok(()), |meanwhile| meanwhile())
    }
}

impl Pager for Interrupted {
    fn read(&self, _page: ObjectPage, into: &mut [u8]) -> Result<(), PagerError> {
        into.fill(0);
        self.interrupt()
    }

    fn write(&self, _page: ObjectPage, _from: &[u8]) -> Result<(), PagerError> {
        self.interrupt()
    }

    fn discard(&self, _pages: ObjectSpan) -> Result<(), PagerError> {
        Ok(())
    }
}

/// Two spaces that show a file of four pages.
struct Two {
    manager: Manager<Machine>,
    pager: Arc<Interrupted>,
    file: Object<Machine>,
    one: AddressSpace<Machine>,
    two: AddressSpace<Machine>,
}

impl Two {
    fn new(idle: fn(u32)) -> Self {
        let manager = Manager::new(SoftMmu::new(16, 100, idle), Settings::default()).unwrap();
        let pager = Arc::new(Interrupted { meanwhile: Mutex::new(None) });
        let file = manager.object(Kind::File, Pages(4), Arc::clone(&pager) as _).unwrap();
        let [one, two] = [(), ()].map(|()| {
            let space = manager.space(span(0, 8)).unwrap();
            let placement = Placement::Fixed(VirtualPage::new(0));
            space.map(&file, MapRequest { placement, ..MapRequest::new(Pages(4)) }).unwrap();
            space
        });
        Self { manager, pager, file, one, two }
    }

    fn meanwhile(&self, act: impl FnOnce() -> Result<(), PagerError> + Send + 'static) {
        *self.pager.meanwhile.lock().unwrap() = Some(Box::new(act));
    }

    /// While a page is being filled for the first space, the second space faults on it, and a worker serves that.
    fn fault_meanwhile(&self, then: impl FnOnce() -> Result<(), PagerError> + Send + 'static) {
        let (manager, two) = (self.manager.clone(), self.two.clone());
        self.meanwhile(move || {
            assert_eq!(read_fault(&two), Fault::Pulsed);
            assert!(manager.serve());
            assert_eq!((manager.pulses(), manager.mmu().wakes()), (2, 0), "put off");
            assert!(!manager.serve(), "a pulse that was put off does not wait for a worker");
            drop(two);
            then()
        });
        assert_eq!(read_fault(&self.one), Fault::Pulsed);
        assert!(self.manager.serve());
    }
}

fn read_fault(space: &AddressSpace<Machine>) -> Fault {
    space.fault(VirtualPage::new(0), Access::Read, Context::Normal)
}

fn span(first: u64, pages: u64) -> VirtualSpan {
    VirtualSpan::new(VirtualPage::new(first), Pages(pages)).unwrap()
}

fn never(_attempt: u32) {
    unreachable!("one thread alone would wait");
}

#[test]
fn a_fault_on_a_page_being_filled_is_put_off_until_the_filling_ends() {
    let it = Two::new(never);
    it.fault_meanwhile(|| Ok(()));
    assert_eq!((it.manager.pulses(), it.manager.mmu().wakes()), (1, 1));
    assert!(it.manager.serve());
    assert_eq!((it.manager.pulses(), it.manager.mmu().wakes()), (0, 2));
    let at = VirtualPage::new(0);
    assert!(it.manager.mmu().translation(it.two.machine(), at).is_some());
    assert_eq!(it.file.totals().filled, 1, "once for both");
}

/// The bug: such pulses were woken with the error, but not counted as failed.
#[test]
fn a_fault_that_was_put_off_fails_if_the_filling_fails() {
    let it = Two::new(never);
    it.fault_meanwhile(|| Err(BROKEN));
    assert_eq!((it.manager.pulses(), it.manager.mmu().wakes()), (0, 2));
    assert_eq!([&it.one, &it.two].map(|space| space.totals().faults.failed), [1, 1]);
    assert_eq!(it.file.state(ObjectPage::new(0)), Some(State::Bad));
}

#[test]
fn a_fault_that_was_put_off_is_cancelled_with_its_mapping() {
    let it = Two::new(never);
    let two = it.two.clone();
    it.fault_meanwhile(move || {
        two.unmap(span(0, 1)).unwrap();
        Ok(())
    });
    assert_eq!((it.manager.pulses(), it.manager.mmu().wakes()), (0, 2));
    assert_eq!(it.two.totals().faults.cancelled, 1);
    assert!(!it.manager.serve());
}

#[test]
fn a_page_written_to_during_its_write_back_stays_dirty() {
    let it = Two::new(never);
    let cpu = it.manager.mmu().cpu();
    cpu.write(&it.manager, &it.one, 0, &[1]).unwrap();
    let (manager, two) = (it.manager.clone(), it.two.clone());
    it.meanwhile(move || {
        manager.mmu().cpu().write(&manager, &two, 0, &[2]).unwrap();
        Ok(())
    });
    assert_eq!(it.one.advise(span(0, 1), Advice::DontNeed), Ok(Pages(0)));
    assert_eq!(it.file.state(ObjectPage::new(0)), Some(State::Dirty));
    let mut byte = [0];
    cpu.read(&it.manager, &it.one, 0, &mut byte).unwrap();
    assert_eq!((byte, it.manager.mmu().violations()), ([2], vec![]));
}

/// Holds one thread in a pager until another waits for it.
struct Gate {
    /// Whether a thread has entered, and whether the gate is open.
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Gate {
    const fn new() -> Self {
        Self { state: Mutex::new((false, false)), changed: Condvar::new() }
    }

    fn enter(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 = true;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| !state.1).unwrap());
    }

    fn wait_for_entry(&self) {
        drop(self.changed.wait_while(self.state.lock().unwrap(), |state| !state.0).unwrap());
    }

    fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

#[test]
fn sync_waits_for_another_write_of_the_same_page() {
    static GATE: Gate = Gate::new();
    let it = Two::new(|_| GATE.open());
    it.manager.mmu().cpu().write(&it.manager, &it.one, 0, &[1]).unwrap();
    it.meanwhile(|| {
        GATE.enter();
        Err(BROKEN)
    });
    let results = std::thread::scope(|threads| {
        let first = threads.spawn(|| it.one.sync(span(0, 1)).is_ok());
        GATE.wait_for_entry();
        (it.two.sync(span(0, 1)), first.join().unwrap())
    });
    // The first could not write the page; the second noticed that, and has written it.
    assert_eq!(results, (Ok(Pages(1)), false));
}

#[test]
fn a_page_filled_past_the_new_end_does_not_stay() {
    static GATE: Gate = Gate::new();
    let it = Two::new(|_| GATE.open());
    it.meanwhile(|| {
        GATE.enter();
        Ok(())
    });
    assert_eq!(read_fault(&it.one), Fault::Pulsed);
    std::thread::scope(|threads| {
        threads.spawn(|| it.manager.serve());
        GATE.wait_for_entry();
        it.file.resize(Pages(0)).unwrap();
    });
    assert_eq!(it.one.totals().faults.failed, 1);
    assert_eq!((it.manager.resident(), it.manager.pulses()), (Pages(0), 0));
    assert_eq!(it.manager.mmu().violations(), []);
}

/// The bug: an operation that failed in the middle undid everything at its pages, including what another thread had
/// mapped there meanwhile.
#[test]
fn a_lock_or_map_that_fails_leaves_mappings_that_took_its_place() {
    let it = Two::new(never);
    let other = it.manager.object(Kind::Anonymous, Pages(4), Arc::new(ZeroPager)).unwrap();
    let instead = MapRequest {
        placement: Placement::Fixed(VirtualPage::new(0)),
        residency: Some(Residency::Locked),
        ..MapRequest::new(Pages(4))
    };
    let (space, another) = (it.one.clone(), other.clone());
    it.meanwhile(move || {
        space.unmap(span(0, 4)).unwrap();
        space.map(&another, instead).unwrap();
        Err(BROKEN)
    });
    assert!(it.one.lock(span(0, 4)).is_err());
    assert!((0..4).all(|at| it.one.query(VirtualPage::new(at)).unwrap().locked));
    assert_eq!(other.spaces(), 1);

    let (space, another) = (it.two.clone(), other.clone());
    it.meanwhile(move || {
        space.unmap(span(4, 4)).unwrap();
        let placement = Placement::Fixed(VirtualPage::new(4));
        space.map(&another, MapRequest { placement, ..instead }).unwrap();
        Err(BROKEN)
    });
    it.one.advise(span(0, 4), Advice::DontNeed).unwrap();
    let placement = Placement::Fixed(VirtualPage::new(4));
    assert!(it.two.map(&it.file, MapRequest { placement, ..instead }).is_err());
    assert_eq!(other.spaces(), 2);
    assert!(it.two.query(VirtualPage::new(4)).is_some());
}
