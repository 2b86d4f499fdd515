//! Pagers that answer from another thread, or too late.

use std::sync::Arc;

use commonhold_mm::{
    FaultError, Kind, ObjectPage, ObjectSpan, Pager, PagerError, Pages, ReadRequest, Settings,
};
use lock_api::Mutex;
use shuttle::thread;

use crate::{
    locks::ShuttleMutex,
    world::{PAGE, Store, World, check, fixed},
};

const TIMED_OUT: Result<(), FaultError> = Err(FaultError::Pager(PagerError::TimedOut));

/// Reads as sevens, when it is told to.
struct Patient(Mutex<ShuttleMutex, Vec<ReadRequest>>);

impl Patient {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Vec::new())))
    }

    /// Answers the latest request. `false` if there is none.
    fn answer(&self) -> bool {
        let request = self.0.lock().pop();
        let Some(mut request) = request else { return false };
        request.bytes().fill(7);
        request.complete(Ok(()));
        true
    }
}

impl Pager for Patient {
    fn read(&self, _: ObjectPage, _: &mut [u8]) -> Result<(), PagerError> {
        unreachable!("it completes later")
    }

    fn completes_later(&self) -> bool {
        true
    }

    fn start_read(&self, request: ReadRequest) {
        let mut requests = self.0.lock();
        assert!(requests.iter().all(|other| other.page() != request.page()), "two at once");
        requests.push(request);
    }

    fn write(&self, _: ObjectPage, _: &[u8]) -> Result<(), PagerError> {
        Ok(())
    }

    fn discard(&self, _: ObjectSpan) -> Result<(), PagerError> {
        Ok(())
    }
}

#[test]
fn faults_wait_for_an_answer_that_another_thread_gives() {
    check(|| {
        let world = World::new(2, 4);
        let pager = Patient::new();
        let object = world.manager.object(Kind::File, Pages(2), Arc::clone(&pager) as _).unwrap();
        let (one, two) = (world.space(), world.space());
        one.map(&object, fixed(0, 0, 2)).unwrap();
        two.map(&object, fixed(4, 0, 2)).unwrap();
        let (theirs, target) = (world.clone(), two.clone());
        let reader = thread::spawn(move || [4, 5].map(|page| theirs.look(&target, page)));
        let answers = thread::spawn(move || {
            let mut left = 2;
            while left > 0 {
                left -= u32::from(pager.answer());
                thread::yield_now();
            }
        });
        assert_eq!(world.look(&one, 0), 7);
        assert_eq!(reader.join().unwrap(), [7, 7]);
        answers.join().unwrap();
        assert_eq!(object.totals().filled, 2);
        world.check(&[&one, &two], &[&object]);
    });
}

#[test]
fn a_request_ends_once_whether_it_is_answered_or_late_or_cut_off() {
    check(|| {
        let settings = Settings { patience: Some(0), pulses: 4, ..Settings::default() };
        let world = World::with(Settings { budget: Pages(1), ..settings });
        let pager = Patient::new();
        let object = world.manager.object(Kind::File, Pages(1), Arc::clone(&pager) as _).unwrap();
        let space = world.space();
        space.map(&object, fixed(0, 0, 1)).unwrap();
        let (theirs, target) = (world.clone(), space.clone());
        let reader =
            thread::spawn(move || theirs.cpu().read(&theirs.manager, &target, 0, &mut [0]));
        let (theirs, answers) = (world.clone(), Arc::clone(&pager));
        let clock = thread::spawn(move || {
            answers.answer();
            theirs.manager.tick();
        });
        object.resize(Pages(0)).unwrap();
        clock.join().unwrap();
        let read = reader.join().unwrap();
        assert!([Ok(()), TIMED_OUT, Err(FaultError::PastEnd)].contains(&read), "{read:?}");
        while pager.answer() {}
        world.check(&[&space], &[&object]);
    });
}

#[test]
fn a_call_that_blocks_ends_its_pulse_once_whether_it_is_late_or_not() {
    check(|| {
        let settings = Settings { patience: Some(0), pulses: 4, ..Settings::default() };
        let world = World::with(Settings { budget: Pages(1), ..settings });
        let object = world.object(2, &Store::new(7));
        let (one, two) = (world.space(), world.space());
        one.map(&object, fixed(0, 0, 2)).unwrap();
        two.map(&object, fixed(4, 0, 2)).unwrap();
        let (theirs, target) = (world.clone(), two.clone());
        let reader =
            thread::spawn(move || theirs.cpu().read(&theirs.manager, &target, 4 * PAGE, &mut [0]));
        let theirs = world.clone();
        let clock = thread::spawn(move || (0..2).for_each(|_| theirs.manager.tick()));
        let mine = world.cpu().write(&world.manager, &one, PAGE, &[9]);
        clock.join().unwrap();
        for end in [mine, reader.join().unwrap()] {
            assert!([Ok(()), TIMED_OUT].contains(&end), "{end:?}");
        }
        assert_eq!((world.look(&two, 4), world.manager.stuck()), (7, 0));
        world.check(&[&one, &two], &[&object]);
    });
}
