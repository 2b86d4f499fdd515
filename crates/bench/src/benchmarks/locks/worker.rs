//! A worker process of `bench locks`: opens a lock, and runs the loops that the coordinator asks for.

use std::{
    fs,
    hint::black_box,
    io,
    sync::{
        self,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use commonhold::Access;

use commonhold_console::{
    child,
    clock::now_ns,
    failure::{Doing, Failure, broken},
    output::Out,
    session::Session,
};
use rustix::thread::disable_transparent_huge_pages;

use super::{
    lock::{AGAIN, COUNT, Counters, Found, LIFE, Lock, OurMutex, OurRegion, Words},
    protocol::{How, Request, answer},
};
use crate::{
    args::{BenchLock, LockWorkerArgs},
    benchmarks::peers::{self, Start},
};

/// The size of a normal page.
const PAGE: usize = 4096;

/// How often the lock is taken between two checks of the clock.
const BATCH: u64 = 500;

/// Runs the worker: opens the lock, and serves requests.
pub(crate) fn worker(session: &Session, args: &LockWorkerArgs) -> Result<(), Failure> {
    let out = session.out;
    if !child::die_with(args.parent).doing(|| "bind to the parent".to_owned())? {
        return Err(Failure { code: 1, message: None });
    }
    // Before the first answer, so that no later request waits until the memory has been touched.
    let _memory = resident(args.resident)?;
    let what = || format!("{:?} in {}", args.lock, args.place.display());
    let start = if args.make { Start::Make } else { Start::Open };
    let place = args.place.as_path();
    match args.lock {
        BenchLock::OurMutex | BenchLock::OurRegion => ours(session, args),
        BenchLock::PthreadPlain => serve(&peers::plain_mutex(place, start).doing(what)?, out),
        BenchLock::PthreadRobust => serve(&peers::robust_mutex(place, start).doing(what)?, out),
        BenchLock::PthreadRwlock => serve(&peers::RwLock::at(place, start).doing(what)?, out),
        BenchLock::Futex => serve(&peers::Futex::at(place, start).doing(what)?, out),
        BenchLock::StdMutex => serve(&sync::Mutex::new(Words::default()), out),
        BenchLock::StdRwlock => serve(&sync::RwLock::new(Words::default()), out),
        BenchLock::ParkingLotMutex => serve(&parking_lot::Mutex::new(Words::default()), out),
        BenchLock::ParkingLotRwlock => serve(&parking_lot::RwLock::new(Words::default()), out),
        BenchLock::BoostMutex | BenchLock::BoostSharable => {
            Err(broken("the locks of Boost belong to another program"))
        }
    }
}

fn ours(session: &Session, args: &LockWorkerArgs) -> Result<(), Failure> {
    let space = session.open()?;
    let what = || "map the region".to_owned();
    let mapping = space.map(&args.place.to_string_lossy(), Access::ReadWrite).doing(what)?;
    if args.lock == BenchLock::OurMutex {
        serve(&OurMutex::new(&mapping)?, session.out)?;
    } else {
        serve(&OurRegion::new(&mapping)?, session.out)?;
    }
    mapping.unmap().doing(|| "unmap the region".to_owned())
}

/// Takes this much private memory and touches each page. Transparent huge pages are switched off: the kernel frees
/// a few large pages much faster than many small ones, and the result would depend on the settings of the machine.
fn resident(bytes: u64) -> Result<Vec<u8>, Failure> {
    let mut memory = Vec::new();
    if bytes > 0 {
        let what = || format!("take {bytes} bytes of memory");
        let size = usize::try_from(bytes).map_err(io::Error::other).doing(what)?;
        disable_transparent_huge_pages(true).map_err(io::Error::from).doing(what)?;
        // If there is not enough memory, this is an error; `vec!` would abort.
        Vec::<u8>::new().try_reserve_exact(size).map_err(io::Error::other).doing(what)?;
        memory = vec![0; size];
        // One byte in each page: writing all bytes takes seconds in a debug build.
        memory.chunks_mut(PAGE).filter_map(<[u8]>::first_mut).for_each(|byte| *byte = 1);
    }
    Ok(black_box(memory))
}

/// The next request; `None` at the end of the input.
fn hear() -> Result<Option<Request>, Failure> {
    let mut line = String::new();
    let length = io::stdin().read_line(&mut line).doing(|| "read a request".to_owned())?;
    (length > 0).then(|| line.trim_end().parse().map_err(broken)).transpose()
}

/// Answers requests until the end of the input.
fn serve(lock: &(impl Lock + Sync), out: Out) -> Result<(), Failure> {
    let say = |numbers: &[u64]| out.line(&answer(Ok(numbers)));
    say(&[])?;
    loop {
        let done = match hear() {
            Ok(None) => return Ok(()),
            Ok(Some(Request::Leave)) => leave(lock, &say),
            Ok(Some(request)) => perform(lock, request, &say),
            Err(failure) => Err(failure),
        };
        match done {
            Ok(numbers) => say(&numbers)?,
            Err(failure) => {
                out.line(&answer(Err(&failure.message.unwrap_or_default())))?;
            }
        }
    }
}

/// Takes the lock in a new thread. When told to, that thread reads the clock and ends, still holding the lock.
fn leave(
    lock: &(impl Lock + Sync),
    say: &(impl Fn(&[u64]) -> Result<(), Failure> + Sync),
) -> Result<Vec<u64>, Failure> {
    thread::scope(|scope| {
        let owner = scope.spawn(|| {
            lock.keep()?;
            say(&[])?;
            match hear()? {
                Some(Request::Go) => Ok(vec![now_ns()]),
                other => Err(broken(format!("expected the request `go`, got {other:?}"))),
            }
        });
        owner.join().map_err(|_| broken("the owner panicked"))?
    })
}

fn perform(
    lock: &impl Lock,
    request: Request,
    say: &impl Fn(&[u64]) -> Result<(), Failure>,
) -> Result<Vec<u64>, Failure> {
    match request {
        Request::Solo { how, ns } => solo(lock, how, ns),
        Request::Write { from, until, pause_ns } => write(lock, from, until, pause_ns),
        Request::Read { from, until } => read(lock, from, until),
        Request::Pass { side, times, keep_ns } => pass(lock, side, times, keep_ns),
        Request::Hold => {
            lock.write(|_| {
                say(&[])?;
                thread::sleep(LIFE);
                Ok(())
            })?;
            Err(broken("nobody killed the holder"))
        }
        Request::Await => {
            say(&[])?;
            let mut at = 0;
            let found = lock.write(|_| {
                at = now_ns();
                Ok(())
            })?;
            Ok(vec![u64::from(found == Found::OwnerDied), at])
        }
        Request::Count => count(lock),
        Request::Leave | Request::Go => Err(broken("this request needs a thread of its own")),
    }
}

fn solo(lock: &impl Lock, how: How, ns: u64) -> Result<Vec<u64>, Failure> {
    match how {
        How::Read => solo_read(lock, ns),
        How::Write => solo_write(lock, ns),
    }
}

/// Increments a number under the lock, since a lock that protects nothing is not realistic. Not inlined, like the
/// functions below: in one large function the loop would have too few registers.
#[inline(never)]
fn solo_write(lock: &impl Lock, ns: u64) -> Result<Vec<u64>, Failure> {
    let (number, began) = (AtomicU64::new(0), now_ns());
    // The compiler must assume that other threads see the number, so it writes every change.
    let counted = black_box(&number);
    loop {
        for _ in 0..BATCH {
            // Relaxed: the lock orders it.
            lock.write(|_| {
                counted.store(counted.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                Ok(())
            })?;
        }
        let took = now_ns().saturating_sub(began);
        if took >= ns {
            return Ok(vec![counted.load(Ordering::Relaxed), took]);
        }
    }
}

/// Reads a number under the shared lock.
#[inline(never)]
fn solo_read(lock: &impl Lock, ns: u64) -> Result<Vec<u64>, Failure> {
    let (one, mut times, began) = (AtomicU64::new(1), 0, now_ns());
    let number = black_box(&one);
    loop {
        for _ in 0..BATCH {
            lock.read(|_| {
                // Relaxed: as above.
                times += number.load(Ordering::Relaxed);
                Ok(())
            })?;
        }
        let took = now_ns().saturating_sub(began);
        if took >= ns {
            return Ok(vec![times, took]);
        }
    }
}

#[inline(never)]
fn write(lock: &impl Lock, from: u64, until: u64, pause_ns: u64) -> Result<Vec<u64>, Failure> {
    sleep_until(from);
    let (mut times, mut longest, mut asked) = (0, 0, now_ns());
    while asked < until {
        let mut got = asked;
        let found = lock.write(|counters| {
            got = now_ns();
            let count = counters.get(COUNT).wrapping_add(1);
            counters.set(COUNT, count);
            counters.set(AGAIN, count);
            Ok(())
        })?;
        if found == Found::OwnerDied {
            return Err(broken("the lock says that an owner died, but none did"));
        }
        longest = longest.max(got.saturating_sub(asked));
        times += 1;
        if pause_ns > 0 {
            thread::sleep(Duration::from_nanos(pause_ns));
        }
        asked = now_ns();
    }
    Ok(vec![times, longest])
}

#[inline(never)]
fn read(lock: &impl Lock, from: u64, until: u64) -> Result<Vec<u64>, Failure> {
    const BETWEEN_LOOKS: u64 = 50;
    sleep_until(from);
    let mut times = 0;
    while now_ns() < until {
        for _ in 0..BETWEEN_LOOKS {
            lock.read(|counters| match counters.get(COUNT) == counters.get(AGAIN) {
                true => Ok(()),
                false => Err(broken("a reader saw half of what a writer wrote")),
            })?;
        }
        times += BETWEEN_LOOKS;
    }
    Ok(vec![times])
}

fn count(lock: &impl Lock) -> Result<Vec<u64>, Failure> {
    let mut count = 0;
    lock.write(|counters| {
        count = counters.get(COUNT);
        Ok(())
    })?;
    Ok(vec![count])
}

fn pass(lock: &impl Lock, side: u64, times: u64, keep_ns: u64) -> Result<Vec<u64>, Failure> {
    let mut between = Vec::new();
    let mut last = None;
    for _ in 0..times {
        lock.await_turn(side)?;
        let now = now_ns();
        if let Some(last) = last.replace(now).filter(|_| side == 0) {
            between.push(now.saturating_sub(last));
        }
        // Keeps this processor busy while the other side waits.
        while now_ns().saturating_sub(now) < keep_ns {
            std::hint::spin_loop();
        }
        lock.give_turn(side)?;
    }
    Ok(between)
}

fn sleep_until(from: u64) {
    thread::sleep(Duration::from_nanos(from.saturating_sub(now_ns())));
}

/// Whether a process sleeps. A worker that has announced that it takes the lock waits for it if it sleeps.
pub(super) fn sleeps(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| says_asleep(&stat))
}

fn says_asleep(stat: &str) -> bool {
    // The name, which stands in brackets before the state, may contain any characters.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// A lock for one thread, which can pretend that its owner died.
    #[derive(Debug, Default)]
    struct Fake {
        held: Cell<bool>,
        cells: RefCell<[u64; 3]>,
        found_dead: Cell<bool>,
    }

    impl Lock for Fake {
        type Counters<'a> = Self;

        fn write(
            &self,
            inside: impl FnOnce(&Self) -> Result<(), Failure>,
        ) -> Result<Found, Failure> {
            assert!(!self.held.replace(true));
            inside(self)?;
            self.held.set(false);
            Ok(if self.found_dead.get() { Found::OwnerDied } else { Found::Clean })
        }

        fn read(&self, inside: impl FnOnce(&Self) -> Result<(), Failure>) -> Result<(), Failure> {
            self.write(inside).map(drop)
        }
    }

    impl Counters for Fake {
        fn get(&self, counter: usize) -> u64 {
            assert!(self.held.get());
            self.cells.borrow()[counter]
        }

        fn set(&self, counter: usize, value: u64) {
            assert!(self.held.get());
            self.cells.borrow_mut()[counter] = value;
        }
    }

    fn ask(lock: &Fake, request: Request) -> Result<Vec<u64>, Failure> {
        perform(lock, request, &|_| Ok(()))
    }

    fn a_moment() -> u64 {
        now_ns() + 2_000_000
    }

    #[test]
    fn every_turn_of_a_writer_is_counted() {
        let lock = Fake::default();
        let write = Request::Write { from: 0, until: a_moment(), pause_ns: 0 };
        let numbers = ask(&lock, write).unwrap();
        assert!(numbers[0] > 0);
        assert_eq!(ask(&lock, Request::Count).unwrap(), [numbers[0]]);
        let over = Request::Write { from: 0, until: 0, pause_ns: 0 };
        assert_eq!(ask(&lock, over).unwrap(), [0, 0]);
    }

    #[test]
    fn a_reader_that_sees_half_a_write_says_so() {
        let lock = Fake::default();
        assert!(ask(&lock, Request::Read { from: 0, until: a_moment() }).unwrap()[0] > 0);
        lock.cells.borrow_mut()[AGAIN] = 1;
        ask(&lock, Request::Read { from: 0, until: a_moment() }).unwrap_err();
    }

    #[test]
    fn await_reports_a_death_and_write_fails_after_one() {
        let lock = Fake::default();
        assert_eq!(ask(&lock, Request::Await).unwrap()[0], 0);
        lock.found_dead.set(true);
        assert_eq!(ask(&lock, Request::Await).unwrap()[0], 1);
        ask(&lock, Request::Write { from: 0, until: a_moment(), pause_ns: 0 }).unwrap_err();
    }

    #[test]
    fn the_memory_of_a_worker_is_resident() {
        let before = resident_pages();
        let memory = resident(64 << 20).unwrap();
        assert!(resident_pages() >= before + (60 << 20) / 4096, "not resident");
        drop(memory);
        resident(u64::MAX).unwrap_err();
    }

    fn resident_pages() -> usize {
        let text = fs::read_to_string("/proc/self/statm").unwrap();
        text.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn a_solo_lasts_as_long_as_requested() {
        for how in [How::Read, How::Write] {
            let numbers = ask(&Fake::default(), Request::Solo { how, ns: 1_000 }).unwrap();
            assert!(numbers[0] >= BATCH && numbers[1] >= 1_000, "{numbers:?}");
        }
    }

    #[test]
    fn what_a_lock_cannot_do_is_an_error() {
        ask(&Fake::default(), Request::Pass { side: 0, times: 1, keep_ns: 0 }).unwrap_err();
    }

    #[test]
    fn a_sleeping_process_is_recognized_by_its_state_and_not_by_its_name() {
        assert!(says_asleep("7 (commonhold) S 1 7 7"));
        assert!(!says_asleep("7 (odd) S) R 1 7 7"));
        assert!(!says_asleep(""));
    }
}
