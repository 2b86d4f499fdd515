//! The programs of `commonhold-mm-model` on this machine: the checker works in one thread, the machine's threads serve
//! the faults.
//!
//! Each run tries other programs; a failure names the seed of its program, and `COMMONHOLD_MODEL_SEED` runs that one
//! again. A mistake can also end the process by a signal, since half of the accesses are plain loads and stores: then
//! the seed is the last one in the output of `--nocapture`.

use super::{by_kernel, *};
use commonhold_mm::{FaultError, Manager, Mmu, Writable};
use commonhold_mm_model::{
    FIRST, Failing, Machine, Outlook, Touch, Touched, Translated, run_failing,
};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

/// Steps of a program.
const STEPS: usize = 45;
/// How long programs of a kind are run, and how many at least.
const TIME: Duration = Duration::from_secs(2);
const LEAST: u64 = 5;
/// How often an access is tried: poison of an earlier failure may come late.
const TRIES: u32 = 3;

/// Bits of an entry of `/proc/self/pagemap`.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const MARKED: u64 = 1 << 57;

/// This machine, as the checker sees it.
struct Kernel {
    paging: Option<Paging>,
    /// The spaces by their first addresses.
    spaces: RefCell<BTreeMap<usize, PagedSpace>>,
    pagemap: File,
    /// Counts accesses: half of those that must succeed are plain loads and stores.
    accesses: Cell<u64>,
}

impl Kernel {
    fn new() -> Self {
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let (spaces, accesses) = (RefCell::default(), Cell::new(0));
        Self { paging: None, spaces, pagemap, accesses }
    }

    /// Makes pages that could not be served missing ones again.
    fn heal(space: &AddressSpace<UffdMmu>) {
        for at in space.span().iter() {
            while !space.machine().reservation.heal(at) {
                std::thread::yield_now();
            }
        }
    }

    /// Loads or stores by plain instructions, which fault if they must.
    fn plainly(&self, space: &AddressSpace<UffdMmu>, at: VirtualPage, touch: Touch<'_>) {
        let spaces = self.spaces.borrow();
        let window = spaces[&base(space)].window();
        let first = (at.number() - FIRST) * page_size();
        let place = |offset: usize| Offset::new(first + u64::try_from(offset).unwrap()).unwrap();
        match touch {
            Touch::Read { offset, into } => window.read(place(offset), into).unwrap(),
            Touch::Write { offset, from } => window.write(place(offset), from).unwrap(),
            Touch::Execute => {}
        }
    }
}

fn base(space: &AddressSpace<UffdMmu>) -> usize {
    space.machine().reservation.base().as_ptr().addr()
}

impl Machine for Kernel {
    type Mmu = UffdMmu;

    fn start(&mut self, settings: Settings) -> Result<Manager<UffdMmu>, Error> {
        self.spaces.get_mut().clear();
        let paging = Paging::start(settings, 2).unwrap();
        let manager = paging.manager().clone();
        self.paging = Some(paging);
        Ok(manager)
    }

    fn touch(
        &self,
        _cpu: usize,
        space: &AddressSpace<UffdMmu>,
        at: VirtualPage,
        mut touch: Touch<'_>,
        outlook: Outlook,
    ) -> Touched {
        if !space.span().contains(at) {
            // These addresses are not the space's.
            return Touched::Failed(Some(FaultError::NotMapped));
        }
        let count = self.accesses.replace(self.accesses.get() + 1);
        // A worker has ended a pulse a moment before it poisons the page of one that failed.
        let none_failed = space.totals().faults.failed == 0;
        if outlook == Outlook::Succeeds && none_failed && count.is_multiple_of(2) {
            self.plainly(space, at, touch);
            return Touched::Done;
        }
        for _ in 0..TRIES {
            let done = match &mut touch {
                Touch::Read { offset, into } => by_kernel::load(space, at, *offset, into),
                Touch::Write { offset, from } => by_kernel::store(space, at, *offset, from),
                Touch::Execute => return Touched::Unable,
            };
            if done.is_ok() {
                return Touched::Done;
            }
            space.machine().reservation.heal(at);
        }
        Touched::Failed(None)
    }

