//! `clients`: how long a client of the memory manager waits for its pages while another client has a slow pager, on a
//! userfaultfd, against the same client alone.
//!
//! The measured client touches new pages of zeros, and pages of a file. It runs four times in turn: alone; beside a
//! client whose two threads wait for a pager that takes 3 s; alone again; beside a client of 64 threads whose pager takes
//! 5 ms.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use commonhold_console::failure::{Doing as _, Failure, broken};
use commonhold_layout::Offset;
use commonhold_mm::{
    Kind, MapRequest, Object, ObjectPage, ObjectSpan, Pager, PagerError, Pages, Placement,
    Settings, VirtualPage, ZeroPager,
};
use commonhold_uffd::{FilePager, PagedSpace, Paging, UffdMmu};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::args::BenchArgs;

use super::{
    Line,
    stats::{float, quantile},
};

/// Pages that the client touches in a round, of each kind. The rounds are short, so that what else runs on the machine
/// disturbs all situations alike.
const TOUCHES: u64 = 500;
/// Threads that may wait for pagers.
const WORKERS: usize = 4;
/// What the two slow clients have.
const LONG: Duration = Duration::from_secs(3);
const SHORT: Duration = Duration::from_millis(5);
const THREADS: u64 = 64;
/// Pages of the slow clients. The 64 threads touch fewer in a run.
const SLOW_PAGES: u64 = 1 << 20;

pub(super) fn clients(args: &BenchArgs) -> Result<Vec<Line>, Failure> {
    let paging = Paging::start(Settings::default(), WORKERS)
        .map_err(|error| broken(format!("no memory manager on a userfaultfd: {error}")))?;
    let client = Client::new(&paging)?;
    let many = ManyThreads::new(&paging, client.page_size)?;
    thread::scope(|scope| {
        let _over = Over(&many);
        for first in 0..THREADS {
            let many = &many;
            scope.spawn(move || many.run(first));
        }
        many.stop();
        measure(&paging, &client, &many, Duration::from_secs_f64(2.0 * args.seconds))
    })
}

fn measure(
    paging: &Paging,
    client: &Client,
    many: &ManyThreads,
    duration: Duration,
) -> Result<Vec<Line>, Failure> {
    let (mut beside_one, mut beside_many) = (Pair::default(), Pair::default());
    let began = Instant::now();
    while began.elapsed() < duration || beside_many.beside.zeros.is_empty() {
        beside_one.alone.add(client.touch_all(paging)?);
        beside_one.beside.add(beside_a_long_read(paging, client)?);
        beside_many.alone.add(client.touch_all(paging)?);
        many.go();
        let waits = client.touch_all(paging);
        many.stop();
        beside_many.beside.add(waits?);
    }
    let mut lines = beside_one.lines("a 3 s pager");
    lines.extend(beside_many.lines("64 threads, 5 ms pager"));
    Ok(lines)
}

/// What a client waited for each of its pages, in nanoseconds.
#[derive(Default)]
struct Waits {
    zeros: Vec<f64>,
    file: Vec<f64>,
}

impl Waits {
    fn add(&mut self, more: Self) {
        self.zeros.extend(more.zeros);
        self.file.extend(more.file);
    }
}

#[derive(Default)]
struct Pair {
    beside: Waits,
    alone: Waits,
}

impl Pair {
    /// Two lines for each kind of page: of the medians, and of the 99th percentiles.
    fn lines(self, other: &str) -> Vec<Line> {
        let Self { beside, alone } = self;
        let mut lines = Vec::new();
        for (kind, beside, alone) in
            [("zeros", beside.zeros, alone.zeros), ("file", beside.file, alone.file)]
        {
            for percent in [50, 99] {
                let of = |waits: &Vec<f64>| vec![quantile(waits.clone(), percent)];
                let name = format!("{kind}, p{percent}, {other}");
                lines.push(Line::new(&name, "alone", of(&beside), of(&alone)));
            }
        }
        lines
    }
}

