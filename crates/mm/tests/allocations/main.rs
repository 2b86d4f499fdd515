//! As `tests/model`, with an allocator that has little memory left: any allocation of the manager may fail, and
//! all after it.
//!
//! The limit is on the memory of the whole process, so there is only one test in it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails there")]

#[path = "../model/software.rs"]
mod software;
#[path = "../wrapped/mod.rs"]
mod wrapped;

use std::alloc::System;

use cap::Cap;
use commonhold_mm_model::{Failing, Shortage};

use software::{Software, programs};

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// Leaves `bytes` bytes, and returns how many were left before.
fn limit(bytes: Option<usize>) -> usize {
    let left = MEMORY.remaining();
    let limit = bytes.map_or(usize::MAX, |bytes| MEMORY.allocated() + bytes);
    MEMORY.set_limit(limit).unwrap();
    left
}

#[test]
fn no_failure_of_the_allocator_loses_a_page_or_leaves_one_stuck() {
    programs(&mut Software::with(Shortage::new(limit)), Failing::Allocations);
}
