//! Several clients of one manager: a slow, failing or panicking pager of one space, and its many faults, hurt no other.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
};

use commonhold_mm::{
    Access, AddressSpace, Context, Error, Fault, FaultError, Kind, Manager, MapRequest, Object,
    ObjectPage, ObjectSpan, Pager, PagerError, Pages, Placement, Settings, State, VirtualPage,
    VirtualSpan, ZeroPager, soft::SoftMmu,
};

type Machine = SoftMmu<parking_lot::RawMutex, parking_lot::RawRwLock>;
type Step = Box<dyn FnOnce() -> Result<(), PagerError> + Send>;

/// Runs one step for each read, in their order, and then reads as zeros.
#[derive(Default)]
struct Steps(Mutex<Vec<Step>>);

impl Steps {
    fn then(&self, step: impl FnOnce() -> Result<(), PagerError> + Send + 'static) {
        self.0.lock().unwrap().insert(0, Box::new(step));
    }
}

impl Pager for Steps {
    fn read(&self, _page: ObjectPage, into: &mut [u8]) -> Result<(), PagerError> {
        into.fill(0);
        let step = self.0.lock().unwrap().pop();
        step.map_or(Ok(()), |step| step())
    }

    fn write(&self, _page: ObjectPage, _from: &[u8]) -> Result<(), PagerError> {
        Ok(())
    }

    fn discard(&self, _pages: ObjectSpan) -> Result<(), PagerError> {
        Ok(())
    }
}

/// One space shows a file of eight pages, another eight pages of zeros.
struct Clients {
    manager: Manager<Machine>,
    pager: Arc<Steps>,
    file: Object<Machine>,
    slow: AddressSpace<Machine>,
    other: AddressSpace<Machine>,
}

impl Clients {
    fn new(settings: Settings) -> Self {
        let idle = |_| unreachable!("one thread alone would wait");
        let manager = Manager::new(SoftMmu::new(16, 100, idle), settings).unwrap();
        let pager = Arc::<Steps>::default();
        let file = manager.object(Kind::File, Pages(8), Arc::clone(&pager) as _).unwrap();
        let zeros = manager.object(Kind::Anonymous, Pages(8), Arc::new(ZeroPager)).unwrap();
        let [slow, other] = [&file, &zeros].map(|object| {
            let space = manager.space(VirtualSpan::new(at(0), Pages(8)).unwrap()).unwrap();
            let placement = Placement::Fixed(at(0));
            space.map(object, MapRequest { placement, ..MapRequest::new(Pages(8)) }).unwrap();
            space
        });
        Self { manager, pager, file, slow, other }
    }

    fn resident(&self) -> [Pages; 2] {
        [&self.slow, &self.other].map(|space| space.totals().resident)
    }
}

fn at(page: u64) -> VirtualPage {
    VirtualPage::new(page)
}

fn read(space: &AddressSpace<Machine>, page: u64) -> Fault {
    space.fault(at(page), Access::Read, Context::Normal)
}

/// The bug: one queue for all, in the order of the faults.
#[test]
fn a_space_with_many_faults_delays_another_by_one() {
    let it = Clients::new(Settings::default());
    (0..8).for_each(|page| assert_eq!(read(&it.slow, page), Fault::Pulsed));
    assert_eq!(read(&it.other, 0), Fault::Pulsed);
    assert!(it.manager.serve() && it.manager.serve());
    assert_eq!(it.resident(), [Pages(1), Pages(1)]);
}

/// The bug: one bound for all, so a space could fill the queue.
#[test]
fn a_space_that_has_as_many_pulses_as_it_may_leaves_the_queue_of_another_empty() {
    let it = Clients::new(Settings { pulses: 2, ..Settings::default() });
    let faults = [0, 1, 2].map(|page| read(&it.slow, page));
    assert_eq!(faults, [Fault::Pulsed, Fault::Pulsed, Fault::Full]);
    assert_eq!(read(&it.other, 0), Fault::Pulsed);
}

