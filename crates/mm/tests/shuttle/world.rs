//! Shared by the scenarios: a manager with a small budget, a pager that notices misuse, and checks for when all threads
//! have finished.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use commonhold_mm::{
    AddressSpace, Kind, Manager, MapRequest, Object, ObjectPage, ObjectSpan, Pager, PagerError,
    Pages, Placement, Settings, State, VirtualPage, VirtualSpan, Writable,
    soft::{Cpu, SoftMmu},
};
use lock_api::Mutex;
use shuttle::{
    Config, MaxSteps, Runner,
    scheduler::{PctScheduler, RandomScheduler},
};

use crate::locks::{ShuttleMutex, ShuttleRwLock};

pub(crate) type Machine = SoftMmu<ShuttleMutex, ShuttleRwLock>;
pub(crate) type Processor = Cpu<ShuttleMutex>;

/// Bytes in a page.
pub(crate) const PAGE: u64 = 8;
/// Pages of memory that the machine has; budgets are smaller.
const FRAMES: u32 = 8;
/// A scenario that takes more steps than this counts as one that does not end.
const STEPS: usize = 50_000;
/// Schedules of each scenario, half of them chosen by each scheduler.
const SCHEDULES: usize = 100_000;

/// Runs `scenario` in many schedules: half at random, half with few changes of priority (PCT), which find bugs that
/// need a few switches at certain places. `COMMONHOLD_SCHEDULES` overrides how many.
pub(crate) fn check(scenario: fn()) {
    let asked = std::env::var("COMMONHOLD_SCHEDULES").ok();
    let schedules = asked.map_or(SCHEDULES, |asked| asked.parse().unwrap());
    let mut config = Config::new();
    config.max_steps = MaxSteps::FailAfter(STEPS);
    config.silence_warnings = true;
    let begin = Instant::now();
    let random = RandomScheduler::new(schedules.div_ceil(2));
    let mut ran = Runner::new(random, config.clone()).run(scenario);
    ran += Runner::new(PctScheduler::new(3, schedules / 2), config).run(scenario);
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    println!("{name}: {ran} schedules, {} ms", begin.elapsed().as_millis());
}

/// Keeps what is written, and panics if two calls for one page overlap.
pub(crate) struct Store {
    /// Every byte of a page that was never written.
    initial: u8,
    contents: Mutex<ShuttleMutex, Contents>,
}

#[derive(Default)]
struct Contents {
    pages: BTreeMap<u64, Vec<u8>>,
    busy: BTreeSet<u64>,
    /// How many of the next reads fail.
    failing_reads: u32,
    /// How many of the next writes fail.
    failing_writes: u32,
}

impl Store {
    pub(crate) fn new(initial: u8) -> Arc<Self> {
        Arc::new(Self { initial, contents: Mutex::new(Contents::default()) })
    }

    pub(crate) fn fail_reads(&self, reads: u32) {
        self.contents.lock().failing_reads = reads;
    }

    pub(crate) fn fail_writes(&self, writes: u32) {
        self.contents.lock().failing_writes = writes;
    }

    /// The contents of a page.
    pub(crate) fn kept(&self, page: u64) -> Vec<u8> {
        let contents = self.contents.lock();
        contents.pages.get(&page).cloned().unwrap_or(vec![self.initial; PAGE as usize])
    }

    fn work<R>(&self, page: ObjectPage, act: impl FnOnce(&mut Contents) -> R) -> R {
        let page = page.number();
        assert!(self.contents.lock().busy.insert(page), "two calls for page {page} at once");
        let mut contents = self.contents.lock();
        contents.busy.remove(&page);
        act(&mut contents)
    }
}

impl Pager for Store {
    fn read(&self, page: ObjectPage, into: &mut [u8]) -> Result<(), PagerError> {
        self.work(page, |contents| {
            fail(&mut contents.failing_reads)?;
            match contents.pages.get(&page.number()) {
                Some(bytes) => into.copy_from_slice(bytes),
                None => into.fill(self.initial),
            }
            Ok(())
        })
    }

    fn write(&self, page: ObjectPage, from: &[u8]) -> Result<(), PagerError> {
        self.work(page, |contents| {
            fail(&mut contents.failing_writes)?;
            contents.pages.insert(page.number(), from.to_vec());
            Ok(())
        })
    }

    fn discard(&self, pages: ObjectSpan) -> Result<(), PagerError> {
        let numbers = || pages.first().number()..pages.end().number();
        for page in numbers() {
            assert!(self.contents.lock().busy.insert(page), "two calls for page {page} at once");
        }
        let mut contents = self.contents.lock();
        for page in numbers() {
            contents.busy.remove(&page);
            contents.pages.insert(page, vec![0; PAGE as usize]);
        }
        Ok(())
    }
}

