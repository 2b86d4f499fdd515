//! Every example that opens a space is killed, again and again, and then runs to its end in the space that it has
//! left.
//!
//! It is killed behind each of its statements (see [`program`](crate::program)), and at random instants of its
//! usual run time, several times in a row, so that it also dies while it makes, opens or removes its space. After
//! that it must succeed, or pass on that an owner died ([`Verdict::Told`]). It may not hang, end by a signal, find
//! a lock given up, or end in any other way; an assertion that holds only in a first run is an error too. The space
//! that it leaves must be consistent, and it must be possible to remove it.
#![allow(clippy::print_stdout, reason = "the figures are for people")]

use std::{
    fs,
    io::Read as _,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use commonhold::{LockKind, Removal, Space};
use fastrand::Rng;

use crate::{
    examples::{Block, all_blocks, blocks_in},
    program,
};

/// The longest time of a run; a longer run hangs.
const LIMIT: Duration = Duration::from_secs(20);
/// Kills at random instants before a run to the end.
const KILLS: u32 = 4;
/// How many such runs there are, unless the environment asks for more.
const ROUNDS: u32 = 5;
const ROUNDS_WANTED: &str = "COMMONHOLD_TEST_ROUNDS";
/// How many statements of an example it is killed behind; in a loop, those of the first rounds.
const POINTS: u64 = 32;
/// How many lines of a run's output a failure shows.
const LINES: usize = 10;
/// The seed of the instants, which a failure prints.
const SEED: &str = "COMMONHOLD_TEST_SEED";

/// The examples, the broken ones that must fail, and the program that runs both.
struct Cases {
    examples: Vec<Block>,
    fixtures: Vec<Block>,
    program: PathBuf,
}

static CASES: LazyLock<Cases> = LazyLock::new(|| {
    let all = all_blocks();
    let examples: Vec<_> = all.into_iter().filter(uses_a_space).collect();
    let fixtures = blocks_in("tests/docs/fixtures.md", include_str!("fixtures.md"));
    let all: Vec<_> = examples.iter().chain(&fixtures).collect();
    let program = program::build(&all);
    Cases { examples, fixtures, program }
});

fn rounds() -> u32 {
    std::env::var(ROUNDS_WANTED).map_or(ROUNDS, |rounds| rounds.parse().unwrap())
}

/// Whether the example is a program: others only show what compiles.
fn uses_a_space(block: &Block) -> bool {
    block.tags().all(|tag| matches!(tag, "rust" | "no_run"))
        && ["Space::open", "Space::format"].iter().any(|call| block.program.contains(call))
}

/// When a run is killed, if it is.
#[derive(Debug, Clone, Copy)]
enum Until {
    Done,
    Statement(u64),
    Instant(Duration),
}

/// How it ended.
#[derive(Debug)]
struct End {
    /// `None`: it hung.
    status: Option<ExitStatus>,
    /// What it wrote to standard error.
    said: String,
}

/// The result of a run that was not killed.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Well,
    /// It passed on that an owner died.
    Told,
    Bad(String),
}

impl End {
    fn was_killed(&self) -> bool {
        const KILL: i32 = 9;
        self.status.is_some_and(|status| status.signal() == Some(KILL))
    }

    /// The error that `main` of an example returns is printed as `Error: ` and its `Debug`.
    fn verdict(&self) -> Verdict {
        let bad = |what: &str| {
            let said: Vec<_> = self.said.lines().take(LINES).collect();
            Verdict::Bad(format!("{what}: {}", said.join("\n")))
        };
        let Some(status) = self.status else { return bad("hangs") };
        if let Some(signal) = status.signal() {
            return bad(&format!("ends by signal {signal}"));
        }
        if self.said.contains("Unrecoverable") {
            return bad("finds a lock given up");
        }
        match status.code() {
            Some(0) => Verdict::Well,
            Some(1) if self.said.contains("Error: OwnerDied(") => Verdict::Told,
            _ => bad("ends with another error"),
        }
    }
}