/// The bug: two faults on a pager that takes 3 s, with two workers, made a fill with zeros in another space take 2.9 s.
#[test]
fn faults_of_a_slow_pager_take_no_more_workers_than_settings_say() {
    let it = Clients::new(Settings { paging: 1, ..Settings::default() });
    (0..3).for_each(|page| assert_eq!(read(&it.slow, page), Fault::Pulsed));
    let (manager, other) = (it.manager.clone(), it.other.clone());
    it.pager.then(move || {
        // A second worker, while the pager takes its time.
        assert!(!manager.serve(), "the space has one pulse with the pager already");
        assert_eq!(read(&other, 0), Fault::Pulsed);
        assert!(manager.serve());
        assert_eq!(other.totals().resident, Pages(1));
        Ok(())
    });
    assert!(it.manager.serve());
    assert_eq!(it.resident(), [Pages(1), Pages(1)]);
    // The next one of the space has its turn now.
    assert!(it.manager.serve());
    assert_eq!(it.resident(), [Pages(2), Pages(1)]);
}

#[test]
fn a_worker_of_memory_alone_leaves_pulses_that_need_a_pager_to_others() {
    let it = Clients::new(Settings::default());
    assert_eq!([read(&it.slow, 0), read(&it.other, 0)], [Fault::Pulsed; 2]);
    it.pager.then(|| unreachable!("the pager was called"));
    assert!(it.manager.serve_memory());
    assert!(!it.manager.serve_memory());
    assert_eq!((it.resident(), it.manager.pulses()), ([Pages(0), Pages(1)], 1));
    it.pager.0.lock().unwrap().clear();
    assert!(it.manager.serve_paging());
    assert_eq!((it.resident(), it.manager.pulses()), ([Pages(1), Pages(1)], 0));
}

/// A pulse that was sent because a lock was not free may turn out to need a pager.
#[test]
fn a_pulse_that_turns_out_to_need_a_pager_is_passed_on() {
    let it = Clients::new(Settings::default());
    assert_eq!(read(&it.slow, 0), Fault::Pulsed);
    assert!(it.manager.serve());
    let one = ObjectSpan::one(ObjectPage::new(0));
    let mut fault = None;
    // The walk holds the object's lock.
    it.file.walk(one, |_| fault = Some(read(&it.slow, 1)));
    assert_eq!(fault, Some(Fault::Pulsed));
    assert!(it.manager.serve_memory(), "looked at");
    assert_eq!((it.resident()[0], it.manager.pulses()), (Pages(1), 1));
    assert!(!it.manager.serve_memory());
    assert!(it.manager.serve_paging());
    assert_eq!((it.resident()[0], it.manager.pulses()), (Pages(2), 0));
}

/// The bug: an object that was locked was reported as a space that is not super-locked.
#[test]
fn a_lock_that_is_not_free_is_reported_where_no_fault_may_happen() {
    let it = Clients::new(Settings::default());
    let fault = || it.slow.fault(at(0), Access::Read, Context::NoFault);
    assert_eq!(fault(), Fault::Failed(FaultError::NotSuperLocked));
    assert_eq!(read(&it.slow, 0), Fault::Pulsed);
    assert!(it.manager.serve());
    let mut busy = None;
    it.file.walk(ObjectSpan::one(ObjectPage::new(0)), |_| busy = Some(fault()));
    assert_eq!(busy, Some(Fault::Failed(FaultError::Busy)));
}

/// The bug: the page stayed `Filling`, its place in the budgets was lost, and its pulses waited for ever.
#[test]
fn a_pager_that_panics_has_failed() {
    let it = Clients::new(Settings::default());
    let (manager, slow) = (it.manager.clone(), it.slow.clone());
    it.pager.then(move || {
        // Another thread's fault on the same page is put off.
        assert_eq!(slow.fault_by(at(0), Access::Write, Context::Normal, 7), Fault::Pulsed);
        assert!(manager.serve());
        panic!("a pager that panics");
    });
    assert_eq!(read(&it.slow, 0), Fault::Pulsed);
    let panicked = catch_unwind(AssertUnwindSafe(|| it.manager.serve()));
    assert!(panicked.is_err());
    assert_eq!(it.file.state(ObjectPage::new(0)), Some(State::Bad));
    assert_eq!((it.manager.pulses(), it.manager.mmu().wakes()), (0, 2));
    assert_eq!((it.slow.totals().faults.failed, it.manager.resident()), (2, Pages(0)));
    // The next access tries again.
    assert_eq!(read(&it.slow, 0), Fault::Pulsed);
    assert!(it.manager.serve());
    assert_eq!(it.file.state(ObjectPage::new(0)), Some(State::Clean));
}

