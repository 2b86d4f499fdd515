//! Fuzzers whose inputs need processes, files, a full file system or failing system calls.
//!
//! # What it owns
//! The program `storm`: `storm KIND --seconds N [--seed N] [--program PATH]`. The kinds are:
//! 1. [`image`]: files of spaces whose processes died in the middle of something, with words changed, holes punched
//!    and ends cut off; a process then uses them through every operation of the facade.
//! 2. [`scribbler`]: a process that writes random words into a space while others use it.
//! 3. [`command_line`]: random arguments for the real program.
//! 4. [`pages`]: every command with a fixed number of pages of memory left, from none on.
//! 5. [`faults`]: every system call of a command fails, or takes long, one after the other.
//! 6. [`stops`]: every command while another process is stopped at a crash point.
//!
//! # What must hold
//! No process is killed by a signal, panics or hangs; every exit status is a documented one.
//!
//! # What it does not do
//! It is not guided by coverage, as the fuzzers in `fuzz/` are: a round here is hundreds of system calls, in processes
//! that die. Each round is made from a seed, which is printed with a finding.

mod arena;
mod check;
mod child;
mod command_line;
mod commands;
mod faults;
mod image;
mod operations;
mod pages;
mod scribble;
mod scribbler;
mod stops;
mod tally;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use arena::Arena;
use tally::Tally;

/// The expected result, or a sentence that says what happened instead.
type Finding<T = ()> = Result<T, String>;

/// Exit status if the fuzzer cannot run on this machine.
const NOT_RUN: u8 = 77;
/// After this many findings a run ends.
const FINDINGS_MOST: usize = 10;

/// The parsed command line of `storm`.
#[derive(Debug, Clone)]
struct Job {
    kind: String,
    /// More arguments, for the worker roles that `storm` starts itself in.
    rest: Vec<String>,
    seconds: u64,
    seed: u64,
    /// The program `commonhold` under test.
    program: PathBuf,
}

impl Job {
    fn read(args: impl Iterator<Item = String>) -> Option<Self> {
        let beside = std::env::current_exe().ok()?;
        let mut job = Self {
            kind: String::new(),
            rest: vec![],
            seconds: 60,
            seed: fastrand::u64(..),
            program: beside.with_file_name("commonhold"),
        };
        let mut args = args;
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--seconds" => job.seconds = args.next()?.parse().ok()?,
                "--seed" => job.seed = args.next()?.parse().ok()?,
                // Commands run in another folder, so the path must be absolute.
                "--program" => job.program = std::path::absolute(args.next()?).ok()?,
                _ if job.kind.is_empty() => job.kind = arg,
                _ => job.rest.push(arg),
            }
        }
        Some(job)
    }
}

/// A run: its length, its findings and its counts.
#[derive(Debug)]
struct Run {
    arena: Arena,
    program: PathBuf,
    seed: u64,
    end: Instant,
    rounds: u64,
    tally: Tally,
    findings: Vec<String>,
}

impl Run {
    fn goes_on(&self) -> bool {
        Instant::now() < self.end && self.findings.len() < FINDINGS_MOST
    }

    /// The seed of the next round. The first round has the seed of the run, so that any round can be repeated alone.
    fn next_seed(&mut self) -> u64 {
        let seed = self.seed.wrapping_add(self.rounds);
        self.rounds += 1;
        seed
    }

    fn finds(&mut self, seed: u64, what: &str) {
        eprintln!("storm: found with --seed {seed}: {what}");
        self.findings.push(what.to_owned());
    }
}

/// The program `storm`.
#[must_use]
pub fn storm() -> ExitCode {
    let Some(job) = Job::read(std::env::args().skip(1)) else { return usage() };
    match job.kind.as_str() {
        "image-worker" => return image::work(&job),
        "scribbler" => return scribbler::write(&job),
        "scribbled-worker" => return scribbler::work(&job),
        _ => {}
    }
    let kind = match job.kind.as_str() {
        "image" => image::run,
        "scribble" => scribbler::run,
        "command-line" => command_line::run,
        "pages" => pages::run,
        "faults" => faults::run,
        "stops" => stops::run,
        _ => return usage(),
    };
    let arena = match Arena::enter() {
        Ok(arena) => arena,
        Err(why) => {
            eprintln!("storm: not run: namespaces and a file system of its own: {}", why.0);
            return ExitCode::from(NOT_RUN);
        }
    };
    let mut run = Run {
        arena,
        program: job.program,
        seed: job.seed,
        end: Instant::now() + Duration::from_secs(job.seconds),
        rounds: 0,
        tally: Tally::default(),
        findings: vec![],
    };
    if let Err(why) = kind(&mut run) {
        run.finds(job.seed, &why);
    }
    let (rounds, ends, found) = (run.rounds, run.tally.total(), run.findings.len());
    eprintln!("storm {}: seed {}, {rounds} rounds, {ends} ends", job.kind, job.seed);
    eprint!("{}", run.tally);
    eprintln!("storm {}: {found} findings", job.kind);
    if found == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn usage() -> ExitCode {
    eprintln!(
        "usage: storm image|scribble|command-line|pages|faults|stops [--seconds N] [--seed N] [--program PATH]"
    );
    ExitCode::from(2)
}
