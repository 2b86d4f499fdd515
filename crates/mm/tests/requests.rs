//! Pagers that complete later, never, or too late: only those who wait for the page notice.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use commonhold_mm::{
    Access, AddressSpace, Context, Error, Fault, FaultError, Kind, Manager, MapRequest, Object,
    ObjectPage, ObjectSpan, Pager, PagerError, Pages, Placement, ReadRequest, Settings, State,
    VirtualPage, VirtualSpan, ZeroPager, soft::SoftMmu,
};

type Machine = SoftMmu<parking_lot::RawMutex, parking_lot::RawRwLock>;

const BROKEN: PagerError = PagerError::Io { code: 5 };
const TIMED_OUT: FaultError = FaultError::Pager(PagerError::TimedOut);

/// Keeps requests until a test takes them.
#[derive(Default)]
struct Patient(Mutex<BTreeMap<u64, ReadRequest>>);

impl Patient {
    fn take(&self, page: u64) -> ReadRequest {
        self.0.lock().unwrap().remove(&page).unwrap()
    }

    fn answer(&self, page: u64) {
        let mut request = self.take(page);
        assert_eq!(request.page().number(), page);
        request.bytes().fill(1);
        request.complete(Ok(()));
    }

    fn waiting(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl Pager for Patient {
    fn read(&self, _page: ObjectPage, _into: &mut [u8]) -> Result<(), PagerError> {
        unreachable!("it completes later")
    }

    fn completes_later(&self) -> bool {
        true
    }

    fn start_read(&self, request: ReadRequest) {
        let page = request.page().number();
        assert!(self.0.lock().unwrap().insert(page, request).is_none(), "two calls for a page");
    }

    fn write(&self, _page: ObjectPage, _from: &[u8]) -> Result<(), PagerError> {
        Ok(())
    }

    fn discard(&self, _pages: ObjectSpan) -> Result<(), PagerError> {
        Ok(())
    }
}

/// Blocks: runs a step in each read, which does what other threads would do meanwhile.
#[derive(Default)]
struct Blocking(Mutex<Option<Step>>);

type Step = Box<dyn FnOnce() -> Result<(), PagerError> + Send>;

impl Pager for Blocking {
    fn read(&self, _page: ObjectPage, into: &mut [u8]) -> Result<(), PagerError> {
        into.fill(1);
        let step = self.0.lock().unwrap().take();
        step.map_or(Ok(()), |step| step())
    }

    fn write(&self, _page: ObjectPage, _from: &[u8]) -> Result<(), PagerError> {
        Ok(())
    }

    fn discard(&self, _pages: ObjectSpan) -> Result<(), PagerError> {
        Ok(())
    }
}

/// Two spaces show the same file of eight pages, a third one zeros.
struct World<P> {
    manager: Manager<Machine>,
    pager: Arc<P>,
    file: Object<Machine>,
    one: AddressSpace<Machine>,
    two: AddressSpace<Machine>,
    zeros: AddressSpace<Machine>,
}

impl<P: Pager + Default + 'static> World<P> {
    fn new(settings: Settings) -> Self {
        Self::with_idle(settings, |_| unreachable!("one thread alone would wait"))
    }

    fn with_idle(settings: Settings, idle: fn(u32)) -> Self {
        let manager = Manager::new(SoftMmu::new(16, 100, idle), settings).unwrap();
        let pager = Arc::<P>::default();
        let file = manager.object(Kind::File, Pages(8), Arc::clone(&pager) as _).unwrap();
        let zeros = manager.object(Kind::Anonymous, Pages(8), Arc::new(ZeroPager)).unwrap();
        let [one, two, zeros] = [&file, &file, &zeros].map(|object| {
            let space = manager.space(span(8)).unwrap();
            let placement = Placement::Fixed(VirtualPage::new(0));
            space.map(object, MapRequest { placement, ..MapRequest::new(Pages(8)) }).unwrap();
            space
        });
        Self { manager, pager, file, one, two, zeros }
    }

    fn state(&self, page: u64) -> State {
        self.file.state(ObjectPage::new(page)).unwrap()
    }

    fn wakes(&self) -> u64 {
        self.manager.mmu().wakes()
    }

    fn failed(&self) -> [u64; 2] {
        [&self.one, &self.two].map(|space| space.totals().faults.failed)
    }
}

fn span(pages: u64) -> VirtualSpan {
    VirtualSpan::new(VirtualPage::new(0), Pages(pages)).unwrap()
}

fn read(space: &AddressSpace<Machine>, page: u64) -> Fault {
    space.fault(VirtualPage::new(page), Access::Read, Context::Normal)
}

fn one_worker() -> Settings {
    Settings { paging: 1, ..Settings::default() }
}

/// The bug: a pager that never answered one fault held a worker for ever, and with one worker everybody.
#[test]
fn a_pager_that_never_answers_for_a_page_holds_up_nothing_else() {
    let it = World::<Patient>::new(one_worker());
    assert_eq!([read(&it.one, 0), read(&it.two, 0), read(&it.one, 1)], [Fault::Pulsed; 3]);
    while it.manager.serve() {}
    assert_eq!((it.pager.waiting(), it.manager.pulses(), it.wakes()), (2, 3, 0));
    // Another page of the same space, and another space.
    it.pager.answer(1);
    assert_eq!(read(&it.zeros, 5), Fault::Pulsed);
    while it.manager.serve() {}
    assert_eq!((it.state(1), it.manager.pulses(), it.wakes()), (State::Clean, 2, 2));
    it.pager.answer(0);
    while it.manager.serve() {}
    assert_eq!((it.state(0), it.manager.pulses(), it.wakes()), (State::Clean, 0, 4));
    assert_eq!(read(&it.two, 0), Fault::Resolved);
    assert_eq!(it.manager.mmu().violations(), []);
}

#[test]
fn a_request_that_is_dropped_fails_exactly_those_who_wait_for_its_page() {
    let it = World::<Patient>::new(one_worker());
    let faults = [read(&it.one, 0), read(&it.two, 0), read(&it.one, 1), read(&it.two, 2)];
    assert_eq!(faults, [Fault::Pulsed; 4]);
    while it.manager.serve() {}
    drop(it.pager.take(0));
    assert_eq!((it.state(0), it.failed(), it.wakes()), (State::Bad, [1, 1], 2));
    it.pager.take(1).complete(Err(BROKEN));
    assert_eq!((it.state(1), it.failed(), it.wakes()), (State::Bad, [2, 1], 3));
    assert_eq!((it.state(2), it.manager.pulses()), (State::Filling, 1));
    // The next fault asks again.
    assert_eq!(read(&it.two, 0), Fault::Pulsed);
    while it.manager.serve() {}
    it.pager.answer(0);
    it.pager.answer(2);
    while it.manager.serve() {}
    assert_eq!((it.manager.resident(), it.manager.pulses(), it.wakes()), (Pages(2), 0, 5));
}

#[test]
fn a_request_that_is_completed_after_the_object_was_cut_or_dropped_changes_nothing() {
    let it = World::<Patient>::new(Settings { budget: Pages(2), ..one_worker() });
    assert_eq!([read(&it.one, 3), read(&it.one, 7)], [Fault::Pulsed; 2]);
    while it.manager.serve() {}
    it.file.resize(Pages(4)).unwrap();
    assert_eq!((it.failed(), it.wakes(), it.manager.pulses()), ([1, 0], 1, 1));
    it.file.resize(Pages(8)).unwrap();
    // The new page is zeros, also after the late answer.
    let cpu = it.manager.mmu().cpu();
    let mut byte = [9];
    cpu.read(&it.manager, &it.one, 7 * 16, &mut byte).unwrap();
    it.pager.answer(7);
    assert_eq!((byte, it.state(7)), ([0], State::Clean));
    cpu.read(&it.manager, &it.one, 7 * 16, &mut byte).unwrap();
    // Its page, and the place of page 3.
    assert_eq!((byte, it.manager.resident()), ([0], Pages(2)));

    let World { manager, pager, file, one, two, zeros } = it;
    drop((file, one, two, zeros));
    assert_eq!(manager.resident(), Pages(0));
    pager.answer(3);
    assert_eq!((manager.resident(), manager.mmu().frames_left()), (Pages(0), 100));
    assert_eq!((manager.mmu().violations(), pager.waiting()), (vec![], 0));
}

/// A thread without a pulse waits: here its first wait brings the answer.
#[test]
fn a_lock_waits_for_a_request_and_gets_its_error() {
    static PAGER: Mutex<Option<Arc<Patient>>> = Mutex::new(None);
    let it = World::<Patient>::with_idle(Settings::default(), |_| {
        let pager = PAGER.lock().unwrap().clone().unwrap();
        let page = *pager.0.lock().unwrap().keys().next().unwrap();
        if page == 5 { pager.take(5).complete(Err(BROKEN)) } else { pager.answer(page) }
    });
    *PAGER.lock().unwrap() = Some(Arc::clone(&it.pager));
    it.one.lock(span(2)).unwrap();
    assert_eq!((it.manager.resident(), it.pager.waiting()), (Pages(2), 0));
    let (at, error) = (VirtualPage::new(5), FaultError::Pager(BROKEN));
    assert_eq!(it.one.lock(span(8)), Err(Error::Fault { at, error }));
    *PAGER.lock().unwrap() = None;
}

#[test]
fn a_request_that_takes_too_long_fails_its_waiters_once() {
    let settings = Settings { patience: Some(1), budget: Pages(1), ..one_worker() };
    let it = World::<Patient>::new(settings);
    assert_eq!([read(&it.one, 0), read(&it.two, 0)], [Fault::Pulsed; 2]);
    while it.manager.serve() {}
    it.manager.tick();
    assert_eq!((it.state(0), it.wakes()), (State::Filling, 0));
    it.manager.tick();
    assert_eq!((it.state(0), it.failed(), it.wakes()), (State::Bad, [1, 1], 2));
    // The pager is not asked again while it may be at work, and holds no place in the budget.
    assert_eq!([read(&it.one, 0), read(&it.two, 0)], [Fault::Failed(TIMED_OUT); 2]);
    assert_eq!(
        it.one.lock(span(1)).unwrap_err(),
        Error::Fault { at: VirtualPage::new(0), error: TIMED_OUT }
    );
    assert_eq!((it.manager.resident(), it.manager.stuck()), (Pages(0), 0));
    // A late answer is right.
    it.pager.answer(0);
    assert_eq!((it.state(0), it.manager.resident()), (State::Clean, Pages(1)));
    assert_eq!(read(&it.two, 0), Fault::Resolved);
    assert_eq!((it.wakes(), it.manager.pulses()), (2, 0));
}

#[test]
fn a_late_answer_without_a_place_in_the_budget_is_dropped() {
    let settings = Settings { patience: Some(0), budget: Pages(1), ..one_worker() };
    let it = World::<Patient>::new(settings);
    assert_eq!(read(&it.one, 0), Fault::Pulsed);
    assert!(it.manager.serve());
    it.manager.tick();
    assert_eq!(read(&it.zeros, 0), Fault::Pulsed);
    assert!(it.manager.serve());
    it.pager.answer(0);
    assert_eq!((it.state(0), it.manager.resident()), (State::Bad, Pages(1)));
    // The next fault asks again.
    assert_eq!(read(&it.one, 0), Fault::Pulsed);
    assert!(it.manager.serve());
    it.pager.answer(0);
    while it.manager.serve() {}
    assert_eq!((it.state(0), it.wakes()), (State::Clean, 3));
    assert_eq!(it.manager.mmu().frames_left(), 99);
}

#[test]
fn an_object_with_four_calls_that_took_too_long_is_not_asked_for_more() {
    let it = World::<Patient>::new(Settings { patience: Some(0), ..one_worker() });
    for page in 0..4 {
        assert_eq!(read(&it.one, page), Fault::Pulsed);
    }
    while it.manager.serve() {}
    it.manager.tick();
    assert_eq!(read(&it.one, 4), Fault::Pulsed);
    while it.manager.serve() {}
    assert_eq!((it.pager.waiting(), it.failed(), it.wakes()), (4, [5, 0], 5));
    it.pager.answer(2);
    assert_eq!(read(&it.one, 4), Fault::Pulsed);
    while it.manager.serve() {}
    assert_eq!((it.pager.waiting(), it.state(4)), (4, State::Filling));
    // Overdue calls for pages that are cut off are not waited for, and hold nothing.
    it.file.resize(Pages(0)).unwrap();
    assert_eq!((it.manager.resident(), it.manager.pulses()), (Pages(0), 0));
    [0, 1, 3, 4].into_iter().for_each(|page| it.pager.answer(page));
    assert_eq!(it.manager.mmu().frames_left(), 100);
}

/// The bug: those who faulted on a page waited as long as the call of its pager took.
#[test]
fn a_call_that_blocks_too_long_fails_its_waiters_and_fills_the_page_when_it_returns() {
    let it = World::<Blocking>::new(Settings { patience: Some(0), ..one_worker() });
    let (manager, one, two) = (it.manager.clone(), it.one.clone(), it.two.clone());
    assert_eq!(read(&it.one, 0), Fault::Pulsed);
    *it.pager.0.lock().unwrap() = Some(Box::new(move || {
        assert_eq!(read(&two, 0), Fault::Pulsed);
        assert!(manager.serve());
        manager.tick();
        assert_eq!((manager.mmu().wakes(), manager.pulses(), manager.stuck()), (2, 0, 1));
        assert_eq!([read(&one, 0), read(&two, 0)], [Fault::Failed(TIMED_OUT); 2]);
        Ok(())
    }));
    assert!(it.manager.serve());
    assert_eq!((it.wakes(), it.failed(), it.manager.stuck()), (2, [1, 1], 0));
    assert_eq!((it.state(0), read(&it.two, 0)), (State::Clean, Fault::Resolved));
}

#[test]
fn a_call_that_fails_after_it_took_too_long_leaves_the_page_to_the_next_fault() {
    let it = World::<Blocking>::new(Settings { patience: Some(0), ..one_worker() });
    let (manager, file) = (it.manager.clone(), it.file.clone());
    assert_eq!([read(&it.one, 0), read(&it.one, 7)], [Fault::Pulsed; 2]);
    *it.pager.0.lock().unwrap() = Some(Box::new(move || {
        manager.tick();
        Err(BROKEN)
    }));
    assert!(it.manager.serve());
    assert_eq!((it.wakes(), it.failed(), it.state(0)), (1, [1, 0], State::Bad));
    // A cut waits for a call in time, and for none that has taken too long.
    let manager = it.manager.clone();
    *it.pager.0.lock().unwrap() = Some(Box::new(move || {
        manager.tick();
        file.resize(Pages(2)).unwrap();
        Ok(())
    }));
    assert!(it.manager.serve());
    assert_eq!((it.wakes(), it.failed(), it.manager.stuck()), (2, [2, 0], 0));
    assert_eq!(read(&it.one, 0), Fault::Pulsed);
    assert!(it.manager.serve());
    assert_eq!((it.state(0), it.manager.resident(), it.wakes()), (State::Clean, Pages(1), 3));
    assert_eq!(it.manager.mmu().violations(), []);
}
