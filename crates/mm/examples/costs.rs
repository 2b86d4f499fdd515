//! What the memory manager's operations cost where there is much of something, as ratios to their cost where there is
//! little of it. Both are measured in turn, in one run, on the machine in software.
//!
//! `cargo run --release -p commonhold-mm --example costs`
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on ends there"
)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use commonhold_mm::{
    Access, AddressSpace, Advice, Context, Fault, Kind, Manager, MapRequest, Object, ObjectPage,
    Pages, Placement, Settings, State, VirtualPage, VirtualSpan, ZeroPager, soft::SoftMmu,
};

type Machine = SoftMmu<parking_lot::RawMutex, parking_lot::RawRwLock>;

/// How often each cost is measured, in turn with the one it is compared with. The least of each are compared: what
/// disturbs a round makes it longer only.
const ROUNDS: usize = 9;
/// How often the operation runs in a round.
const TIMES: u64 = 1_000;
/// What an operation may cost at most, in units of its cost where there is little.
const MOST: f64 = 3.0;

fn main() {
    let mut all_hold = true;
    let mut row = |what: &str, against: &str, mut much: Cost, mut little: Cost| {
        let (mut ours, mut peer) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(much());
            peer.push(little());
        }
        let (ours, peer) = (least(&ours), least(&peer));
        let ratio = ours.as_secs_f64() / peer.as_secs_f64();
        println!("{what:52} {ours:>10.1?}   {against:22} {peer:>10.1?}   ratio {ratio:5.2}");
        all_hold &= ratio <= MOST;
    };
    row("evict a page, 10,000 mappings of its object", "1 mapping", eviction(10_000), eviction(1));
    row(
        "fault that evicts, 5,000 budgets with pages",
        "1 budget",
        reclaim(5_000, 0),
        reclaim(1, 0),
    );
    row("fault that evicts, 4,999 budgets without", "1 budget", reclaim(1, 4_999), reclaim(1, 0));
    row("first touch in an object of 64 TiB", "of 64 pages", first_touch(HUGE), first_touch(64));
    row(
        "further touches all over an object of 64 TiB",
        "over 128,000 pages",
        further_touches(HUGE),
        further_touches(TIMES * 128),
    );
    for pages in [8_192, 1 << 20] {
        let what = format!("look at a page in memory, one of {pages}");
        row(&what, "one of 64", look(pages, 1), look(64, 1));
    }
    row(
        "look at a page in memory, 1,000 all over 64 TiB",
        "64 side by side",
        look(TIMES, HUGE / TIMES),
        look(64, 1),
    );
    if !all_hold {
        println!("some cost is more than {MOST} times as high where there is much");
        std::process::exit(1);
    }
}

/// 64 TiB in pages of 4 KiB.
const HUGE: u64 = 1 << 34;

/// Measures the mean of one operation, again each time.
type Cost = Box<dyn FnMut() -> Duration>;

fn least(times: &[Duration]) -> Duration {
    times.iter().min().copied().unwrap_or_default()
}

/// The mean of `times` operations. Each time `prepare` runs first, and is not counted.
fn mean(times: u64, mut prepare: impl FnMut(u64), mut operation: impl FnMut(u64)) -> Duration {
    let mut total = Duration::ZERO;
    for number in 0..times {
        prepare(number);
        let began = Instant::now();
        operation(number);
        total += began.elapsed();
    }
    total / u32::try_from(times).unwrap()
}

/// Evicts one page, which is shown once. `mappings` mappings show pages of its object, none beside its neighbour.
fn eviction(mappings: u64) -> Cost {
    let world = World::new(u64::MAX);
    let object = world.object(mappings);
    for number in 0..mappings {
        let offset = ObjectPage::new(number);
        world.map(&object, number * 2, MapRequest { offset, ..MapRequest::new(Pages(1)) });
    }
    let at = mappings / 2 * 2;
    let one = VirtualSpan::new(VirtualPage::new(at), Pages(1)).unwrap();
    Box::new(move || {
        mean(
            TIMES,
            |_| world.touch(at),
            |_| {
                assert_eq!(world.space.advise(one, Advice::DontNeed), Ok(Pages(1)));
            },
        )
    })
}

