//! Random programs of several threads at once: what a thread reads is always what it wrote last, or an error.
//!
//! Each thread has a word of its own in each page, so it knows what it must read, whatever the others do. Beside them
//! one thread evicts, and one writes back. Each run uses another seed; a failure names it, and `COMMONHOLD_MODEL_SEED`
//! uses it again, though not the same schedule.

use super::{
    by_kernel,
    model::{is_usable, seed, time},
    *,
};
use commonhold_mm_model::Random;
use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

/// Pages of the object. All of it is mapped twice, and each thread maps parts of it elsewhere.
const PAGES: u64 = 40;
/// Pages that may be in memory.
const BUDGET: u64 = 24;
const THREADS: u64 = 3;
/// Where the object is mapped.
const PLACES: [u64; 2] = [0, 64];
/// Where the first thread maps parts for a short time; the next one does 16 pages further on.
const FLEETING: u64 = 128;
/// How long a test takes, and how many steps a thread does at least.
const TIME: Duration = Duration::from_secs(3);
const LEAST: u64 = 300;

/// A pager that fails now and then, if it is told to.
struct Flaky {
    pager: Arc<FilePager>,
    random: Mutex<Random>,
    fails: AtomicBool,
}

impl Flaky {
    fn may_fail(&self) -> Result<(), PagerError> {
        let unlucky = || self.random.lock().unwrap().chance(1, 20);
        if self.fails.load(Ordering::Relaxed) && unlucky() { Err(FAILURE) } else { Ok(()) }
    }
}

impl Pager for Flaky {
    fn read(&self, page: ObjectPage, into: &mut [u8]) -> Result<(), PagerError> {
        self.may_fail()?;
        self.pager.read(page, into)
    }

    fn write(&self, page: ObjectPage, from: &[u8]) -> Result<(), PagerError> {
        self.may_fail()?;
        // Others run, and write to the page meanwhile.
        let turns = self.random.lock().unwrap().below(8);
        (0..turns).for_each(|_| std::thread::yield_now());
        self.pager.write(page, from)
    }

    fn discard(&self, pages: ObjectSpan) -> Result<(), PagerError> {
        self.pager.discard(pages)
    }

    fn flush(&self) -> Result<(), PagerError> {
        self.may_fail()?;
        self.pager.flush()
    }
}

/// How a thread accesses memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// By loads and stores. A page that cannot be brought in would end the process.
    Instructions,
    /// By system calls, which return errors.
    Calls,
}

/// What all threads use.
struct Storm {
    paging: Paging,
    space: PagedSpace,
    object: Object<UffdMmu>,
    pager: Arc<Flaky>,
    by: By,
    /// Writers that have not ended.
    left: AtomicU64,
    end: Instant,
}

/// One thread's view: its words hold these values.
struct Writer<'s> {
    storm: &'s Storm,
    number: u64,
    random: Random,
    values: Vec<u64>,
    failures: u64,
}

impl Writer<'_> {
    /// Whether errors of the pager excuse the result.
    fn may_fail(&self) -> bool {
        self.storm.by == By::Calls
    }

    fn load(&mut self, at: u64, page: u64) {
        let (space, number) = (&self.storm.space, self.number);
        let read = match self.storm.by {
            By::Instructions => word(space, at, number).load(Ordering::Relaxed),
            By::Calls => {
                let mut bytes = [0; 8];
                let offset = usize::try_from(number * 8).unwrap();
                match by_kernel::load(space, VirtualPage::new(at), offset, &mut bytes) {
                    Ok(()) => u64::from_le_bytes(bytes),
                    Err(_) => return self.failures += 1,
                }
            }
        };
        let expected = self.values[usize::try_from(page).unwrap()];
        assert_eq!(read, expected, "thread {number} reads page {page} at {at}");
    }

    fn store(&mut self, at: u64, page: u64) {
        let (space, number, value) = (&self.storm.space, self.number, self.random.bits());
        match self.storm.by {
            By::Instructions => word(space, at, number).store(value, Ordering::Relaxed),
            By::Calls => {
                let offset = usize::try_from(number * 8).unwrap();
                let bytes = value.to_le_bytes();
                if by_kernel::store(space, VirtualPage::new(at), offset, &bytes).is_err() {
                    return self.failures += 1;
                }
            }
        }
        self.values[usize::try_from(page).unwrap()] = value;
    }

    fn access(&mut self, at: u64, page: u64) {
        if self.random.chance(1, 2) { self.store(at, page) } else { self.load(at, page) }
    }

    /// An operation had to succeed, unless pagers fail.
    fn done<T>(&self, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(done) => Some(done),
            Err(
                Error::NoMemory | Error::Fault { .. } | Error::Pager { .. } | Error::Flush { .. },
            ) if self.may_fail() => None,
            Err(error) => panic!("thread {}: {error}", self.number),
        }
    }

    fn step(&mut self) {
        let page = self.random.below(PAGES - 4);
        let place = PLACES[self.random.index(PLACES.len())];
        let (space, part) = (&self.storm.space, span(place + page, 3));
        match self.random.below(40) {
            0 => drop(self.done(space.advise(part, Advice::DontNeed))),
            1 => drop(self.done(space.advise(part, Advice::WillNeed))),
            2 => drop(self.done(space.sync(part))),
            3 if self.done(space.lock(part)).is_some() => {
                self.access(place + page, page);
                // Others may have locked a part of it, and lose that: locks are not counted.
                self.done(self.storm.space.unlock(part));
            }
            4 => self.map_and_access(page),
            _ => self.access(place + page, page),
        }
    }

    /// Maps four pages elsewhere, accesses one, takes rights away, reads it again, and unmaps them.
    fn map_and_access(&mut self, page: u64) {
        let space = &self.storm.space;
        let (at, nearby) = (FLEETING + self.number * 16, self.random.below(4));
        let request = MapRequest { offset: ObjectPage::new(page), ..fixed(at, 4) };
        if self.done(space.map(&self.storm.object, request)).is_none() {
            return;
        }
        self.access(at + nearby, page + nearby);
        let space = &self.storm.space;
        if self.done(space.protect(span(at, 4), Protection::Read)).is_some() {
            self.load(at + nearby, page + nearby);
        }
        self.done(self.storm.space.unmap(span(at, 4)));
    }

    fn run(mut self) -> (Vec<u64>, u64) {
        for step in 0.. {
            if step >= LEAST && Instant::now() >= self.storm.end {
                break;
            }
            self.step();
        }
        (self.values, self.failures)
    }
}

