//! `mm`: what the memory manager's bookkeeping costs, on a machine in software.
//!
//! It checks four claims:
//! - a fault on a page in memory is short;
//! - faults in different spaces on different objects do not slow each other down;
//! - finding a mapping costs hardly more if there are very many;
//! - the time of an eviction is proportional to the number of spaces that show the page.

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
    ObjectPage, ObjectSpan, Pages, Placement, Protection, Settings, Span, VirtualPage, VirtualSpan,
    Wait, Writable, ZeroPager,
    soft::{SoftGather, SoftMmu},
};

use super::{Line, ROUNDS, per, stats::float, time};

type Machine = SoftMmu<parking_lot::RawMutex, parking_lot::RawRwLock>;

/// How many pages the faults go through, one after the other.
const PAGES: u32 = 4096;
/// How many faults each thread takes in a round.
const FAULTS: u32 = 200_000;
const FEW: u32 = 10;
const MANY: u32 = 100_000;

pub(super) fn mm() -> Result<Vec<Line>, Failure> {
    let mut lines = vec![resident()?, together()?];
    lines.extend(lookup()?);
    lines.push(eviction()?);
    Ok(lines)
}

/// A fault on a page in memory, against only the machine's part of it.
fn resident() -> Result<Line, Failure> {
    let test_space = TestSpace::new(PAGES)?;
    let (mut ours, mut machine) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        test_space.take_translations_away();
        ours.push(test_space.each_page(PAGES, |at| test_space.fault(at)));
        test_space.take_translations_away();
        machine.push(test_space.each_page(PAGES, |at| test_space.install(at)));
    }
    test_space.check()?;
    Ok(Line::new("fault, page in memory", "the machine's part alone", ours, machine))
}

/// Two threads, each in its own space on its own object, against one thread.
fn together() -> Result<Line, Failure> {
    let manager = manager()?;
    let test_spaces = [TestSpace::within(&manager, PAGES)?, TestSpace::within(&manager, PAGES)?];
    let [first, second] = &test_spaces;
    let (mut two, mut one) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        one.push(time_threads(&[first]));
        two.push(time_threads(&[first, second]) / 2.0);
    }
    for test_space in &test_spaces {
        test_space.check()?;
    }
    Ok(Line::new("faults, 2 threads, a fault", "1 thread", two, one))
}