/// Counts of the kills and runs, for people.
#[derive(Debug, Default)]
struct Tally {
    /// Kills at statements, and at instants.
    kills: [u32; 2],
    /// Runs to the end after that: those that succeeded, and those that passed on a death.
    ends: [u32; 2],
}

/// One example, with a directory of its own for its spaces.
struct Trial<'a> {
    program: &'a Path,
    example: &'a Block,
    directory: PathBuf,
    limit: Duration,
    tally: Tally,
}

impl<'a> Trial<'a> {
    fn new(example: &'a Block, limit: Duration) -> Self {
        let name = format!("killed-{}-{}", std::process::id(), example.identifier());
        let directory = commonhold::shm_directory().join(name);
        fs::create_dir(&directory).unwrap();
        Self { program: &CASES.program, example, directory, limit, tally: Tally::default() }
    }

    fn run(&self, until: Until) -> End {
        let mut command = Command::new(self.program);
        command.arg(self.example.identifier()).env("COMMONHOLD_SHM_DIR", &self.directory);
        command.env("RUST_BACKTRACE", "0");
        if let Until::Statement(number) = until {
            command.env(program::POINT, number.to_string());
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut errors = child.stderr.take().unwrap();
        let reader = thread::spawn(move || {
            let mut said = Vec::new();
            errors.read_to_end(&mut said).map(|_| said)
        });
        if let Until::Instant(instant) = until {
            thread::sleep(instant);
            child.kill().unwrap();
        }
        let status = self.wait(&mut child);
        let said = reader.join().unwrap().unwrap();
        End { status, said: String::from_utf8_lossy(&said).into_owned() }
    }

    fn wait(&self, child: &mut Child) -> Option<ExitStatus> {
        const PAUSE: Duration = Duration::from_micros(200);
        let begun = Instant::now();
        while begun.elapsed() < self.limit {
            if let Some(status) = child.try_wait().unwrap() {
                return Some(status);
            }
            thread::sleep(PAUSE);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        None
    }

    /// Kills it at statements and at instants. The error says what went wrong, and after which kills.
    fn kill_in_all_ways(&mut self, random: &mut Rng) -> Result<(), String> {
        let usual = self.usual_time()?;
        for number in 1..=POINTS {
            if !self.is_killed(Until::Statement(number))? {
                break;
            }
            self.tally.kills[0] += 1;
            self.finish().map_err(|what| format!("killed at statement {number}, {what}"))?;
        }
        for _round in 0..rounds() {
            let instants: Vec<_> = (0..KILLS).map(|_kill| usual.mul_f64(random.f64())).collect();
            for instant in &instants {
                self.tally.kills[1] += u32::from(self.is_killed(Until::Instant(*instant))?);
            }
            self.finish().map_err(|what| format!("killed after {instants:?}, {what}"))?;
        }
        Ok(())
    }

    /// Whether a run was killed, and did not end before.
    fn is_killed(&self, until: Until) -> Result<bool, String> {
        let end = self.run(until);
        match end.verdict() {
            _ if end.was_killed() => Ok(true),
            Verdict::Well | Verdict::Told => Ok(false),
            Verdict::Bad(what) => Err(format!("in a run to be killed, it {what}")),
        }
    }

    /// How long a run takes without a kill: the shorter of two, because the first fills caches.
    fn usual_time(&self) -> Result<Duration, String> {
        let mut usual = self.limit;
        for _run in 0..2 {
            let begun = Instant::now();
            let end = self.run(Until::Done);
            usual = usual.min(begun.elapsed());
            if end.verdict() != Verdict::Well {
                return Err(format!("in its first run, it {:?}", end.verdict()));
            }
            self.tidy().map_err(|what| format!("after a first run, {what}"))?;
        }
        Ok(usual)
    }

    /// Runs it to its end in the space that the killed runs have left.
    fn finish(&mut self) -> Result<(), String> {
        let verdict = self.run(Until::Done).verdict();
        let tidied = self.tidy();
        self.tally.ends[match verdict {
            Verdict::Well => 0,
            Verdict::Told => 1,
            Verdict::Bad(what) => return Err(format!("it {what}")),
        }] += 1;
        tidied
    }

    /// Checks the space that was left, and removes it.
    fn tidy(&self) -> Result<(), String> {
        for entry in fs::read_dir(&self.directory).unwrap() {
            let url = format!("file:{}", entry.unwrap().path().display());
            let looked = look(&url).map_err(|error| format!("left is what {error}"));
            let removed = Space::remove(&url, Removal::IfUnused);
            looked.and(removed.map_err(|error| format!("it cannot be removed: {error}")))?;
        }
        Ok(())
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Whether a space is consistent, and no lock in it was given up.
fn look(url: &str) -> Result<(), String> {
    let space = Space::open(url).map_err(|error| format!("cannot be opened: {error}"))?;
    space.check().map_err(|error| format!("is not whole: {error}"))?;
    let locks = space.locks().map_err(|error| format!("has no list of locks: {error}"))?;
    match locks.iter().find(|lock| lock.kind == LockKind::Unrecoverable) {
        Some(lock) => Err(format!("has a lock given up: {lock:?}")),
        None => Ok(()),
    }
}

/// Tries all examples, as many at once as there are processors. The results are in their order.
fn try_all(examples: &[Block], limit: Duration, seed: u64) -> Vec<(Tally, Result<(), String>)> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut results = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(example) = examples.get(number) else { return results };
            let mut trial = Trial::new(example, limit);
            let result = trial.kill_in_all_ways(&mut Rng::with_seed(seed));
            let result = result.map_err(|what| format!("{}: {what}", example.place));
            results.push((number, (std::mem::take(&mut trial.tally), result)));
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let mut results: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

#[test]
#[cfg_attr(
    target_env = "musl",
    ignore = "the program is built for this machine's own target anyway"
)]
fn every_example_survives_kills() {
    let seed = std::env::var(SEED).map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    let examples = &CASES.examples;
    let begun = Instant::now();
    let results = try_all(examples, LIMIT, seed);
    let (mut tally, mut wrong) = (Tally::default(), Vec::new());
    for (part, result) in results {
        for (sum, part) in tally.kills.iter_mut().zip(part.kills) {
            *sum += part;
        }
        for (sum, part) in tally.ends.iter_mut().zip(part.ends) {
            *sum += part;
        }
        wrong.extend(result.err());
    }
    let ([statements, instants], [well, told]) = (tally.kills, tally.ends);
    println!(
        "{} examples; killed {statements} times at a statement and {instants} times at an instant; then ended well \
         {well} times, and told of a death {told} times; {:.1} s",
        examples.len(),
        begun.elapsed().as_secs_f64()
    );
    assert!(wrong.is_empty(), "{SEED}={seed}\n{}", wrong.join("\n"));
    // Otherwise the test has tried nothing.
    assert!(told > 0 && statements as usize > examples.len() && instants as usize > examples.len());
}

#[test]
#[cfg_attr(
    target_env = "musl",
    ignore = "the program is built for this machine's own target anyway"
)]
fn an_example_that_gives_up_hangs_or_ends_by_a_signal_is_reported() {
    let limit = Duration::from_secs(5);
    let results = try_all(&CASES.fixtures, limit, 0);
    let said: Vec<_> = results.into_iter().map(|(_, result)| result.unwrap_err()).collect();
    let expected = [
        "finds a lock given up",
        "hangs",
        "ends by signal 6",
        "has a lock given up",
        "another error: Error: Exists",
    ];
    assert_eq!(said.len(), expected.len());
    for (said, expected) in said.iter().zip(expected) {
        assert!(said.contains(expected), "{said}");
    }
}
