//! All runs of the suite: which process dies at which point, in several stages.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc::{RecvTimeoutError, channel},
    },
    time::{Duration, Instant},
};

use commonhold_window::Point;

use crate::crash::{
    Outcome,
    actor::Hit,
    formatters,
    medium::SmallMemory,
    recovery::{Bystander, recover},
    removers,
    scenarios::{self, Scenario},
    scene::{Arm, Scene},
};

/// How many runs there are at the same time. They mostly wait.
const WORKERS: usize = 4;

/// How many failures are printed; the rest is only counted.
const TOLD: usize = 20;

/// After this many failures the suite ends, since each may be a hang that takes long.
const ENOUGH: usize = 20;

/// The longest run. A hang of a child has a shorter limit, so it is reported as such.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many runs die at the same two points.
const SAME_PAIR: u32 = 3;

/// Variable that makes the suite run everything, which takes some minutes.
const EVERYTHING: &str = "COMMONHOLD_CRASH_ALL";

/// One run of one scenario.
#[derive(Clone, Copy)]
struct Job {
    scenario: &'static Scenario,
    /// Which process dies in the script, and where.
    first: Option<Arm>,
    /// Where the process that recovers from that death dies.
    second: Option<Hit>,
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.scenario.name)?;
        if let Some(Arm { who, at: (point, hit) }) = self.first {
            write!(f, ", process {who} dead at hit {hit} of {}", point.name())?;
        }
        if let Some((point, hit)) = self.second {
            write!(f, ", the recovering process dead at hit {hit} of {}", point.name())?;
        }
        Ok(())
    }
}

/// What a run has shown.
#[derive(Default)]
struct Seen {
    /// The points that each process of the script passed.
    script: Vec<Vec<Point>>,
    /// The points that the first recovering process passed.
    recovery: Vec<Point>,
    /// Whether the armed process died, in the script and in the recovery.
    died: (bool, bool),
}

/// The result of the suite.
#[derive(Debug, Default)]
pub struct Report {
    /// For each point, the number of deaths at it in scripts and in recoveries.
    pub kills: BTreeMap<&'static str, (u32, u32)>,
    /// The runs that failed.
    pub failures: Vec<String>,
    /// How many armed processes did not pass their point again, which depends on timing.
    pub missed: u32,
    /// The number of all runs.
    pub runs: usize,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    /// The points at which no process died.
    #[must_use]
    pub fn unreached(&self) -> Vec<&'static str> {
        let killed = |name: &&str| self.kills.get(*name).is_some_and(|kills| kills.0 + kills.1 > 0);
        Point::ALL.iter().map(|point| point.name()).filter(|name| !killed(name)).collect()
    }

    fn add(&mut self, job: Job, outcome: Outcome<Seen>) -> Seen {
        self.runs += 1;
        let seen = outcome.unwrap_or_else(|why| {
            self.failures.push(format!("{job}: {why}"));
            Seen::default()
        });
        let armed = [
            (job.first.map(|arm| arm.at.0), seen.died.0, 0),
            (job.second.map(|hit| hit.0), seen.died.1, 1),
        ];
        for (point, died, stage) in armed {
            let Some(point) = point else { continue };
            let kills = self.kills.entry(point.name()).or_default();
            match (died, stage) {
                (false, _) => self.missed += 1,
                (true, 0) => kills.0 += u32::from(job.second.is_none()),
                (true, _) => kills.1 += 1,
            }
        }
        seen
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<24} {:>8} {:>8}", "point", "script", "recovery")?;
        for (name, (script, recovery)) in &self.kills {
            writeln!(f, "{name:<24} {script:>8} {recovery:>8}")?;
        }
        let sum = |pick: fn(&(u32, u32)) -> u32| self.kills.values().map(pick).sum::<u32>();
        let points = Point::ALL.len() - self.unreached().len();
        writeln!(f, "{points} of {} points died at", Point::ALL.len())?;
        writeln!(f, "{:<24} {:>8} {:>8}", "kills", sum(|k| k.0), sum(|k| k.1))?;
        writeln!(f, "{} runs in {:.1?}, {} misses", self.runs, self.took, self.missed)?;
        for failure in self.failures.iter().take(TOLD) {
            writeln!(f, "FAILED: {failure}")?;
        }
        write!(f, "{} failures", self.failures.len())
    }
}

