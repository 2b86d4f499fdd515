//! The run of the torture: starts workers, kills and stops them at random instants, ends the rest, and checks what
//! they left.

use std::{
    path::PathBuf,
    process::Child,
    thread,
    time::{Duration, Instant},
};

use commonhold::{
    Access, CreateOptions, Destroy, ErrorKind, FormatOptions, Mapping, RawMutexGuard, Space,
};
use commonhold_console::{
    clock::now_ns,
    failure::{Doing, Failure, broken},
    output::Out,
    random::{Random, mix},
    session::Session,
    signals::Signals,
    workers::{self, Order, PATIENCE, TestSpace},
};
use serde::Serialize;

use super::{
    account::{Account, CELLS, CONTROL, LEDGER, LEDGER_SIZE, MUTEX, STOP, Which, cell_at},
    checker,
    history::{self, History, Killed},
    log,
    stops::{Stops, around},
};
use crate::args::TortureArgs;

#[derive(Debug, Default, Serialize)]
struct Summary {
    seconds: f64,
    peers: u64,
    kills: u64,
    stops: u64,
    /// How many of the kills hit a worker that was stopped.
    killed_stopped: u64,
    recoveries: u64,
    expected: u64,
    seen: u64,
    lost: i128,
    leaked_regions: usize,
    stuck: u64,
    operations: usize,
    violations: usize,
    seed: u64,
    findings: Vec<String>,
}

pub(crate) fn torture(session: &Session, args: &TortureArgs) -> Result<(), Failure> {
    workers::watchdog(session, "the torture", Duration::from_secs(args.seconds) + 9 * PATIENCE);
    let seed = args.seed.unwrap_or_else(|| mix(now_ns() ^ u64::from(std::process::id())) >> 32);
    let signals = Signals::watch()?;
    let options =
        FormatOptions { peers: Some((2 * args.peers + 16).max(128)), ..FormatOptions::default() };
    let (run_space, space) = TestSpace::prepare(session, "torture", &options)?;
    let dir = std::env::temp_dir().join(format!("commonhold-torture-{}", std::process::id()));
    std::fs::create_dir_all(&dir).doing(|| format!("create {}", dir.display()))?;
    session.out.tell(&format!(
        "seed {seed}, space {}, logs in {}",
        run_space.url,
        dir.display()
    ))?;
    let mut run = Run::prepare(session.out, &run_space, &space, args, seed, dir)?;
    let result = run.perform(&signals).and_then(|()| run.judge());
    for child in &mut run.children {
        if let Err(error) = workers::kill(child) {
            tracing::warn!(%error, "a worker could not be killed");
        }
    }
    result?;
    let (summary, dir) = (run.summary, run.dir);
    run_space.remove(space)?;
    report(session.out, summary, &dir)
}

fn report(out: Out, summary: Summary, dir: &std::path::Path) -> Result<(), Failure> {
    if out.json {
        out.value(&summary)?;
    } else {
        for finding in &summary.findings {
            out.line(&format!("violation: {finding}"))?;
        }
        out.pairs(&[
            ("seconds", format!("{:.1}", summary.seconds)),
            ("peers", summary.peers.to_string()),
            ("kills", summary.kills.to_string()),
            (
                "stops",
                format!("{}, {} of them ended by a kill", summary.stops, summary.killed_stopped),
            ),
            ("recoveries", summary.recoveries.to_string()),
            ("increments", format!("{} of {}", summary.seen, summary.expected)),
            ("lost", summary.lost.to_string()),
            ("operations", summary.operations.to_string()),
            ("violations", summary.violations.to_string()),
            ("leaked regions", summary.leaked_regions.to_string()),
            ("stuck", summary.stuck.to_string()),
        ])?;
    }
    let clean = summary.lost == 0
        && summary.leaked_regions == 0
        && summary.stuck == 0
        && summary.violations == 0;
    if !clean {
        let seed = summary.seed;
        return Err(broken(format!(
            "violations (seed {seed}); the logs stay in {}",
            dir.display()
        )));
    }
    std::fs::remove_dir_all(dir).doing(|| format!("remove {}", dir.display()))
}

struct Run<'a> {
    out: Out,
    run_space: &'a TestSpace,
    space: &'a Space,
    args: &'a TortureArgs,
    dir: PathBuf,
    random: Random,
    books: Option<[Mapping; 3]>,
    children: Vec<Child>,
    /// The incarnation of each child.
    incarnations: Vec<usize>,
    /// For each incarnation, when it was killed.
    killed: Vec<Option<Killed>>,
    stops: Stops,
    /// How many incarnations have a cell.
    most: u64,
    used_before: u64,
    began: Instant,
    summary: Summary,
}