/// The client that is measured. Nothing of it is slow.
struct Client {
    space: PagedSpace,
    file: File,
    page_size: u64,
}

impl Client {
    fn new(paging: &Paging) -> Result<Self, Failure> {
        let space = paging.space(Pages(2 * TOUCHES)).map_err(told)?;
        let file = memfd_create("commonhold-bench-pages", MemfdFlags::CLOEXEC);
        let file = File::from(file.map_err(io::Error::from).doing(|| "make a memfd".to_owned())?);
        let page_size = rustix::param::page_size() as u64;
        for page in 0..TOUCHES {
            let written = file.write_all_at(&[1], page * page_size);
            written.doing(|| "write to a memfd".to_owned())?;
        }
        Ok(Self { space, file, page_size })
    }

    /// Touches all pages of two new objects, once each.
    fn touch_all(&self, paging: &Paging) -> Result<Waits, Failure> {
        let pages = Pages(TOUCHES);
        let manager = paging.manager();
        let page_size = rustix::param::page_size();
        let file = self.file.try_clone().doing(|| "use a memfd".to_owned())?;
        let pager = FilePager::new(file, page_size).map_err(|error| broken(error.to_string()))?;
        let zeros = manager.object(Kind::Anonymous, pages, Arc::new(ZeroPager)).map_err(told)?;
        let file = manager.object(Kind::File, pages, Arc::new(pager)).map_err(told)?;
        let waits = Waits { zeros: self.touch(&zeros, 0)?, file: self.touch(&file, TOUCHES)? };
        self.space.unmap(self.space.span()).map_err(told)?;
        Ok(waits)
    }

    fn touch(&self, object: &Object<UffdMmu>, first: u64) -> Result<Vec<f64>, Failure> {
        let placement = Placement::Fixed(VirtualPage::new(first));
        let request = MapRequest { placement, ..MapRequest::new(Pages(TOUCHES)) };
        self.space.map(object, request).map_err(told)?;
        let mut waits = Vec::new();
        for page in first..first + TOUCHES {
            let began = Instant::now();
            load(&self.space, page, self.page_size)?;
            waits.push(float(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)));
        }
        Ok(waits)
    }
}

/// Reads a word of a page, and so waits until the page is in memory.
fn load(space: &PagedSpace, page: u64, page_size: u64) -> Result<(), Failure> {
    let at = Offset::new(page * page_size);
    let word = at.and_then(|at| space.window().word(at).ok());
    let word = word.ok_or_else(|| broken("a page of the space is not in its window"))?;
    std::hint::black_box(word.load(Ordering::Relaxed));
    Ok(())
}

/// Measures the client while two threads of another one wait for a read of 3 s. The read ends when the client has been
/// measured, if that is earlier.
fn beside_a_long_read(paging: &Paging, client: &Client) -> Result<Waits, Failure> {
    let pager = Arc::new(LongRead::default());
    let slow = Slow::new(paging, Arc::clone(&pager) as Arc<dyn Pager>, client.page_size)?;
    let (waits, longest) = thread::scope(|scope| {
        for page in 0..2 {
            let slow = &slow;
            scope.spawn(move || slow.load(page));
        }
        pager.await_reads(2);
        let began = Instant::now();
        let waits = client.touch_all(paging);
        let elapsed = began.elapsed();
        pager.end();
        (waits, elapsed)
    });
    if longest >= LONG {
        return Err(broken("the slow reads ended before the client had been measured"));
    }
    waits
}

/// A slow client of 64 threads. Each thread touches page after page, and its pager takes 5 ms for a page. Between the
/// rounds of the benchmark the threads stand still.
struct ManyThreads {
    slow: Slow,
    state: Mutex<ThreadsState>,
    changed: Condvar,
}

#[derive(Default)]
struct ThreadsState {
    moves: bool,
    over: bool,
    /// Threads that stand still.
    still: u64,
}