/// A fault for which another page has to go. `used` budgets have the same number of pages each, and `idle` have none.
fn reclaim(used: u64, idle: u64) -> Cost {
    const RESIDENT: u64 = 20_000;
    let world = World::new(RESIDENT);
    let each = RESIDENT / used;
    let mut budgets = Vec::new();
    for number in 0..used {
        let budget = world.manager.budget(Pages(u64::MAX)).unwrap();
        let object =
            world.manager.object_within(&budget, Kind::Anonymous, Pages(each), Arc::new(ZeroPager));
        world.map(&object.unwrap(), number * each, MapRequest::new(Pages(each)));
        budgets.push(budget);
    }
    budgets.extend((0..idle).map(|_| world.manager.budget(Pages(u64::MAX)).unwrap()));
    let rounds = ROUNDS as u64;
    let object = world.object(TIMES * rounds);
    world.map(&object, RESIDENT, MapRequest::new(Pages(TIMES * rounds)));
    (0..RESIDENT).for_each(|page| world.touch(page));
    let mut next = RESIDENT;
    Box::new(move || {
        // They have to live.
        let _ = &budgets;
        let first = next;
        next += TIMES;
        mean(TIMES, |_| (), |number| world.touch(first + number))
    })
}

/// The first touch of a page of an object of `pages` pages, the last one.
fn first_touch(pages: u64) -> Cost {
    let world = World::new(u64::MAX);
    Box::new(move || {
        let mut objects: Vec<_> = (0..TIMES / 10).map(|_| world.object(pages)).collect();
        let span = VirtualSpan::new(VirtualPage::new(0), Pages(pages)).unwrap();
        mean(
            TIMES / 10,
            |_| {
                // The object before goes with its last mapping; its end is not counted.
                let _ = world.space.unmap(span);
                world.map(&objects.pop().unwrap(), 0, lazy(pages));
            },
            |_| world.touch(pages - 1),
        )
    })
}

/// Touches at [`TIMES`] places of an object of `pages` pages, each the first one near its place.
fn further_touches(pages: u64) -> Cost {
    let world = World::new(u64::MAX);
    Box::new(move || {
        let object = world.object(pages);
        let span = VirtualSpan::new(VirtualPage::new(0), Pages(pages)).unwrap();
        world.map(&object, 0, lazy(pages));
        let mean = mean(TIMES, |_| (), |number| world.touch(number * (pages / TIMES)));
        world.space.unmap(span).unwrap();
        mean
    })
}

/// A look at one of `pages` pages that are in memory, in turn. Each is `distance` behind the one before. The machine
/// is not asked.
fn look(pages: u64, distance: u64) -> Cost {
    let world = World::new(u64::MAX);
    let all = pages * distance;
    let object = world.object(all);
    world.map(&object, 0, lazy(all));
    (0..pages).for_each(|page| world.touch(page * distance));
    Box::new(move || {
        let times = 20 * TIMES;
        let began = Instant::now();
        for number in 0..times {
            let info = world.space.query(VirtualPage::new(number % pages * distance));
            assert!(info.is_some_and(|info| info.state == Some(State::Clean)));
        }
        began.elapsed() / u32::try_from(times).unwrap()
    })
}

fn lazy(pages: u64) -> MapRequest {
    MapRequest { lazy: true, ..MapRequest::new(Pages(pages)) }
}

/// A manager and a space, with pages of 16 bytes.
struct World {
    manager: Manager<Machine>,
    space: AddressSpace<Machine>,
}

impl World {
    fn new(budget: u64) -> Self {
        let settings = Settings { budget: Pages(budget), ..Settings::default() };
        let machine = Machine::new(16, 1 << 21, |_| std::thread::yield_now());
        let manager = Manager::new(machine, settings).unwrap();
        let all = VirtualSpan::new(VirtualPage::new(0), Pages(1 << 40)).unwrap();
        let space = manager.space(all).unwrap();
        Self { manager, space }
    }

    fn object(&self, pages: u64) -> Object<Machine> {
        self.manager.object(Kind::Anonymous, Pages(pages), Arc::new(ZeroPager)).unwrap()
    }

    fn map(&self, object: &Object<Machine>, at: u64, request: MapRequest) {
        let placement = Placement::Fixed(VirtualPage::new(at));
        self.space.map(object, MapRequest { placement, ..request }).unwrap();
    }

    /// Reads a page, without an access by a processor. So the page is clean, and can go without a pager.
    fn touch(&self, page: u64) {
        match self.space.fault(VirtualPage::new(page), Access::Read, Context::Normal) {
            Fault::Pulsed => assert!(self.manager.serve()),
            other => assert_eq!(other, Fault::Resolved),
        }
    }
}