/// Calls a function when it is dropped, also by a panic.
struct Ending<F: FnMut()>(F);

impl<F: FnMut()> Drop for Ending<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Does something again and again while there are writers. Returns how often.
fn while_written(storm: &Storm, mut act: impl FnMut()) -> u64 {
    let mut count = 0;
    while storm.left.load(Ordering::Relaxed) > 0 {
        act();
        count += 1;
    }
    count
}

fn storm(by: By) {
    if !is_usable() {
        return;
    }
    let seed = seed().unwrap_or_else(|any| any);
    let paging = start(budget(BUDGET)).unwrap();
    let file = file_in_memory();
    let (random, fails) = (Mutex::new(Random::new(seed)), AtomicBool::new(by == By::Calls));
    let pager = Arc::new(Flaky { pager: pager_of(&file), random, fails });
    let manager = paging.manager();
    let object = manager.object(Kind::File, Pages(PAGES), Arc::clone(&pager) as _).unwrap();
    let space = paging.space(Pages(256)).unwrap();
    for at in PLACES {
        space.map(&object, fixed(at, PAGES)).unwrap();
    }
    let (left, end) = (AtomicU64::new(THREADS), Instant::now() + time(TIME));
    let storm = &Storm { paging, space, object, pager, by, left, end };
    let whole = Span::new(ObjectPage::new(0), Pages(PAGES)).unwrap();
    let results: Vec<(Vec<u64>, u64)> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..THREADS)
            .map(|number| {
                scope.spawn(move || {
                    let _ending = Ending(|| _ = storm.left.fetch_sub(1, Ordering::Relaxed));
                    let values = vec![0; usize::try_from(PAGES).unwrap()];
                    let random = Random::new(seed.wrapping_add(number));
                    Writer { storm, number, random, values, failures: 0 }.run()
                })
            })
            .collect();
        let evictor = scope.spawn(|| {
            let mut random = Random::new(seed.wrapping_add(100));
            while_written(storm, || {
                _ = storm.paging.manager().page_out(Pages(random.below(8)));
            })
        });
        let written_back = while_written(storm, || {
            let synced = storm.object.sync(whole);
            assert!(synced.is_ok() || by == By::Calls, "{synced:?}");
        });
        let evictions = evictor.join().unwrap();
        assert!(evictions > 0 && written_back > 0);
        let joined = writers.into_iter().map(|writer| {
            writer.join().unwrap_or_else(|_| panic!("seed {seed}, see above for what is wrong"))
        });
        joined.collect()
    });
    storm.pager.fails.store(false, Ordering::Relaxed);
    check_all(storm, &results, &file);
    let totals = storm.object.totals();
    eprintln!("seed {seed}: {totals:?}, {:?}", storm.space.totals().faults);
    assert!(totals.evicted > 0 && totals.written > 0, "nothing raced: {totals:?}");
    let failures: u64 = results.iter().map(|(_, failures)| failures).sum();
    assert_eq!(failures > 0, by == By::Calls, "{failures} accesses failed");
}

/// Reads a page whose last failure may be a moment ago, or still be told: a pulse of a thread that has gone on with the
/// failure of another one poisons the page once more. There are few of those.
fn load_now(space: &PagedSpace, at: VirtualPage, offset: usize, into: &mut [u8]) {
    for tries in 0.. {
        while !space.machine().reservation.heal(at) {
            std::thread::yield_now();
        }
        match by_kernel::load(space, at, offset, into) {
            Ok(()) => return,
            Err(error) => assert!(tries < 100, "{error}, after {tries} tries"),
        }
    }
}

/// Reads everything in all places, and in the file after a last `sync`.
fn check_all(storm: &Storm, results: &[(Vec<u64>, u64)], file: &File) {
    for (number, (values, _)) in (0..).zip(results) {
        for (page, value) in (0..).zip(values) {
            for place in PLACES {
                let at = VirtualPage::new(place + page);
                let mut bytes = [0; 8];
                let offset = usize::try_from(number * 8).unwrap();
                load_now(&storm.space, at, offset, &mut bytes);
                assert_eq!(u64::from_le_bytes(bytes), *value, "thread {number}, page {page}");
            }
        }
    }
    storm.object.sync(Span::new(ObjectPage::new(0), Pages(PAGES)).unwrap()).unwrap();
    for (number, (values, _)) in (0_u64..).zip(results) {
        for (page, value) in (0_u64..).zip(values) {
            let mut bytes = [0; 8];
            // The file ends behind the last word that is not zero.
            file.read_at(&mut bytes, page * page_size() + number * 8).unwrap();
            assert_eq!(
                u64::from_le_bytes(bytes),
                *value,
                "thread {number}, page {page} in the file"
            );
        }
    }
}

#[test]
fn threads_read_what_they_wrote_last() {
    storm(By::Instructions);
}

#[test]
fn threads_read_what_they_wrote_last_or_get_an_error_of_the_pager() {
    storm(By::Calls);
}