fn fail(left: &mut u32) -> Result<(), PagerError> {
    let failing = *left > 0;
    *left = left.saturating_sub(1);
    if failing { Err(PagerError::Io { code: 5 }) } else { Ok(()) }
}

pub(crate) fn span(first: u64, pages: u64) -> VirtualSpan {
    VirtualSpan::new(VirtualPage::new(first), Pages(pages)).unwrap()
}

/// `pages` pages at `at`, from page `offset` of the object on.
pub(crate) fn fixed(at: u64, offset: u64, pages: u64) -> MapRequest {
    MapRequest {
        placement: Placement::Fixed(VirtualPage::new(at)),
        offset: ObjectPage::new(offset),
        ..MapRequest::new(Pages(pages))
    }
}

/// A manager. Clones are the same one.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) manager: Manager<Machine>,
}

impl World {
    pub(crate) fn new(budget: u64, pulses: usize) -> Self {
        Self::with(Settings { budget: Pages(budget), pulses, ..Settings::default() })
    }

    pub(crate) fn with(settings: Settings) -> Self {
        let mmu = SoftMmu::new(PAGE as usize, FRAMES, |_| shuttle::thread::yield_now());
        Self { manager: Manager::new(mmu, settings).unwrap() }
    }

    pub(crate) fn space(&self) -> AddressSpace<Machine> {
        self.manager.space(span(0, 8)).unwrap()
    }

    /// A file.
    pub(crate) fn object(&self, pages: u64, store: &Arc<Store>) -> Object<Machine> {
        self.manager.object(Kind::File, Pages(pages), Arc::clone(store) as _).unwrap()
    }

    pub(crate) fn cpu(&self) -> Processor {
        self.manager.mmu().cpu()
    }

    /// The first byte of a page, by a processor that remembers nothing.
    pub(crate) fn look(&self, space: &AddressSpace<Machine>, page: u64) -> u8 {
        let mut byte = [0];
        self.cpu().read(&self.manager, space, page * PAGE, &mut byte).unwrap();
        byte[0]
    }

    /// Checks what must be true at the end: no pulse is left, each accepted pulse has had its wake, no page is stuck
    /// between two states, memory is counted correctly, only dirty pages can be written to, and the machine reports
    /// no violation.
    pub(crate) fn check(&self, spaces: &[&AddressSpace<Machine>], objects: &[&Object<Machine>]) {
        while self.manager.serve() {}
        let mmu = self.manager.mmu();
        assert_eq!(mmu.violations(), []);
        assert_eq!(self.manager.pulses(), 0);
        let faults = spaces.iter().map(|space| space.totals().faults);
        let (ended, accepted) = faults.fold((0, 0), |(ended, accepted), f| {
            (ended + f.served + f.failed + f.cancelled, accepted + f.pulsed)
        });
        assert_eq!(mmu.wakes(), ended, "one wake for each pulse");
        assert!(ended <= accepted, "{ended} pulses served of {accepted}");
        let mut resident = 0;
        for object in objects {
            for page in 0..object.pages().0 {
                let state = object.state(ObjectPage::new(page)).unwrap();
                assert!(!matches!(state, State::Filling | State::Evicting), "{page} is {state:?}");
            }
            resident += object.totals().resident.0;
        }
        assert_eq!(self.manager.resident(), Pages(resident));
        assert_eq!(mmu.frames_left(), i64::from(FRAMES) - resident as i64);
        for (space, at) in spaces.iter().flat_map(|space| (0..8).map(move |at| (space, at))) {
            let at = VirtualPage::new(at);
            let writable = mmu.translation(space.machine(), at).map(|t| t.writable);
            if writable == Some(Writable::Yes) {
                assert_eq!(space.query(at).unwrap().state, Some(State::Dirty), "at {at:?}");
            }
        }
    }

    /// As [`check`](Self::check), when nothing is left.
    pub(crate) fn check_empty(&self) {
        while self.manager.serve() {}
        let mmu = self.manager.mmu();
        assert_eq!(mmu.violations(), []);
        assert_eq!((self.manager.pulses(), self.manager.resident()), (0, Pages(0)));
        assert_eq!(mmu.frames_left(), i64::from(FRAMES));
    }
}

/// The first `pages` pages of an object.
pub(crate) fn whole(pages: u64) -> ObjectSpan {
    ObjectSpan::new(ObjectPage::new(0), Pages(pages)).unwrap()
}

/// Evicts up to two pages, in a thread.
pub(crate) fn page_out(world: &World) -> shuttle::thread::JoinHandle<()> {
    let world = world.clone();
    shuttle::thread::spawn(move || {
        world.manager.page_out(Pages(1));
        world.manager.page_out(Pages(1));
    })
}
