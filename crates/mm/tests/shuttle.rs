//! The memory manager on the software machine, in schedules that shuttle chooses: a fault against everything else
//! that may happen to its page. The data and the counts are checked at the end of each schedule.
//!
//! Run with `RUSTFLAGS="--cfg shuttle" cargo test -p commonhold-mm --release --test shuttle`;
//! `COMMONHOLD_SCHEDULES` says how many schedules of each scenario (100,000). Where a scenario fails, shuttle prints
//! the schedule, and `shuttle::replay` repeats it.
#![cfg(shuttle)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

#[path = "shuttle/answering.rs"]
mod answering;
#[path = "shuttle/discarding.rs"]
mod discarding;
#[path = "shuttle/evicting.rs"]
mod evicting;
#[path = "shuttle/faulting.rs"]
mod faulting;
#[path = "shuttle/locks.rs"]
mod locks;
#[path = "shuttle/mapping.rs"]
mod mapping;
#[path = "shuttle/world.rs"]
mod world;
