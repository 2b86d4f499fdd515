//! Random programs of all operations, over several spaces and objects, against a simple model: `commonhold-mm-model` on
//! the software machine.
//!
//! `PROPTEST_CASES` says how many programs are tried. Each run tries others; a failure names the seed of its program,
//! and `COMMONHOLD_MODEL_SEED` runs that one again.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails there")]

mod software;
#[path = "../wrapped/mod.rs"]
mod wrapped;

use commonhold_mm_model::{Failing, run};

use software::{STEPS, Software, programs};
use wrapped::Call;

#[test]
fn programs_do_what_the_model_does() {
    programs(&mut Software::default(), Failing::Nothing);
}

#[test]
fn no_failure_of_a_pager_loses_a_page_or_leaves_one_stuck() {
    programs(&mut Software::default(), Failing::Pagers);
}

#[test]
fn no_failure_of_the_machine_loses_a_page_or_leaves_one_stuck() {
    programs(&mut Software::default(), Failing::Machine);
}

#[test]
fn a_machine_that_forgets_a_call_is_found_with_few_steps() {
    for call in [
        Call::Adopt,
        Call::Release,
        Call::Detach,
        Call::WriteProtect,
        Call::Remove,
        Call::Finish,
        Call::Wake,
    ] {
        let mut machine = Software::that_forgets(call);
        let failures = (0..200).filter_map(|seed| run(&mut machine, seed, STEPS).err());
        let failure =
            failures.into_iter().next().unwrap_or_else(|| panic!("{call:?} is not missed"));
        let (seed, steps) = (failure.seed.unwrap(), failure.program.steps.len());
        eprintln!("{call:?} is missed by seed {seed}, and then by {steps} steps: {failure}");
        assert!(steps <= 5, "{failure}");
    }
}
