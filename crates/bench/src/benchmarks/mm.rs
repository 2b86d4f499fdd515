//! `mm`: what the memory manager's bookkeeping costs, on a machine in software.
//!
//! Four claims: a fault on a page in memory is short; faults in different spaces on different objects do not
//! hinder each other; to find a mapping costs hardly more among very many; an eviction costs time by the
//! number of spaces that show the page.

use std::{
    sync::{Arc, Barrier},
    thread,
    time::Instant,
};

use commonhold_console::{
    failure::{Failure, broken},
    random::Random,
};
use commonhold_mm::{
    Access, AddressSpace, Advice, Context, Fault, Kind, Manager, MapRequest, Mmu as _, Object,
    ObjectPage, ObjectSpan, Pages, Placement, Protection, Settings, VirtualPage, VirtualSpan,
    Writable, ZeroPager, soft::SoftMmu,
};

use super::{Line, ROUNDS, per, stats::float, time};

type Machine = SoftMmu<parking_lot::RawMutex, parking_lot::RawRwLock>;

/// Pages that are faulted on one after the other.
const PAGES: u32 = 4096;
/// Faults of each thread in a round.
const FAULTS: u32 = 200_000;
const FEW: u32 = 10;
const MANY: u32 = 100_000;

pub(super) fn mm() -> Result<Vec<Line>, Failure> {
    let mut lines = vec![resident()?, together()?];
    lines.extend(lookup()?);
    lines.push(eviction()?);
    Ok(lines)
}

/// A fault on a page in memory, against the machine's part of it alone.
fn resident() -> Result<Line, Failure> {
    let ground = TestSpace::new(PAGES)?;
    let (mut ours, mut machine) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ground.take_translations_away();
        ours.push(ground.each_page(PAGES, |at| ground.fault(at)));
        ground.take_translations_away();
        machine.push(ground.each_page(PAGES, |at| ground.install(at)));
    }
    ground.check()?;
    Ok(Line::new("fault, page in memory", "the machine's part alone", ours, machine))
}

/// Two threads, each in a space of its own on an object of its own, against one.
fn together() -> Result<Line, Failure> {
    let manager = manager()?;
    let grounds = [TestSpace::within(&manager, PAGES)?, TestSpace::within(&manager, PAGES)?];
    let [first, second] = &grounds;
    let (mut two, mut one) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        one.push(time_threads(&[first]));
        two.push(time_threads(&[first, second]) / 2.0);
    }
    for ground in &grounds {
        ground.check()?;
    }
    Ok(Line::new("faults, 2 threads, a fault", "1 thread", two, one))
}

/// Nanoseconds of a fault, if each ground has a thread of its own.
fn time_threads(grounds: &[&TestSpace]) -> f64 {
    let gate = Barrier::new(grounds.len() + 1);
    thread::scope(|scope| {
        for ground in grounds {
            let gate = &gate;
            scope.spawn(move || {
                gate.wait();
                for turn in 0..FAULTS {
                    ground.fault(VirtualPage::new(u64::from(turn % PAGES)));
                }
                gate.wait();
            });
        }
        gate.wait();
        let began = Instant::now();
        gate.wait();
        per(began.elapsed(), FAULTS)
    })
}

/// To find ten mappings among very many, and any of very many, against ten of ten; and a whole fault in any of
/// very many. The second shows what it costs beyond the search that so much is in no cache.
fn lookup() -> Result<[Line; 3], Failure> {
    const AGAINST: &str = "10 mappings";
    let (many, few) = (TestSpace::of_mappings(MANY)?, TestSpace::of_mappings(FEW)?);
    let mut random = Random::new(1);
    let mut times: [Vec<f64>; 5] = Default::default();
    for _ in 0..ROUNDS {
        let mut each =
            |ground: &TestSpace, mappings: u32, step: u32, act: fn(&TestSpace, VirtualPage)| {
                time(FAULTS / 4, || {
                    // Every second page has a mapping of its own.
                    let mapping = random.below(u64::from(mappings)) * u64::from(step);
                    act(ground, VirtualPage::new(mapping * 2));
                })
            };
        let rounds = [
            each(&many, FEW, MANY / FEW, TestSpace::find),
            each(&many, MANY, 1, TestSpace::find),
            each(&few, FEW, 1, TestSpace::find),
            each(&many, MANY, 1, TestSpace::fault),
            each(&few, FEW, 1, TestSpace::fault),
        ];
        times.iter_mut().zip(rounds).for_each(|(all, one)| all.push(one));
    }
    let [ten, any, base, fault, base_fault] = times;
    Ok([
        Line::new("lookup, 10 of 100000 mappings", AGAINST, ten, base.clone()),
        Line::new("lookup, any of 100000 mappings", AGAINST, any, base),
        Line::new("fault, any of 100000 mappings", AGAINST, fault, base_fault),
    ])
}

/// To evict a page that 1,000 spaces show, a space, against 10.
fn eviction() -> Result<Line, Failure> {
    let (mut many, mut few) = (Vec::new(), Vec::new());
    let (thousand, ten) = (Shared::new(1000)?, Shared::new(10)?);
    for _ in 0..ROUNDS {
        many.push(thousand.evict()?);
        few.push(ten.evict()?);
    }
    Ok(Line::new("eviction, 1000 spaces, a space", "10 spaces", many, few))
}