impl<'a> Run<'a> {
    fn prepare(
        out: Out,
        run_space: &'a TestSpace,
        space: &'a Space,
        args: &'a TortureArgs,
        seed: u64,
        dir: PathBuf,
    ) -> Result<Self, Failure> {
        let what = || "prepare the ledger".to_owned();
        let used_before = space.info().doing(what)?.used;
        let every = u64::try_from(args.kill_every.as_micros()).unwrap_or(u64::MAX);
        // The pause between two kills is at least half of `--kill-every`.
        let kills = (args.seconds * 2_000_000).checked_div(every).unwrap_or(0);
        // Each stop may end with one more kill.
        let every = args.stop_every.map_or(0, |every| every.as_micros());
        let stops = u128::from(args.seconds * 2_000_000).checked_div(every).unwrap_or(0);
        let stops = u64::try_from(stops).unwrap_or(u64::MAX);
        let most = args.peers + kills.saturating_add(stops).min(1_000_000) + 16;
        let map = |name: &str, size: u64| {
            let options = CreateOptions { size, ..CreateOptions::default() };
            space.create_with(name, &options)?.map(Access::ReadWrite)
        };
        let books = [
            map(CONTROL, 64).doing(what)?,
            map(LEDGER, LEDGER_SIZE).doing(what)?,
            map(CELLS, cell_at(most, Which::Region)).doing(what)?,
        ];
        let mut random = Random::new(seed);
        let stops = Stops::plan(args.stop_every, &mut random);
        let mut run = Self {
            out,
            run_space,
            space,
            args,
            dir,
            random,
            books: Some(books),
            children: Vec::new(),
            incarnations: Vec::new(),
            killed: Vec::new(),
            stops,
            most,
            used_before,
            began: Instant::now(),
            summary: Summary { peers: args.peers, seed, ..Summary::default() },
        };
        for _ in 0..args.peers {
            let child = run.start()?;
            run.incarnations.push(run.killed.len() - 1);
            run.children.push(child);
        }
        Ok(run)
    }

    /// Starts the next incarnation.
    fn start(&mut self) -> Result<Child, Failure> {
        let cell = u64::try_from(self.killed.len()).unwrap_or(u64::MAX);
        let child = workers::start(Order {
            command: "torture-worker",
            url: &self.run_space.url,
            owners: self.run_space.owners,
            cell,
            seed: self.random.next(),
            peers: self.args.peers,
            log: &self.dir,
        })?;
        self.killed.push(None);
        Ok(child)
    }

    fn perform(&mut self, signals: &Signals) -> Result<(), Failure> {
        let end = Duration::from_secs(self.args.seconds);
        let mut next_kill = self.pause();
        let mut next_report = Duration::from_secs(5);
        while self.began.elapsed() < end && signals.last().is_none() {
            thread::sleep(self.tick());
            let now = self.began.elapsed();
            self.end_stops(now)?;
            let killing = now >= next_kill;
            if let Some(longest) = self.stops.is_due(now, killing, &mut self.random) {
                self.stop_somebody(now, longest);
            }
            if killing {
                let victim = self.somebody();
                self.kill(victim)?;
                // Counted from the planned time, not from now: otherwise a slow machine would see fewer kills.
                next_kill += self.pause();
            }
            self.replace_failed()?;
            if now >= next_report {
                let (seconds, kills) = (now.as_secs(), self.summary.kills);
                self.out.tell(&format!("{seconds:4} s  {kills} killed"))?;
                next_report = now + Duration::from_secs(5);
            }
        }
        let stopped = self.stops.over(Duration::MAX);
        self.resume(&stopped);
        self.summary.stops = self.stops.count;
        self.summary.seconds = self.began.elapsed().as_secs_f64();
        self.stop()
    }

    fn somebody(&mut self) -> usize {
        usize::try_from(self.random.below(self.args.peers)).unwrap_or(0)
    }

    /// How long to sleep between two checks of what is due.
    fn tick(&self) -> Duration {
        let calm = Duration::from_millis(20);
        let kills = Some(self.args.kill_every / 2).filter(|half| !half.is_zero());
        kills.into_iter().chain(self.stops.tick()).fold(calm, Duration::min).max(MOMENT)
    }