/// Runs everything, with `program` as the program of the children.
#[must_use]
pub fn run(program: &Path) -> Report {
    let began = Instant::now();
    let mut report = Report::default();
    let possible = |scenario: &&Scenario| scenario.memory.is_none_or(can_mount);
    let dry: Vec<Job> = scenarios::ALL
        .iter()
        .filter(possible)
        .map(|scenario| Job { scenario, first: None, second: None })
        .collect();
    let rehearsed = stage(program, &mut report, "rehearsal", &dry);
    let first: Vec<Job> = rehearsed.iter().flat_map(|(job, seen)| deaths(*job, seen)).collect();
    let played = stage(program, &mut report, "deaths in scripts", &first);
    let second = spread(played.iter().flat_map(|(job, seen)| relapses(*job, seen)).collect());
    stage(program, &mut report, "deaths in recoveries", &second);
    deaths_of_formatters(program, &mut report);
    removals(program, &mut report);
    report.took = began.elapsed();
    report
}

fn deaths_of_formatters(program: &Path, report: &mut Report) {
    for first in formatters::POINTS {
        let seconds = formatters::POINTS.map(Some);
        for second in [None].into_iter().chain(seconds) {
            report.runs += 1;
            if let Err(why) = formatters::play(program, first, second) {
                let then = second.map_or("nothing", Point::name);
                report.failures.push(format!("formatters, {} then {then}: {why}", first.name()));
                continue;
            }
            report.kills.entry(first.name()).or_default().0 += u32::from(second.is_none());
            if let Some(second) = second {
                report.kills.entry(second.name()).or_default().1 += 1;
            }
        }
    }
}

/// Deaths and stops of removers, and stops of openers.
fn removals(program: &Path, report: &mut Report) {
    for how in removers::How::ALL {
        let comes = [("openers".to_owned(), removers::comes(program, how))];
        let at = removers::POINTS.into_iter().flat_map(|at| {
            let name = at.0.name();
            let stopped = removers::is_stopped(program, at, how);
            let died = removers::dies(program, at, how);
            if died.is_ok() {
                report.kills.entry(name).or_default().0 += 1;
            }
            [(format!("{name}, stopped"), stopped), (format!("{name}, dead"), died)]
        });
        let outcomes: Vec<_> = at.chain(comes).collect();
        for (what, outcome) in outcomes {
            report.runs += 1;
            if let Err(why) = outcome {
                report.failures.push(format!("{how:?}: {what}: {why}"));
            }
        }
    }
}

fn can_mount(bytes: u64) -> bool {
    let tried = SmallMemory::mount(bytes, &format!("try-{}", std::process::id()));
    let refused = tried.as_ref().err().inspect(|why| eprintln!("note: one left out: {why}"));
    refused.is_none()
}

/// A run for the first and the last hit of each point, by each process of the script.
fn deaths(job: Job, seen: &Seen) -> Vec<Job> {
    let mut jobs = vec![];
    for (who, trace) in seen.script.iter().enumerate() {
        for (point, count) in counts(trace) {
            for hit in HashSet::from([1, count]) {
                jobs.push(Job { first: Some(Arm { who, at: (point, hit) }), ..job });
            }
        }
    }
    jobs
}

/// A run for the first hit of each point in the recovery from a death, if that death was at a first hit.
fn relapses(job: Job, seen: &Seen) -> Vec<Job> {
    if !seen.died.0 || job.first.is_none_or(|arm| arm.at.1 != 1) {
        return vec![];
    }
    let points = counts(&seen.recovery).into_iter();
    points.map(|(point, _)| Job { second: Some((point, 1)), ..job }).collect()
}

