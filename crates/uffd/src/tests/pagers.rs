//! Pagers that answer late or never, and pagers that touch what they must not.

use super::{
    failures::try_get,
    scripted_process::{ScriptedProcess, say},
    *,
};
use commonhold_mm::ReadRequest;
use parking_lot::{Condvar, Mutex};
use std::{os::unix::process::ExitStatusExt, sync::OnceLock};

/// Keeps its requests until it is told to answer.
#[derive(Default)]
struct Patient {
    requests: Mutex<Vec<ReadRequest>>,
    came: Condvar,
}

impl Pager for Patient {
    fn read(&self, _: ObjectPage, _: &mut [u8]) -> Result<(), PagerError> {
        unreachable!("it completes later")
    }

    fn completes_later(&self) -> bool {
        true
    }

    fn start_read(&self, request: ReadRequest) {
        self.requests.lock().push(request);
        self.came.notify_all();
    }

    fn write(&self, _: ObjectPage, _: &[u8]) -> Result<(), PagerError> {
        Ok(())
    }

    fn discard(&self, _: ObjectSpan) -> Result<(), PagerError> {
        Ok(())
    }
}

/// The bug: two faults on a pager that did not answer took all workers.
#[test]
fn a_pager_that_completes_later_holds_no_worker() {
    let Ok(paging) = Paging::start(budget(100), 1) else { return };
    let manager = paging.manager();
    let pager = Arc::new(Patient::default());
    let late = manager.object(Kind::File, Pages(8), Arc::clone(&pager) as _).unwrap();
    let file = manager.object(Kind::File, Pages(8), Arc::new(Moody::default())).unwrap();
    let [space, other] = [&late, &file].map(|object| {
        let space = paging.space(Pages(8)).unwrap();
        space.map(object, fixed(0, 8)).unwrap();
        space
    });
    std::thread::scope(|scope| {
        let space = &space;
        let waiting: Vec<_> = (0..8).map(|page| scope.spawn(move || get(space, page))).collect();
        let mut requests = pager.requests.lock();
        pager.came.wait_while(&mut requests, |requests| requests.len() < 8);
        // The one worker is free.
        assert_eq!(get(&other, 0), 0x0707_0707_0707_0707);
        for mut request in requests.drain(..) {
            request.bytes().fill(9);
            request.complete(Ok(()));
        }
        for waiting in waiting {
            assert_eq!(waiting.join().unwrap(), 0x0909_0909_0909_0909);
        }
    });
    assert_eq!(memory(&late), 8);
}

/// The bug: a pager that never returned held its worker, and with it all who needed one, for ever.
#[test]
fn a_pager_that_does_not_return_in_time_fails_its_faults_and_gets_no_other_worker() {
    let settings = Settings { patience: Some(0), ..budget(100) };
    let Ok(paging) = Paging::start(settings, 1) else { return };
    let manager = paging.manager();
    if manager.mmu().is_user_mode_only() {
        return eprintln!("note: not tested: faults of the kernel itself are not served here");
    }
    let pager = Arc::new(Moody::default());
    let slow = manager.object(Kind::File, Pages(4), Arc::clone(&pager) as _).unwrap();
    let file = manager.object(Kind::File, Pages(4), Arc::new(Moody::default())).unwrap();
    let space = paging.space(Pages(8)).unwrap();
    space.map(&slow, fixed(0, 4)).unwrap();
    space.map(&file, fixed(4, 4)).unwrap();
    let closed = pager.gate.write().unwrap();
    try_get(&space, 0).unwrap_err();
    assert_eq!(slow.state(ObjectPage::new(0)), Some(State::Bad));
    // The one worker is still in the pager.
    assert_eq!((get(&space, 4), manager.stuck()), (0x0707_0707_0707_0707, 1));
    try_get(&space, 0).unwrap_err();
    drop(closed);
    // The page comes in when the call returns, and its poison goes a moment later.
    while try_get(&space, 0).is_err() {
        std::thread::yield_now();
    }
    assert_eq!((get(&space, 0), manager.stuck()), (0x0707_0707_0707_0707, 0));
    assert_eq!(slow.totals().filled, 1);
}

/// The bug: such a pager waited for a worker, which in the end was its own.
#[test]
fn a_pager_that_touches_managed_memory_gets_sigbus_and_is_named() {
    let Some(_) = start(budget(100)) else { return };
    let (said, status) = ScriptedProcess::play("reentrant").rest();
    assert_eq!(status.signal(), Some(libc::SIGBUS), "{said}");
    let named = "commonhold: the pager that runs in the thread commonhold-pager (";
    assert!(said.lines().any(|line| line.starts_with(named)), "{said}");
    assert!(!said.contains("@served"), "{said}");
}

static SPACE: OnceLock<PagedSpace> = OnceLock::new();

/// Reads another page of the space in each call.
struct Reentrant;

impl Pager for Reentrant {
    fn read(&self, page: ObjectPage, into: &mut [u8]) -> Result<(), PagerError> {
        let other = get(SPACE.get().unwrap(), 4 + page.number());
        into.fill(other.to_le_bytes()[0]);
        Ok(())
    }

    fn write(&self, _: ObjectPage, _: &[u8]) -> Result<(), PagerError> {
        Ok(())
    }

    fn discard(&self, _: ObjectSpan) -> Result<(), PagerError> {
        Ok(())
    }
}

pub(super) fn touch_managed_memory() {
    // SAFETY: `dup2` wants two descriptors: the test reads only the standard output.
    assert_eq!(unsafe { libc::dup2(1, 2) }, 2);
    let paging = Paging::start(budget(100), 3).unwrap();
    let manager = paging.manager();
    let file = manager.object(Kind::File, Pages(4), Arc::new(Reentrant)).unwrap();
    let other = manager.object(Kind::File, Pages(4), Arc::new(Moody::default())).unwrap();
    let space = paging.space(Pages(8)).unwrap();
    space.map(&file, fixed(0, 4)).unwrap();
    space.map(&other, fixed(4, 4)).unwrap();
    let space = SPACE.get_or_init(|| space);
    assert_eq!(get(space, 0), 0x0707_0707_0707_0707);
    say("served");
}
