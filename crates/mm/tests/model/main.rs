//! Random programs of all operations, over several spaces and objects, against a simple model: `commonhold-mm-model` on
//! the software machine.
//!
//! `PROPTEST_CASES` says how many programs are tried. Each run tries others; a failure names the seed of its program,
//! and `COMMONHOLD_MODEL_SEED` runs that one again.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails there")]

mod software;
#[path = "../wrapped/mod.rs"]
mod wrapped;

use commonhold_mm_model::Failing;

use software::{Software, programs};

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
