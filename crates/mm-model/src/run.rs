//! Runs programs, and makes those that fail shorter.
//!
//! # Invariants
//! 1. A program that fails is shortened by leaving out runs of steps, and kept shorter only if it still fails. It need
//!    not fail in the same way: each failure is a mistake.
//! 2. The number of runs is bounded ([`MOST_RUNS`]), since each may take long.

use alloc::{boxed::Box, format, string::String, vec::Vec};
use core::{error::Error, fmt};

use crate::{
    Machine,
    program::{Failing, Program, Step},
    reference::BYTES,
    world::{Checked, World},
};

/// How often a program that fails is run again, to find a shorter one.
const MOST_RUNS: u32 = 400;

/// What a program that went well did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// How many steps were compared with the model.
    pub steps: usize,
    /// How many pages came into memory.
    pub resident: u64,
}

/// A program that failed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Failure {
    /// The seed of the program; `None` if it did not come from one.
    pub seed: Option<u64>,
    /// Which step of the seed's program failed first, from 0 on; one past the last if it was the end, when everything is
    /// read and dropped.
    pub step: usize,
    /// What was wrong there.
    pub what: String,
    /// The shortest program found that fails.
    pub program: Program,
    /// What is wrong with that one.
    pub shortest: String,
}

/// Runs the program of `steps` steps that belongs to a seed. Nothing fails in it but by the checker's small budgets.
///
/// # Errors
/// [`Failure`]: the memory manager on this machine did not do what the model does.
pub fn run<M: Machine>(machine: &mut M, seed: u64, steps: usize) -> Result<Report, Box<Failure>> {
    run_failing(machine, seed, steps, Failing::Nothing)
}

/// As [`run`], and in every third step or so something fails.
///
/// # Errors
/// As [`run`].
pub fn run_failing<M: Machine>(
    machine: &mut M,
    seed: u64,
    steps: usize,
    failing: Failing,
) -> Result<Report, Box<Failure>> {
    let done = run_program(machine, &Program::random(seed, steps, failing));
    done.map_err(|mut failure| {
        failure.seed = Some(seed);
        failure
    })
}

/// Runs this program.
///
/// # Errors
/// As [`run`].
pub fn run_program<M: Machine>(machine: &mut M, program: &Program) -> Result<Report, Box<Failure>> {
    let (step, what) = match attempt(machine, program) {
        Ok(report) => return Ok(report),
        Err(found) => found,
    };
    let (program, shortest) = shorten(machine, program, step, what.clone());
    Err(Box::new(Failure { seed: None, step, what, program, shortest }))
}

/// Runs a program once. An error is the number of the step that failed, and what was wrong.
fn attempt<M: Machine>(machine: &mut M, program: &Program) -> Result<Report, (usize, String)> {
    let mut world = match World::new(machine, program.setting) {
        Ok(world) => Some(world),
        Err(what) => return Err((0, what)),
    };
    let (mut step, mut resident, mut done) = (0, 0, Ok(()));
    let guarded = M::guard(&mut || {
        let Some(world) = &mut world else { return };
        done = perform(world, program, &mut step, &mut resident);
    });
    if guarded.is_err() {
        // A panic may have left locks held, for which a drop would wait.
        core::mem::forget(world.take());
    }
    let dropped = M::guard(&mut || drop(world.take()));
    match guarded.and(done).and(dropped) {
        Ok(()) => Ok(Report { steps: program.steps.len(), resident }),
        Err(what) => Err((step, what)),
    }
}

/// Does all steps, and the end. `step` is the number of the one under way.
fn perform<M: Machine>(
    world: &mut World<'_, M>,
    program: &Program,
    step: &mut usize,
    resident: &mut u64,
) -> Checked {
    for op in Program::beginning() {
        world.quietly(op)?;
    }
    for (number, &next) in program.steps.iter().enumerate() {
        *step = number;
        world.step(next)?;
        *resident = world.manager.resident().0.max(*resident);
    }
    *step = program.steps.len();
    world.finish()
}

/// The shortest program found that fails as well, and how.
fn shorten<M: Machine>(
    machine: &mut M,
    program: &Program,
    step: usize,
    what: String,
) -> (Program, String) {
    let mut shortest = Program { setting: program.setting, steps: program.steps.clone() };
    // Steps after the one that failed have done nothing.
    shortest.steps.truncate(step.saturating_add(1));
    let (mut why, mut runs) = (what, 0);
    let mut length = shortest.steps.len().div_ceil(2).max(1);
    loop {
        let (mut first, before) = (0, shortest.steps.len());
        while first < shortest.steps.len() && runs < MOST_RUNS {
            let steps = without(&shortest.steps, first, length);
            let shorter = Program { setting: shortest.setting, steps };
            runs += 1;
            match attempt(machine, &shorter) {
                Ok(_) => first += length,
                Err((step, what)) => {
                    (shortest, why) = (shorter, what);
                    shortest.steps.truncate(step.saturating_add(1));
                }
            }
        }
        let again = shortest.steps.len() < before;
        if runs >= MOST_RUNS || (length == 1 && !again) {
            return (shortest, why);
        }
        length = length.div_ceil(2);
    }
}

/// The steps, but for `length` of them from `first` on.
fn without(steps: &[Step], first: usize, length: usize) -> Vec<Step> {
    let left_out = first..first.saturating_add(length);
    let kept = steps.iter().enumerate().filter(|(number, _)| !left_out.contains(number));
    kept.map(|(_, step)| *step).collect()
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seed = self.seed.map_or_else(String::new, |seed| format!(" of seed {seed}"));
        writeln!(f, "step {}{seed}: {}", self.step, self.what)?;
        writeln!(f, "{} steps are enough: {}", self.program.steps.len(), self.shortest)?;
        writeln!(f, "{:?}, pages of {BYTES} bytes", self.program.setting)?;
        for step in &self.program.steps {
            writeln!(f, "    {step}")?;
        }
        Ok(())
    }
}

impl Error for Failure {}
