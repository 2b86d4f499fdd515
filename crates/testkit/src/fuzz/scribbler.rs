//! A process that writes random words into a space, while others use it.
//!
//! A round has a new space, some workers, and one writer. The workers may get errors and may see damage, but they must
//! neither end in another way nor stop to report progress. Rounds are short, since a badly damaged space tests little.

use std::{
    fs,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use commonhold::{FormatOptions, Space};
use commonhold_layout::Geometry;
use fastrand::Rng;

use super::{
    Finding, Job, Run,
    child::{End, FOR_EVER, Said, Worker, say},
    image::{Bytes, scribble},
    operations,
    tally::Tally,
};

const WORKERS: u64 = 3;
/// How long a round is.
const ROUND: Duration = Duration::from_millis(1500);
/// How long an operation of a worker may wait.
const BRIEFLY: Duration = Duration::from_millis(10);

pub(super) fn run(run: &mut Run) -> Finding {
    let path = run.arena.path().join("scribbled");
    let url = run.arena.url("scribbled");
    while run.goes_on() {
        let seed = run.next_seed();
        let _ = fs::remove_file(&path);
        let options = FormatOptions {
            capacity: Some(2 << 20),
            peers: Some(8),
            threads: Some(8),
            regions: Some(32),
            ..FormatOptions::default()
        };
        Space::format(&url, &options).map_err(|error| error.to_string())?;
        let mut workers = (0..WORKERS)
            .map(|index| {
                let log = run.arena.path().join(format!("log-{index}"));
                let seed = seed.wrapping_mul(WORKERS).wrapping_add(index).to_string();
                Worker::start(&["scribbled-worker", &url, "--seed", &seed], &log)
            })
            .collect::<Finding<Vec<_>>>()?;
        let log = run.arena.path().join("log-scribbler");
        let path = path.to_string_lossy();
        let mut scribbler =
            Worker::start(&["scribbler", &path, "--seed", &seed.to_string()], &log)?;
        for (index, worker) in workers.iter_mut().enumerate() {
            listen(run, seed, index, worker)?;
        }
        scribbler.kill();
    }
    Ok(())
}

/// Listens to a worker until it ends.
fn listen(run: &mut Run, seed: u64, index: usize, worker: &mut Worker) -> Finding {
    let mut last = String::new();
    loop {
        match worker.hear(FOR_EVER)? {
            Said::Line(line) => {
                run.tally.hear(&line);
                last = line;
            }
            Said::End(End::Exit(0)) => return Ok(()),
            Said::End(how) => {
                let log = run.arena.path().join(format!("log-{index}"));
                let why = fs::read_to_string(log).unwrap_or_default();
                run.finds(seed, &format!("a worker: {how:?} after {last:?}: {}", why.trim_end()));
                return Ok(());
            }
        }
    }
}

/// A worker: does random operations until the round is over.
pub(super) fn work(job: &Job) -> ExitCode {
    let mut random = Rng::with_seed(job.seed);
    let mut tally = Tally::default();
    let Some(url) = job.rest.first() else { return ExitCode::FAILURE };
    let end = Instant::now() + ROUND;
    while Instant::now() < end {
        say("at work");
        match Space::open_within(url, BRIEFLY) {
            Ok(space) => {
                let space = space.within(BRIEFLY);
                for _ in 0..50 {
                    operations::any(&space, &mut random, &mut tally);
                    say("at work");
                    if Instant::now() >= end {
                        break;
                    }
                }
            }
            Err(error) => tally.count("open", &format!("{:?}", error.kind())),
        }
    }
    tally.lines().for_each(|line| say(&line));
    ExitCode::SUCCESS
}

/// The writer: writes until it is killed.
pub(super) fn write(job: &Job) -> ExitCode {
    let mut random = Rng::with_seed(job.seed);
    let Some(bytes) = job.rest.first().and_then(|path| Bytes::open(Path::new(path)).ok()) else {
        return ExitCode::FAILURE;
    };
    let Some(geometry) = bytes.geometry() else { return ExitCode::FAILURE };
    loop {
        if let Some(scribble) = scribble(&mut random) {
            scribble.apply(&bytes, &geometry);
        }
        heal(&bytes, &geometry, &mut random);
    }
}

/// Restores the header now and then, so that new peers get further than the header.
fn heal(bytes: &Bytes, geometry: &Geometry, random: &mut Rng) {
    use super::scribble::Words as _;
    if random.u8(..4) == 0 {
        for (at, word) in (0_u64..).step_by(8).zip(geometry.header()) {
            bytes.set(at, word);
        }
    }
}