    fn open(
        &self,
        _manager: &Manager<UffdMmu>,
        span: VirtualSpan,
    ) -> Result<AddressSpace<UffdMmu>, Error> {
        let space = self.paging.as_ref().unwrap().space_at(span)?;
        let handle = AddressSpace::clone(&space);
        self.spaces.borrow_mut().insert(base(&handle), space);
        Ok(handle)
    }

    fn close(&self, space: AddressSpace<UffdMmu>) {
        let paged = self.spaces.borrow_mut().remove(&base(&space));
        let reservation = Arc::downgrade(&space.machine().reservation);
        drop(space);
        drop(paged);
        // A worker that has served a pulse of the space may have it a moment longer, and end it then.
        while reservation.strong_count() > 0 {
            std::thread::yield_now();
        }
    }

    fn serves_itself(&self) -> bool {
        true
    }

    fn settle(&self) {
        while self.paging.as_ref().unwrap().manager().pulses() > 0 {
            std::thread::yield_now();
        }
        self.spaces.borrow().values().for_each(|space| Self::heal(space));
    }

    fn translation(&self, space: &AddressSpace<UffdMmu>, at: VirtualPage) -> Translated {
        if !space.span().contains(at) {
            return Translated::Nothing;
        }
        let page = u64::try_from(base(space)).unwrap() / page_size() + at.number() - FIRST;
        let mut entry = [0; 8];
        self.pagemap.read_exact_at(&mut entry, page * 8).unwrap();
        match u64::from_le_bytes(entry) {
            entry if entry & PRESENT != 0 => {
                let writable = if entry & MARKED == 0 { Writable::Yes } else { Writable::No };
                Translated::Memory { protection: None, writable }
            }
            // Without a mark: the kernel moves the page at the moment.
            entry if entry & SWAPPED != 0 && entry & MARKED == 0 => Translated::Unknown,
            _ => Translated::Nothing,
        }
    }

    fn memory(&self, object: &<UffdMmu as Mmu>::Object, page: ObjectPage, into: &mut [u8]) -> bool {
        object.read(page, 0, into).is_ok()
    }

    fn violations(&self) -> Vec<String> {
        let panics = self.paging.as_ref().unwrap().panics();
        if panics == 0 { Vec::new() } else { vec![format!("{panics} panics of workers")] }
    }
}

/// How long tests of random programs take: a given time, or as long as somebody wants to wait.
pub(super) fn time(usual: Duration) -> Duration {
    let wanted = std::env::var("COMMONHOLD_TEST_SECONDS").ok();
    wanted.and_then(|text| text.parse().ok()).map_or(usual, Duration::from_secs)
}

/// The seed that somebody wants to repeat, or another one each time.
pub(super) fn seed() -> Result<u64, u64> {
    let wanted = std::env::var("COMMONHOLD_MODEL_SEED").ok();
    let wanted = wanted.and_then(|text| text.parse().ok());
    wanted.map_or_else(|| Err(RandomState::new().hash_one(0_u8) >> 1), Ok)
}

/// Whether the machine can be used, also by system calls; otherwise says why not.
pub(super) fn is_usable() -> bool {
    let Some(paging) = start(Settings::default()) else { return false };
    let by_program_only = paging.manager().mmu().is_user_mode_only();
    if by_program_only {
        eprintln!("note: not tested: faults of the kernel itself are not served here");
    }
    !by_program_only
}

fn programs(failing: Failing) {
    if !is_usable() {
        return;
    }
    let (first, least, time) = match seed() {
        Ok(seed) => (seed, 1, Duration::ZERO),
        Err(any) => (any, LEAST, time(TIME)),
    };
    let (mut kernel, begin) = (Kernel::new(), Instant::now());
    for seed in first.. {
        if seed >= first + least && begin.elapsed() >= time {
            return eprintln!("{} programs", seed - first);
        }
        eprintln!("seed {seed}");
        if let Err(failure) = run_failing(&mut kernel, seed, STEPS, failing) {
            panic!("program {}: {failure}", 1 + seed - first);
        }
    }
}

#[test]
fn programs_do_what_the_model_does() {
    programs(Failing::Nothing);
}

#[test]
fn no_failure_of_a_pager_loses_a_page_or_leaves_one_stuck() {
    programs(Failing::Pagers);
}
