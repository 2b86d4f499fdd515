//! As `tests/model`, with an allocator that has little memory left: any allocation of the manager may fail, and
//! all after it.
//!
//! The limit is on the memory of the whole process, so there is only one test in it.
#![allow(dead_code, reason = "tests/model uses the rest")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails there"
)]

#[path = "../model/access.rs"]
mod access;
#[path = "../model/check.rs"]
mod check;
#[path = "../model/machine.rs"]
mod machine;
#[path = "../model/pager.rs"]
mod pager;
#[path = "../model/program.rs"]
mod program;
#[path = "../model/reference.rs"]
mod reference;
#[path = "../model/residency.rs"]
mod residency;
#[path = "../model/trouble.rs"]
mod trouble;
#[path = "../model/world.rs"]
mod world;

use std::alloc::System;

use cap::Cap;
use proptest::prelude::*;

use program::setting;
use trouble::{Trouble, limit_by};
use world::World;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// Leaves `bytes` bytes, and returns how many were left before.
fn limit(bytes: Option<usize>) -> usize {
    let left = MEMORY.remaining();
    let limit = bytes.map_or(usize::MAX, |bytes| MEMORY.allocated() + bytes);
    MEMORY.set_limit(limit).unwrap();
    left
}

/// From no memory at all to enough for the largest table that is allocated at once.
fn little() -> impl Strategy<Value = Trouble> {
    prop_oneof![Just(0_usize), 0_usize..100, 0_usize..1000, 0_usize..20_000]
        .prop_map(Trouble::Memory)
}

proptest! {
    #![proptest_config(program::cases())]

    #[test]
    fn no_failure_of_the_allocator_loses_a_page_or_leaves_one_stuck(
        setting in setting(),
        program in program::with(little()),
    ) {
        limit_by(limit);
        let mut world = World::new(setting);
        for op in program::beginning() {
            world.step(op, Trouble::None);
        }
        for (op, trouble) in program {
            world.step(op, trouble);
        }
        world.finish();
    }
}
