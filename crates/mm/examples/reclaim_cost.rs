//! What it costs to fill a page when another has to go, by the number of budgets.
//!
//! `cargo run --release -p commonhold-mm --example reclaim_cost`
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
    Access, Context, Kind, Manager, MapRequest, Pages, Placement, Settings, VirtualPage,
    VirtualSpan, ZeroPager, soft::SoftMmu,
};

type Machine = SoftMmu<parking_lot::RawMutex, parking_lot::RawRwLock>;

const RESIDENT: u64 = 20_000;
const FAULTS: u64 = 20_000;

/// The mean of one fault that evicts a page. `used` budgets have the same number of pages each, and `idle` have none.
fn fault_that_evicts(used: u64, idle: u64) -> Duration {
    let settings = Settings { budget: Pages(RESIDENT), ..Settings::default() };
    let machine = Machine::new(16, 1_000_000, |_| std::thread::yield_now());
    let manager = Manager::new(machine, settings).unwrap();
    let all = VirtualSpan::new(VirtualPage::new(0), Pages(2 * (RESIDENT + FAULTS))).unwrap();
    let space = manager.space(all).unwrap();
    let each = RESIDENT / used;
    let mut budgets = Vec::new();
    for number in 0..used {
        let budget = manager.budget(Pages(u64::MAX)).unwrap();
        let object = manager
            .object_within(&budget, Kind::Anonymous, Pages(each), Arc::new(ZeroPager))
            .unwrap();
        let placement = Placement::Fixed(VirtualPage::new(number * each));
        space.map(&object, MapRequest { placement, ..MapRequest::new(Pages(each)) }).unwrap();
        budgets.push(budget);
    }
    budgets.extend((0..idle).map(|_| manager.budget(Pages(u64::MAX)).unwrap()));
    let object = manager.object(Kind::Anonymous, Pages(FAULTS), Arc::new(ZeroPager)).unwrap();
    let placement = Placement::Fixed(VirtualPage::new(RESIDENT));
    space.map(&object, MapRequest { placement, ..MapRequest::new(Pages(FAULTS)) }).unwrap();
    let fill = |page| {
        _ = space.fault(VirtualPage::new(page), Access::Read, Context::Normal);
        manager.serve();
    };
    (0..RESIDENT).for_each(fill);
    let start = Instant::now();
    (RESIDENT..RESIDENT + FAULTS / 2).for_each(fill);
    start.elapsed() / u32::try_from(FAULTS / 2).unwrap()
}

fn main() {
    let one = fault_that_evicts(1, 0);
    for (used, idle) in [(1, 0), (1, 4_999), (100, 0), (5_000, 0)] {
        let mean = fault_that_evicts(used, idle);
        let ratio = mean.as_secs_f64() / one.as_secs_f64();
        println!(
            "{used:5} budgets with pages, {idle:5} without: {mean:9.2?} a fault, {ratio:6.2} times one"
        );
    }
}