    fn stop_somebody(&mut self, now: Duration, longest: Duration) {
        let victim = self.somebody();
        let longest = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        let until = now + Duration::from_micros(self.random.below(longest));
        if let (Some(child), Some(&incarnation)) =
            (self.children.get_mut(victim), self.incarnations.get(victim))
        {
            self.stops.stop(child, victim, incarnation, until);
        }
    }

    /// Ends the stops whose time is up: kills some of these workers while they are stopped, if there are kills at
    /// all, and continues the others.
    fn end_stops(&mut self, now: Duration) -> Result<(), Failure> {
        for victim in self.stops.over(now) {
            let kills = !self.args.kill_every.is_zero() && self.args.stop_every.is_some();
            if kills && self.random.below(4) == 0 {
                self.kill(victim)?;
            }
            self.resume(&[victim]);
        }
        Ok(())
    }

    /// Continues those of these workers that are still stopped.
    fn resume(&mut self, victims: &[usize]) {
        for &victim in victims {
            if self.stops.is_stopped(victim)
                && let Some(child) = self.children.get_mut(victim)
            {
                self.stops.resume(child, victim);
            }
        }
    }

    /// A random pause, from half to one and a half of `--kill-every`.
    fn pause(&mut self) -> Duration {
        if self.args.kill_every.is_zero() {
            return Duration::MAX / 2;
        }
        around(self.args.kill_every, &mut self.random)
    }

    fn kill(&mut self, victim: usize) -> Result<(), Failure> {
        let what = || "kill a worker".to_owned();
        if u64::try_from(self.killed.len()).unwrap_or(u64::MAX) >= self.most {
            return Ok(());
        }
        let Some(child) = self.children.get_mut(victim) else { return Ok(()) };
        let before = now_ns();
        if !workers::kill(child).doing(what)? {
            // The worker failed by itself; `replace_failed` reports it.
            self.stops.has_ended(victim);
            return Ok(());
        }
        let moment = Killed { before, after: now_ns() };
        let incarnation = self.incarnations.get(victim).copied().unwrap_or(0);
        if let Some(place) = self.killed.get_mut(incarnation) {
            *place = Some(moment);
        }
        self.summary.kills += 1;
        self.summary.killed_stopped += u64::from(self.stops.has_ended(victim));
        self.renew(victim)
    }

    fn renew(&mut self, victim: usize) -> Result<(), Failure> {
        let fresh = self.start()?;
        let incarnation = self.killed.len() - 1;
        if let (Some(child), Some(number)) =
            (self.children.get_mut(victim), self.incarnations.get_mut(victim))
        {
            (*child, *number) = (fresh, incarnation);
        }
        Ok(())
    }

    /// Replaces workers that ended by themselves, which is a failure. Too many of them end the run.
    fn replace_failed(&mut self) -> Result<(), Failure> {
        for victim in 0..self.children.len() {
            let Some(child) = self.children.get_mut(victim) else { continue };
            let ended = child.try_wait().doing(|| "look at a worker".to_owned())?;
            let Some(status) = ended else { continue };
            let incarnation = self.incarnations.get(victim).copied().unwrap_or(0);
            self.summary.findings.push(format!("worker {incarnation} ended early: {status}"));
            self.stops.has_ended(victim);
            // Its unfinished operations count like those of a killed worker: its process is gone.
            let moment = Killed { before: 0, after: now_ns() };
            if let Some(place) = self.killed.get_mut(incarnation) {
                *place = Some(moment);
            }
            if self.summary.findings.len() > 8 {
                let all = self.all_findings().join("\n");
                return Err(broken(format!("too many workers failed:\n{all}")));
            }
            self.renew(victim)?;
        }
        Ok(())
    }

    fn books(&self) -> Result<&[Mapping; 3], Failure> {
        self.books.as_ref().ok_or_else(|| broken("the ledger is unmapped"))
    }

    fn stop(&mut self) -> Result<(), Failure> {
        let [control, ..] = self.books()?;
        control.set(STOP, &1_u64).doing(|| "tell the workers to stop".to_owned())?;
        let joined = workers::join(&mut self.children);
        self.summary.stuck = joined.stuck;
        for pid in joined.failed {
            self.summary.findings.push(format!("worker with pid {pid} failed at the end"));
        }
        Ok(())
    }