impl ManyThreads {
    fn new(paging: &Paging, page_size: u64) -> Result<Self, Failure> {
        let slow = Slow::new(paging, Arc::new(ShortRead), page_size)?;
        Ok(Self { slow, state: Mutex::default(), changed: Condvar::new() })
    }

    /// What one of its threads does. Its first page is `first`.
    fn run(&self, first: u64) {
        let mut pages = (first..SLOW_PAGES).step_by(64);
        while self.may_go_on()
            && let Some(page) = pages.next()
        {
            self.slow.load(page);
        }
    }

    /// Waits while the threads stand still; `false` if they are to end.
    fn may_go_on(&self) -> bool {
        let mut state = locked(&self.state);
        state.still += 1;
        self.changed.notify_all();
        let waited = self.changed.wait_while(state, |state| !state.moves && !state.over);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.still -= 1;
        !state.over
    }

    fn go(&self) {
        locked(&self.state).moves = true;
        self.changed.notify_all();
    }

    /// Returns when all its threads stand still.
    fn stop(&self) {
        let mut state = locked(&self.state);
        state.moves = false;
        let waited = self.changed.wait_while(state, |state| state.still < THREADS);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

/// Ends the threads when it is dropped.
struct Over<'a>(&'a ManyThreads);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        locked(&self.0.state).over = true;
        self.0.changed.notify_all();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A client with a slow pager.
struct Slow {
    space: PagedSpace,
    page_size: u64,
}

impl Slow {
    fn new(paging: &Paging, pager: Arc<dyn Pager>, page_size: u64) -> Result<Self, Failure> {
        let space = paging.space(Pages(SLOW_PAGES)).map_err(told)?;
        let object = paging.manager().object(Kind::File, Pages(SLOW_PAGES), pager).map_err(told)?;
        space.map(&object, MapRequest::new(Pages(SLOW_PAGES))).map_err(told)?;
        Ok(Self { space, page_size })
    }

    fn load(&self, page: u64) {
        // It cannot fail: the page lies in the space.
        let _ = load(&self.space, page, self.page_size);
    }
}

/// A pager. A read takes 3 s, or ends earlier if the benchmark ends all reads.
#[derive(Debug, Default)]
struct LongRead {
    /// How many reads there are, and whether they are to end.
    reads: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl LongRead {
    fn await_reads(&self, reads: usize) {
        let state = locked(&self.reads);
        let waited = self.changed.wait_while(state, |(begun, _)| *begun < reads);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn end(&self) {
        locked(&self.reads).1 = true;
        self.changed.notify_all();
    }
}

impl Pager for LongRead {
    fn read(&self, _page: ObjectPage, into: &mut [u8]) -> Result<(), PagerError> {
        into.fill(0);
        let mut state = locked(&self.reads);
        state.0 += 1;
        self.changed.notify_all();
        let waited = self.changed.wait_timeout_while(state, LONG, |(_, ended)| !*ended);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }

    fn write(&self, _page: ObjectPage, _from: &[u8]) -> Result<(), PagerError> {
        Ok(())
    }

    fn discard(&self, _pages: ObjectSpan) -> Result<(), PagerError> {
        Ok(())
    }
}

/// A pager whose reads take 5 ms.
#[derive(Debug)]
struct ShortRead;

impl Pager for ShortRead {
    fn read(&self, _page: ObjectPage, into: &mut [u8]) -> Result<(), PagerError> {
        thread::sleep(SHORT);
        into.fill(0);
        Ok(())
    }

    fn write(&self, _page: ObjectPage, _from: &[u8]) -> Result<(), PagerError> {
        Ok(())
    }

    fn discard(&self, _pages: ObjectSpan) -> Result<(), PagerError> {
        Ok(())
    }
}

fn told(error: commonhold_mm::Error) -> Failure {
    broken(format!("the memory manager says: {error}"))
}