/// The bug: the page stayed `Evicting`, and no thread could write it or take it any more.
#[test]
fn a_pager_that_panics_while_it_writes_has_failed() {
    struct Panics;
    impl Pager for Panics {
        fn read(&self, _page: ObjectPage, into: &mut [u8]) -> Result<(), PagerError> {
            into.fill(0);
            Ok(())
        }
        fn write(&self, _page: ObjectPage, _from: &[u8]) -> Result<(), PagerError> {
            panic!("a pager that panics");
        }
        fn discard(&self, _pages: ObjectSpan) -> Result<(), PagerError> {
            Ok(())
        }
    }
    let it = Clients::new(Settings::default());
    let file = it.manager.object(Kind::File, Pages(1), Arc::new(Panics)).unwrap();
    let space = it.manager.space(VirtualSpan::new(at(0), Pages(8)).unwrap()).unwrap();
    let mapped = space.map(&file, MapRequest::new(Pages(1))).unwrap();
    let page = ObjectSpan::one(ObjectPage::new(0));
    assert_eq!(space.fault(mapped.first(), Access::Write, Context::Normal), Fault::Pulsed);
    assert!(it.manager.serve());
    assert!(catch_unwind(AssertUnwindSafe(|| file.sync(page))).is_err());
    assert_eq!(file.state(page.first()), Some(State::Dirty));
    assert!(catch_unwind(AssertUnwindSafe(|| it.manager.page_out(Pages(1)))).is_err());
    assert_eq!(file.state(page.first()), Some(State::Dirty));
    // The bug: the memory of an object whose pager panicked at its end was never given back, nor its places.
    drop(space);
    assert_eq!(it.manager.resident(), Pages(1));
    assert!(catch_unwind(AssertUnwindSafe(|| drop(file))).is_err());
    assert_eq!((it.manager.resident(), it.manager.mmu().frames_left()), (Pages(0), 100));
    let error = PagerError::Panicked;
    assert_eq!(it.manager.take_error(), Some(Error::Pager { page: page.first(), error }));
}

/// The bug: the object counted as being resized for ever, so the next resize waited for ever.
#[test]
fn a_pager_that_panics_at_a_cut_or_a_discard_lets_the_next_one_begin() {
    struct Panics;
    impl Pager for Panics {
        fn read(&self, _page: ObjectPage, into: &mut [u8]) -> Result<(), PagerError> {
            into.fill(0);
            Ok(())
        }
        fn write(&self, _page: ObjectPage, _from: &[u8]) -> Result<(), PagerError> {
            Ok(())
        }
        fn discard(&self, _pages: ObjectSpan) -> Result<(), PagerError> {
            panic!("a pager that panics");
        }
    }
    let it = Clients::new(Settings::default());
    let object = it.manager.object(Kind::Anonymous, Pages(4), Arc::new(Panics)).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| object.resize(Pages(3)))).is_err());
    assert_eq!(object.pages(), Pages(3));
    let all = ObjectSpan::new(ObjectPage::new(0), Pages(3)).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| object.discard(all))).is_err());
    object.resize(Pages(5)).unwrap();
}

#[test]
fn faults_of_two_threads_are_two_pulses_and_of_one_thread_are_one() {
    let it = Clients::new(Settings::default());
    let fault = |cookie| it.slow.fault_by(at(0), Access::Read, Context::Normal, cookie);
    assert_eq!([1, 1, 2].map(fault), [Fault::Pulsed; 3]);
    assert_eq!(it.manager.pulses(), 2);
    it.pager.then(|| Err(PagerError::Io { code: 5 }));
    assert!(it.manager.serve());
    assert_eq!((it.slow.totals().faults.failed, it.manager.pulses()), (1, 1));
    // The second thread has not seen the error of the first: its own try succeeds.
    assert!(it.manager.serve());
    assert_eq!((it.slow.totals().faults.failed, it.slow.totals().faults.served), (1, 1));
}