    fn judge(&mut self) -> Result<(), Failure> {
        let what = || "check what is left".to_owned();
        self.space.reap().doing(what)?;
        self.count()?;
        for mapping in self.books.take().into_iter().flatten() {
            mapping.unmap().doing(what)?;
        }
        self.sweep()?;
        let mut operations = Vec::new();
        for incarnation in 0..self.killed.len() {
            let number = u64::try_from(incarnation).unwrap_or(u64::MAX);
            operations.extend(log::operations(&self.dir, number).doing(what)?);
        }
        self.summary.operations = operations.len();
        history::tally(&operations);
        let stopped = self.stops.take_past();
        let history = History { operations, killed: std::mem::take(&mut self.killed), stopped };
        let violations = checker::check(&history);
        self.killed = history.killed;
        self.summary.findings = self.all_findings();
        self.summary.findings.extend(violations);
        self.summary.violations = self.summary.findings.len();
        Ok(())
    }

    fn all_findings(&self) -> Vec<String> {
        let incarnations = 0..u64::try_from(self.killed.len()).unwrap_or(0);
        let logged = incarnations.flat_map(|number| log::findings(&self.dir, number));
        self.summary.findings.iter().cloned().chain(logged).collect()
    }

    /// Compares the counters with the cells. A cell must lie between what its worker has acknowledged and announced.
    fn count(&mut self) -> Result<(), Failure> {
        let what = || "count the increments".to_owned();
        let mut findings = Vec::new();
        let (mut expected, mut seen, mut recoveries) = (0_u64, 0_u64, 0_u64);
        for which in Which::BOTH {
            let [_, ledger, cells] = self.books()?;
            let account = Account { ledger, cells, which };
            settle(ledger, account)?;
            seen = seen.wrapping_add(account.sum().doing(what)?);
            recoveries += account.recoveries().doing(what)?;
            findings.extend(account.torn().doing(what)?);
            for incarnation in 0..u64::try_from(self.killed.len()).unwrap_or(0) {
                let cell = cells.get::<u64>(cell_at(incarnation, which)).doing(what)?;
                let (announced, acknowledged) =
                    log::acknowledged(&self.dir, incarnation, which).doing(what)?;
                if !(acknowledged..=announced.max(acknowledged)).contains(&cell) {
                    findings.push(format!(
                        "worker {incarnation}, {which:?} account: {cell} increments happened, \
                         {acknowledged} were acknowledged and {announced} announced"
                    ));
                }
                let decided = cell.clamp(acknowledged, announced.max(acknowledged));
                expected = expected.wrapping_add(decided);
            }
        }
        self.summary.findings.extend(findings);
        self.summary.expected = expected;
        self.summary.seen = seen;
        self.summary.lost = i128::from(expected) - i128::from(seen);
        self.summary.recoveries = recoveries;
        Ok(())
    }

    /// Destroys the regions that are left under the names of this run. Nothing may be left afterwards.
    fn sweep(&mut self) -> Result<(), Failure> {
        let what = || "sweep".to_owned();
        let ours = |name: &str| name.starts_with("torture");
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let regions = self.space.regions().doing(what)?;
            let left: Vec<_> = regions.iter().filter(|region| ours(&region.name)).collect();
            self.summary.leaked_regions = left.len();
            if left.is_empty() || Instant::now() > deadline {
                break;
            }
            for region in left {
                match self.space.destroy(&region.name, Destroy::Within(Duration::from_secs(1))) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        self.space.reap().doing(what)?;
                    }
                    Err(error) => tracing::warn!(%error, "left behind"),
                }
            }
        }
        let used = self.space.info().doing(what)?.used;
        if used != self.used_before {
            let before = self.used_before;
            self.summary.findings.push(format!("{used} bytes are in use, {before} were before"));
        }
        for lock in self.space.locks().doing(what)?.iter().filter(|lock| ours(&lock.region)) {
            self.summary.findings.push(format!("a lock is left: {lock:?}"));
        }
        let me = self.space.peer();
        for peer in self.space.peers().doing(what)? {
            if (peer.slot, peer.generation) != me && ours(&peer.name) {
                self.summary.findings.push(format!("a peer is left: {peer:?}"));
            }
        }
        Ok(())
    }
}

/// The shortest sleep of the coordinator.
const MOMENT: Duration = Duration::from_micros(200);

/// Repairs an account whose last owner died.
fn settle(ledger: &Mapping, account: Account<'_>) -> Result<(), Failure> {
    let what = || format!("settle the {:?} account", account.which);
    let repaired = |()| Ok(account.repair()?);
    match account.which {
        Which::Region => ledger.lock_repairing(|_| repaired(())).doing(what)?.unlock(),
        Which::Mutex => {
            let mutex = ledger.mutex(MUTEX).doing(what)?;
            mutex.lock_repairing(|_| repaired(())).and_then(RawMutexGuard::unlock)
        }
    }
    .doing(what)
}