/// Nanoseconds for a fault, with one thread for each test space.
fn time_threads(test_spaces: &[&TestSpace]) -> f64 {
    let gate = Barrier::new(test_spaces.len() + 1);
    thread::scope(|scope| {
        for test_space in test_spaces {
            let gate = &gate;
            scope.spawn(move || {
                gate.wait();
                for turn in 0..FAULTS {
                    test_space.fault(VirtualPage::new(u64::from(turn % PAGES)));
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

/// Finding one of ten mappings among very many, and any of very many, against one of ten among ten; and a whole fault
/// in any of very many. The second line includes cache misses, which the first one avoids.
fn lookup() -> Result<[Line; 3], Failure> {
    const AGAINST: &str = "10 mappings";
    let (many, few) = (TestSpace::of_mappings(MANY)?, TestSpace::of_mappings(FEW)?);
    let mut random = Random::new(1);
    let mut times: [Vec<f64>; 5] = Default::default();
    for _ in 0..ROUNDS {
        let mut each =
            |test_space: &TestSpace, mappings: u32, step: u32, act: fn(&TestSpace, VirtualPage)| {
                time(FAULTS / 4, || {
                    // Every second page has its own mapping.
                    let mapping = random.below(u64::from(mappings)) * u64::from(step);
                    act(test_space, VirtualPage::new(mapping * 2));
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

/// Evicting a page that 1,000 spaces show, in time per space, against 10 spaces.
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

/// An address space with one object.
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

    /// A test space with one mapping; all pages of its object are in memory.
    fn within(manager: &Manager<Machine>, pages: u32) -> Result<Self, Failure> {
        let test_space = Self::bare(manager, pages)?;
        let pages = Pages(u64::from(pages));
        let request = MapRequest {
            placement: Placement::Fixed(VirtualPage::new(0)),
            protection: Protection::Read,
            ..MapRequest::new(pages)
        };
        let span = test_space.space.map(&test_space.object, request).map_err(told)?;
        test_space.space.advise(span, Advice::WillNeed).map_err(told)?;
        Ok(test_space)
    }

    /// A test space with this many mappings, at every second page, of one page that is in memory.
    fn of_mappings(mappings: u32) -> Result<Self, Failure> {
        let test_space = Self::bare(&manager()?, 1)?;
        for number in 0..u64::from(mappings) {
            let request = MapRequest {
                placement: Placement::Fixed(VirtualPage::new(number * 2)),
                protection: Protection::Read,
                ..MapRequest::new(Pages(1))
            };
            let span = test_space.space.map(&test_space.object, request).map_err(told)?;
            test_space.space.advise(span, Advice::WillNeed).map_err(told)?;
        }
        Ok(test_space)
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
        let (mmu, mut gather) = (self.manager.mmu(), SoftGather::default());
        let (machine, object) = (self.space.machine(), self.object.machine());
        let span = Span::between(VirtualPage::new(0), VirtualPage::new(self.pages.end().number()));
        // Neither can fail: this machine fails only if it is told to.
        let _ = mmu.remove(machine, span, object, self.pages.first(), &mut gather);
        let _ = mmu.finish(gather, &mut |_, _| ());
    }

    fn each_page(&self, pages: u32, mut visit: impl FnMut(VirtualPage)) -> f64 {
        let mut at = 0;
        time(pages, || {
            visit(VirtualPage::new(at));
            at += 1;
        })
    }

    fn fault(&self, at: VirtualPage) {
        // The space counts the outcomes; `check` looks at them.
        let _: Fault = self.space.fault(at, Access::Read, Context::Normal);
    }

    /// A fault that ends after the lookup, because the mapping does not permit the access.
    fn find(&self, at: VirtualPage) {
        let _: Fault = self.space.fault(at, Access::Write, Context::Normal);
    }

    fn install(&self, at: VirtualPage) {
        let (machine, object) = (self.space.machine(), self.object.machine());
        let page = ObjectPage::new(at.number());
        // It cannot fail: the tables exist already.
        let _ = self.manager.mmu().install(
            machine,
            at,
            object,
            page,
            Protection::Read,
            Writable::No,
            Wait::Never,
        );
    }

    /// Checks that all faults were resolved at once, as the benchmark assumes.
    fn check(&self) -> Result<(), Failure> {
        let faults = self.space.totals().faults;
        if faults.pulsed + faults.refused + faults.full > 0 {
            return Err(broken(format!("some faults were not resolved at once: {faults:?}")));
        }
        Ok(())
    }
}

/// Several address spaces that show the same page.
struct Shared {
    spaces: Vec<AddressSpace<Machine>>,
    span: VirtualSpan,
}

impl Shared {
    fn new(count: u32) -> Result<Self, Failure> {
        let test_space = TestSpace::within(&manager()?, 1)?;
        let one = test_space.space.query(VirtualPage::new(0)).map(|_| VirtualPage::new(0));
        let span = one.and_then(|at| VirtualSpan::new(at, Pages(1)));
        let span = span.ok_or_else(|| broken("the page is not mapped"))?;
        let mut spaces = vec![test_space.space.clone()];
        for _ in 1..count {
            let space = test_space.manager.space(test_space.space.span()).map_err(told)?;
            let request = MapRequest {
                placement: Placement::Fixed(span.first()),
                protection: Protection::Read,
                ..MapRequest::new(Pages(1))
            };
            space.map(&test_space.object, request).map_err(told)?;
            spaces.push(space);
        }
        Ok(Self { spaces, span })
    }

    /// Evicts the page. Returns nanoseconds per space.
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
