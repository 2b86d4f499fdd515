//! Random programs of all operations, over several spaces and objects, against a simple model without locks and
//! without a policy.
//!
//! One thread does everything here, so a failure can be repeated, and proptest can shrink it; schedules are for
//! shuttle. `PROPTEST_CASES` says how many programs are tried.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails there"
)]

mod access;
mod check;
mod machine;
mod pager;
mod program;
mod reference;
mod residency;
mod trouble;
mod world;

use proptest::prelude::*;

use program::{Op, Setting, setting};
use trouble::Trouble;
use world::World;

fn run(setting: Setting, program: Vec<(Op, Trouble)>) {
    let mut world = World::new(setting);
    for op in program::beginning() {
        world.step(op, Trouble::None);
    }
    for (op, trouble) in program {
        world.step(op, trouble);
    }
    world.finish();
}

proptest! {
    #![proptest_config(program::cases())]

    #[test]
    fn programs_do_what_the_model_does(setting in setting(), program in program::quiet()) {
        run(setting, program);
    }

    #[test]
    fn no_failure_of_a_pager_loses_a_page_or_leaves_one_stuck(
        setting in setting(),
        program in program::with(
            (0_u32..4, 1_u32..4).prop_map(|(after, times)| Trouble::Pager { after, times })),
    ) {
        run(setting, program);
    }

    #[test]
    fn no_failure_of_the_machine_loses_a_page_or_leaves_one_stuck(
        setting in setting(),
        program in program::with((0_u32..12).prop_map(Trouble::Machine)),
    ) {
        run(setting, program);
    }
}