fn manager() -> Result<Manager<Machine>, Failure> {
    let machine = SoftMmu::new(64, u32::MAX, |_| thread::yield_now());
    Manager::new(machine, Settings::default()).map_err(told)
}

fn told(error: commonhold_mm::Error) -> Failure {
    broken(format!("the memory manager says: {error}"))
}

/// A space with one object.
struct TestSpace {
    manager: Manager<Machine>,
    space: AddressSpace<Machine>,
    object: Object<Machine>,
    pages: ObjectSpan,
}

impl TestSpace {
    fn new(pages: u32) -> Result<Self, Failure> {
        Self::within(&manager()?, pages)
    }

    /// All pages of the object in memory, in one mapping.
    fn within(manager: &Manager<Machine>, pages: u32) -> Result<Self, Failure> {
        let ground = Self::bare(manager, pages)?;
        let pages = Pages(u64::from(pages));
        let request = MapRequest {
            placement: Placement::Fixed(VirtualPage::new(0)),
            protection: Protection::Read,
            ..MapRequest::new(pages)
        };
        let span = ground.space.map(&ground.object, request).map_err(told)?;
        ground.space.advise(span, Advice::WillNeed).map_err(told)?;
        Ok(ground)
    }

    /// One page of the object in memory, in so many mappings, at every second page.
    fn of_mappings(mappings: u32) -> Result<Self, Failure> {
        let ground = Self::bare(&manager()?, 1)?;
        for number in 0..u64::from(mappings) {
            let request = MapRequest {
                placement: Placement::Fixed(VirtualPage::new(number * 2)),
                protection: Protection::Read,
                ..MapRequest::new(Pages(1))
            };
            let span = ground.space.map(&ground.object, request).map_err(told)?;
            ground.space.advise(span, Advice::WillNeed).map_err(told)?;
        }
        Ok(ground)
    }

    fn bare(manager: &Manager<Machine>, pages: u32) -> Result<Self, Failure> {
        let count = Pages(u64::from(pages));
        let all = VirtualSpan::new(VirtualPage::new(0), Pages(1 << 40));
        let span = all.ok_or_else(|| broken("no such span"))?;
        let space = manager.space(span).map_err(told)?;
        let object = manager.object(Kind::Anonymous, count, Arc::new(ZeroPager)).map_err(told)?;
        let pages = ObjectSpan::new(ObjectPage::new(0), count);
        let pages = pages.ok_or_else(|| broken("no such pages"))?;
        Ok(Self { manager: manager.clone(), space, object, pages })
    }

    fn take_translations_away(&self) {
        self.object.walk(self.pages, |reach| reach.remove());
    }

    fn each_page(&self, pages: u32, mut visit: impl FnMut(VirtualPage)) -> f64 {
        let mut at = 0;
        time(pages, || {
            visit(VirtualPage::new(at));
            at += 1;
        })
    }

    fn fault(&self, at: VirtualPage) {
        // Counted by the space: `check`.
        let _: Fault = self.space.fault(at, Access::Read, Context::Normal);
    }

    /// As far as a lookup goes: the mapping does not permit it.
    fn find(&self, at: VirtualPage) {
        let _: Fault = self.space.fault(at, Access::Write, Context::Normal);
    }

    fn install(&self, at: VirtualPage) {
        let (machine, object) = (self.space.machine(), self.object.machine());
        let page = ObjectPage::new(at.number());
        // It cannot fail: the tables are there.
        let _ =
            self.manager.mmu().install(machine, at, object, page, Protection::Read, Writable::No);
    }

    /// That all faults were what is measured.
    fn check(&self) -> Result<(), Failure> {
        let faults = self.space.totals().faults;
        if faults.pulsed + faults.refused + faults.full > 0 {
            return Err(broken(format!("some faults were not resolved at once: {faults:?}")));
        }
        Ok(())
    }
}

/// Spaces that show one page.
struct Shared {
    spaces: Vec<AddressSpace<Machine>>,
    span: VirtualSpan,
}

impl Shared {
    fn new(count: u32) -> Result<Self, Failure> {
        let ground = TestSpace::within(&manager()?, 1)?;
        let one = ground.space.query(VirtualPage::new(0)).map(|_| VirtualPage::new(0));
        let span = one.and_then(|at| VirtualSpan::new(at, Pages(1)));
        let span = span.ok_or_else(|| broken("the page is not mapped"))?;
        let mut spaces = vec![ground.space.clone()];
        for _ in 1..count {
            let space = ground.manager.space(ground.space.span()).map_err(told)?;
            let request = MapRequest {
                placement: Placement::Fixed(span.first()),
                protection: Protection::Read,
                ..MapRequest::new(Pages(1))
            };
            space.map(&ground.object, request).map_err(told)?;
            spaces.push(space);
        }
        Ok(Self { spaces, span })
    }

    /// Nanoseconds, for each space.
    fn evict(&self) -> Result<f64, Failure> {
        for space in &self.spaces {
            space.advise(self.span, Advice::WillNeed).map_err(told)?;
            let _: Fault = space.fault(self.span.first(), Access::Read, Context::Normal);
        }
        let Some(space) = self.spaces.first() else { return Ok(0.0) };
        let began = Instant::now();
        let evicted = space.advise(self.span, Advice::DontNeed).map_err(told)?;
        let elapsed = began.elapsed();
        if evicted != Pages(1) {
            return Err(broken("the page was not evicted"));
        }
        Ok(per(elapsed, 1) / float(self.spaces.len() as u64))
    }
}