/// Keeps a few of the runs that die at the same two points, with different scenarios and roles; or all of them, if the
/// environment says so.
fn spread(mut jobs: Vec<Job>) -> Vec<Job> {
    if std::env::var_os(EVERYTHING).is_some() {
        return jobs;
    }
    // A fixed pseudo-random order, so that not always the first scenarios are kept.
    jobs.sort_by_key(|job| {
        let mut hasher = DefaultHasher::new();
        job.to_string().hash(&mut hasher);
        hasher.finish()
    });
    let mut taken: HashMap<_, u32> = HashMap::new();
    jobs.retain(|job| {
        let pair = (job.first.map(|arm| arm.at.0), job.second.map(|hit| hit.0));
        let count = taken.entry(pair).or_default();
        *count += 1;
        *count <= SAME_PAIR
    });
    jobs
}

fn counts(trace: &[Point]) -> Vec<(Point, u32)> {
    Point::ALL
        .iter()
        .map(|point| (*point, trace.iter().filter(|hit| *hit == point).count()))
        .filter(|(_, count)| *count > 0)
        .map(|(point, count)| (point, u32::try_from(count).unwrap_or(u32::MAX)))
        .collect()
}

fn stage(program: &Path, report: &mut Report, name: &str, jobs: &[Job]) -> Vec<(Job, Seen)> {
    let began = Instant::now();
    let failed = report.failures.len();
    let (next, failures) = (AtomicUsize::new(0), AtomicUsize::new(failed));
    let outcomes = Mutex::new(vec![]);
    let worker = || {
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            if failures.load(Ordering::Relaxed) >= ENOUGH {
                break;
            }
            let outcome = watched(program, *job);
            failures.fetch_add(usize::from(outcome.is_err()), Ordering::Relaxed);
            outcomes.lock().unwrap_or_else(PoisonError::into_inner).push((*job, outcome));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(worker);
        }
    });
    let outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    let seen: Vec<_> =
        outcomes.into_iter().map(|(job, outcome)| (job, report.add(job, outcome))).collect();
    let failed = report.failures.len() - failed;
    eprintln!("{name}: {} runs, {failed} failures, {:.1?}", seen.len(), began.elapsed());
    seen
}

/// One run, in its own thread, which is abandoned if it hangs: the driver itself calls the library under test, too.
fn watched(program: &Path, job: Job) -> Outcome<Seen> {
    let (sender, outcome) = channel();
    let program = program.to_owned();
    std::thread::spawn(move || sender.send(play(&program, job)));
    match outcome.recv_timeout(PATIENCE) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout) => Err(format!("the driver hangs for {PATIENCE:?}")),
        Err(RecvTimeoutError::Disconnected) => Err("the driver has panicked".into()),
    }
}

/// One run: the script, the recovery, and another recovery if the first one died, too.
fn play(program: &Path, job: Job) -> Outcome<Seen> {
    let mut scene = Scene::new(program, job.scenario.peers, job.scenario.memory)?;
    scene.arm = job.first;
    let script = |scene: &mut Scene<'_>| {
        let played = (job.scenario.script)(scene).and_then(|()| scene.end());
        played.map_err(|why| format!("in the script, {why}"))
    };
    if job.scenario.untouched {
        script(&mut scene)?;
    }
    let bystander = Bystander::join(&mut scene)?;
    let guards = bystander.lock()?;
    if !job.scenario.untouched {
        script(&mut scene)?;
    }
    let mut seen = Seen::default();
    seen.died.0 = scene.deaths > 0;
    seen.script = scene.actors.iter().map(|actor| actor.trace.clone()).collect();
    scene.arm = job.second.map(|at| Arm { who: scene.actors.len(), at });
    let who = recover(&mut scene).map_err(|why| format!("in the recovery, {why}"))?;
    seen.recovery = scene.actor(who)?.trace.clone();
    seen.died.1 = !scene.actor(who)?.alive;
    if seen.died.1 {
        recover(&mut scene).map_err(|why| format!("in the second recovery, {why}"))?;
    }
    scene.end()?;
    bystander.keeps(guards, &mut scene.ledger)?;
    bystander.alone()?;
    bystander.leave(&scene.url)?;
    Ok(seen)
}