#[test]
fn a_translation_that_the_machine_cannot_make_at_once_is_made_by_a_worker() {
    let it = Clients::new(Settings::default());
    assert_eq!(read(&it.other, 0), Fault::Pulsed);
    assert!(it.manager.serve());
    it.manager.mmu().late_in(0);
    assert_eq!(it.other.fault(at(0), Access::Write, Context::Normal), Fault::Pulsed);
    assert!(it.manager.serve_memory());
    let translation = it.manager.mmu().translation(it.other.machine(), at(0)).unwrap();
    assert_eq!(translation.writable, commonhold_mm::Writable::Yes);
}

/// Counts its writes, and runs a step in each of the first ones, which does what other threads would do meanwhile.
#[derive(Default)]
struct SlowWrites {
    begun: Mutex<usize>,
    steps: Mutex<Vec<Step>>,
}

impl Pager for SlowWrites {
    fn read(&self, _page: ObjectPage, into: &mut [u8]) -> Result<(), PagerError> {
        into.fill(0);
        Ok(())
    }

    fn write(&self, _page: ObjectPage, _from: &[u8]) -> Result<(), PagerError> {
        *self.begun.lock().unwrap() += 1;
        let step = self.steps.lock().unwrap().pop();
        step.map_or(Ok(()), |step| step())
    }

    fn discard(&self, _pages: ObjectSpan) -> Result<(), PagerError> {
        Ok(())
    }
}

/// Six dirty pages, of an object whose pager writes slowly, and one clean page of another; a budget of seven.
fn slow_writer() -> (Clients, Arc<SlowWrites>, AddressSpace<Machine>) {
    let it = Clients::new(Settings { budget: Pages(7), patience: Some(0), ..Settings::default() });
    let pager = Arc::<SlowWrites>::default();
    let dirty = it.manager.object(Kind::Anonymous, Pages(6), Arc::clone(&pager) as _).unwrap();
    let space = it.manager.space(VirtualSpan::new(at(0), Pages(6)).unwrap()).unwrap();
    space.map(&dirty, MapRequest::new(Pages(6))).unwrap();
    for page in 0..6 {
        assert_eq!(space.fault(at(page), Access::Write, Context::Normal), Fault::Pulsed);
        assert!(it.manager.serve());
    }
    assert_eq!(read(&it.other, 0), Fault::Pulsed);
    assert!(it.manager.serve());
    (it, pager, space)
}

/// The bug: each thread that needed room began one more write of the slow pager.
#[test]
fn a_pager_with_two_writes_under_way_takes_no_third_thread_in_search_of_room() {
    let (it, pager, _keeps_the_pages) = slow_writer();
    let search = |it: &Clients| {
        let (manager, other) = (it.manager.clone(), it.other.clone());
        move |page| {
            assert_eq!(read(&other, page), Fault::Pulsed);
            assert!(manager.serve());
        }
    };
    let (second, third) = (search(&it), search(&it));
    let begun = Arc::clone(&pager);
    *pager.steps.lock().unwrap() = vec![
        Box::new(move || {
            // A third thread: it takes the clean page, and leaves the dirty ones.
            third(3);
            assert_eq!(*begun.begun.lock().unwrap(), 2);
            Ok(())
        }),
        Box::new(move || {
            second(2);
            Ok(())
        }),
    ];
    search(&it)(1);
    assert!(pager.steps.lock().unwrap().is_empty());
}

#[test]
fn a_pager_whose_write_takes_too_long_gets_no_second_thread_in_search_of_room() {
    let (it, pager, _keeps_the_pages) = slow_writer();
    let (manager, other, begun) = (it.manager.clone(), it.other.clone(), Arc::clone(&pager));
    *pager.steps.lock().unwrap() = vec![Box::new(move || {
        manager.tick();
        assert_eq!(read(&other, 2), Fault::Pulsed);
        assert!(manager.serve());
        assert_eq!(*begun.begun.lock().unwrap(), 1);
        Ok(())
    })];
    assert_eq!(read(&it.other, 1), Fault::Pulsed);
    assert!(it.manager.serve());
    assert!(pager.steps.lock().unwrap().is_empty());
}
