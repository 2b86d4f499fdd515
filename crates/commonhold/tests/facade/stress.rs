//! All kinds of locks at once, under many processes that are killed and stopped at random.
//!
//! The coordinator starts, kills, stops and continues the workers, replaces killed ones, and records what it did.
//! `stress_worker` has the worker's part, and the proof that locks exclude. `stress_waits` decides which waits are
//! explained.

use std::{
    fmt::Write as _,
    fs, mem, thread,
    time::{Duration, Instant},
};

use commonhold::{Access, FormatOptions, Mapping, Space};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    stress_waits::{Fault, Span, Wait},
    stress_words::{Words, size},
    stress_worker::{LOCKS, NAMES, STOP, THREADS, now_ns},
    support::{DEADLINE, Random, SECONDS_WANTED, Scratch, ScriptedProcess, wanted},
};

/// How many processes there are, and for how many seconds, unless the environment gives other numbers.
const PROCESSES: u64 = 16;
const PROCESSES_WANTED: &str = "COMMONHOLD_TEST_PROCESSES";
const SECONDS: u64 = 5;

/// The pause between two faults; the longest stop; and one of how many workers may be stopped at once.
const PAUSE: Duration = Duration::from_millis(20);
const LONGEST_STOP_US: u64 = 1_000_000;
const STOPPED_AT_ONCE: u64 = 4;
/// One of this many workers is neither killed nor stopped.
const SPARED: u64 = 8;
/// How long after a holder was killed, or continued, a wait still counts as caused by it.
const AFTER_A_KILL_NS: u64 = 250_000_000;
const AFTER_A_STOP_NS: u64 = 50_000_000;
/// A wait with more unexplained time is a violation. It is well above the longest stop.
const LONGEST_WAIT_NS: u64 = 3_000_000_000;

struct Stopped {
    worker: u64,
    from: u64,
    until: Instant,
    had: u64,
}

struct Director<'a> {
    url: &'a str,
    words: Words<'a>,
    random: Random,
    workers: Vec<ScriptedProcess>,
    incarnations: u64,
    stopped: Vec<Stopped>,
    faults: Vec<Fault>,
    said: Vec<String>,
    kills: u64,
    stops: u64,
    /// How many killed and stopped workers held a lock, and how many stopped workers were killed.
    killed_inside: u64,
    stopped_inside: u64,
    killed_stopped: u64,
}

impl<'a> Director<'a> {
    fn new(url: &'a str, words: Words<'a>) -> Self {
        let mut director = Self {
            url,
            words,
            random: Random(now_ns()),
            workers: Vec::new(),
            incarnations: 0,
            stopped: Vec::new(),
            faults: Vec::new(),
            said: Vec::new(),
            kills: 0,
            stops: 0,
            killed_inside: 0,
            stopped_inside: 0,
            killed_stopped: 0,
        };
        for worker in 0..words.processes {
            let actor = director.start(worker);
            director.workers.push(actor);
        }
        director
    }

    fn start(&mut self, worker: u64) -> ScriptedProcess {
        self.incarnations += 1;
        let numbers = [self.words.processes, worker, self.incarnations].map(|it| it.to_string());
        ScriptedProcess::start("stress-work", &[self.url, &numbers[0], &numbers[1], &numbers[2]])
    }

    fn run(&mut self, time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time {
            thread::sleep(PAUSE);
            let now = Instant::now();
            while let Some(index) = self.stopped.iter().position(|stopped| stopped.until <= now) {
                if self.random.below(4) == 0 {
                    self.kill(self.stopped[index].worker);
                } else {
                    let stopped = self.stopped.swap_remove(index);
                    self.go_on(stopped);
                }
            }
            let worker = self.somebody();
            match self.random.below(3) {
                0 => self.kill(worker),
                _ => self.stop(worker),
            }
        }
        for stopped in mem::take(&mut self.stopped) {
            self.go_on(stopped);
        }
    }

    /// Half of the time a worker that holds a lock, if one is found. Never one of the first, so that these measure
    /// undisturbed waits.
    fn somebody(&mut self) -> u64 {
        let (first, others) = self.spared();
        let any = first + self.random.below(others);
        let rest = (0..others).map(|more| first + (any - first + more) % others);
        let inside = rest.into_iter().find(|worker| self.words.had_by(*worker) != 0);
        inside.filter(|_| self.random.below(2) == 0).unwrap_or(any)
    }

    /// How many are spared, and how many are not.
    fn spared(&self) -> (u64, u64) {
        let first = self.words.processes.div_ceil(SPARED);
        (first, self.words.processes - first)
    }

    fn kill(&mut self, worker: u64) {
        let from = now_ns();
        self.words.will_be_killed(worker);
        let index = usize::try_from(worker).unwrap();
        let mut last = self.workers.swap_remove(index);
        if !last.is_running() {
            self.said.push(format!("violation: worker {worker} ended by itself"));
        }
        self.said.extend(last.kill_and_hear());
        // The waits that the kill ended.
        let waits = self.words.waits_of(worker, from);
        self.said.extend(waits.iter().map(|wait| format!("wait {wait}")));
        let when = Span { from, until: now_ns() + AFTER_A_KILL_NS };
        let had = self.words.had_by(worker);
        let next = self.start(worker);
        self.workers.push(next);
        let last = self.workers.len() - 1;
        self.workers.swap(index, last);
        self.faults.push(Fault { worker, when, had });
        self.kills += 1;
        self.killed_inside += u64::from(had != 0);
        let stopped = self.stopped.iter().position(|stopped| stopped.worker == worker);
        if let Some(stopped) = stopped.map(|index| self.stopped.swap_remove(index)) {
            self.killed_stopped += 1;
            let when = Span { from: stopped.from, until: now_ns() + AFTER_A_KILL_NS };
            self.faults.push(Fault { worker, when, had: stopped.had });
        }
    }

    fn stop(&mut self, worker: u64) {
        let at_once = (self.words.processes / STOPPED_AT_ONCE).max(1);
        let is_stopped = self.stopped.iter().any(|stopped| stopped.worker == worker);
        if is_stopped || self.stopped.len() as u64 >= at_once {
            return;
        }
        let from = now_ns();
        self.signal(worker, Signal::STOP);
        let pid = self.workers[usize::try_from(worker).unwrap()].pid();
        let deadline = Instant::now() + DEADLINE;
        while !is_stopped_now(pid) {
            assert!(Instant::now() < deadline, "a worker does not stop");
            thread::yield_now();
        }
        let had = self.words.had_by(worker);
        let until = Instant::now() + Duration::from_micros(self.random.below(LONGEST_STOP_US));
        self.stopped.push(Stopped { worker, from, until, had });
        self.stops += 1;
        self.stopped_inside += u64::from(had != 0);
    }

    fn go_on(&mut self, stopped: Stopped) {
        self.signal(stopped.worker, Signal::CONT);
        let when = Span { from: stopped.from, until: now_ns() + AFTER_A_STOP_NS };
        self.faults.push(Fault { worker: stopped.worker, when, had: stopped.had });
    }

    /// It is our child and has not been waited for, so its process id is not reused.
    fn signal(&self, worker: u64, signal: Signal) {
        let pid = self.workers[usize::try_from(worker).unwrap()].pid();
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Ends all workers. Those that do not end hang.
    fn end(&mut self) {
        self.words.mapping.set(STOP, &1_u64).unwrap();
        for (worker, actor) in mem::take(&mut self.workers).into_iter().enumerate() {
            let (status, said) = actor.end_and_hear();
            self.said.extend(said);
            match status {
                Some(status) if status.success() => {}
                Some(status) => self.said.push(format!("violation: worker {worker}: {status}")),
                None => self.said.push(format!("violation: worker {worker} hangs")),
            }
        }
    }

    /// The violations, and the waits that workers reported, each with its unexplained time.
    fn judge(&self) -> (Vec<String>, Vec<(u64, Wait)>) {
        let (mut violations, mut waits) = (Vec::new(), Vec::new());
        for line in &self.said {
            // A line that a kill cut short is no violation.
            if let Some(wait) = line.strip_prefix("wait ") {
                waits.extend(Wait::parse(wait).map(|wait| (wait.unexplained(&self.faults), wait)));
            } else if line.starts_with("violation") {
                violations.push(line.clone());
            }
        }
        for (left, wait) in waits.iter().filter(|(left, _)| *left > LONGEST_WAIT_NS) {
            let ms = left / 1_000_000;
            violations.push(format!("{ms} ms of a wait are unexplained: {wait:?}"));
        }
        (violations, waits)
    }
}

/// The longest waits, with and without a timeout: the unexplained time of each, and its lock.
fn longest(waits: &[(u64, Wait)]) -> String {
    let of = |with_timeout: bool| {
        let waits = waits.iter().filter(|(_, wait)| wait.timeout.is_some() == with_timeout);
        let Some((left, wait)) = waits.max_by_key(|(left, _)| *left) else {
            return "none".to_owned();
        };
        let name = NAMES[usize::try_from(wait.locks.trailing_zeros()).unwrap()];
        let whole = (wait.when.until - wait.when.from) / 1_000_000;
        let timeout = wait.timeout.map_or(0, |timeout| timeout / 1_000_000);
        format!("{} of {whole} ms ({name}, timeout {timeout} ms)", left / 1_000_000)
    };
    format!("{}; with a timeout: {}", of(false), of(true))
}

/// Whether all threads of the process are stopped.
fn is_stopped_now(pid: u32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    tasks.flatten().all(|task| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        // The name, in brackets, may have any letters.
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['T', 'Z', 'X']))
    })
}

fn ground(processes: u64) -> (Scratch, Space, Mapping) {
    let options = FormatOptions {
        capacity: Some(16 << 20),
        peers: Some((2 * processes + 16).max(64)),
        threads: Some(8),
        ..FormatOptions::default()
    };
    let scratch = Scratch::with(&options);
    let space = scratch.open();
    space.create("a", size(processes)).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    (scratch, space, mapping)
}

/// To run it as long as it takes to believe it: `COMMONHOLD_TEST_PROCESSES=100 COMMONHOLD_TEST_SECONDS=150 cargo test
/// --release -p commonhold --test facade stress -- --nocapture`.
#[test]
fn all_kinds_of_locks_exclude_and_never_hang_while_processes_are_killed_and_stopped() {
    let processes = wanted(PROCESSES_WANTED, PROCESSES).max(2);
    let seconds = wanted(SECONDS_WANTED, SECONDS);
    let (scratch, space, mapping) = ground(processes);
    let words = Words { mapping: &mapping, processes };
    let mut director = Director::new(&scratch.url, words);
    director.run(Duration::from_secs(seconds));
    director.end();
    let (mut violations, waits) = director.judge();
    let mut table = String::new();
    let (mut turns, mut deaths) = (0, 0);
    for lock in 0..LOCKS {
        let (count, journal, told) = words.counts(lock);
        let name = NAMES[usize::try_from(lock).unwrap()];
        writeln!(table, "  {name}: {count} turns alone, {told} deaths told").unwrap();
        if count != journal {
            violations.push(format!("{name}: {count} turns counted, {journal} by the journals"));
        }
        if count == 0 {
            violations.push(format!("{name}: nobody had it"));
        }
        (turns, deaths) = (turns + count, deaths + told);
    }
    for wait in &space.wait_graph().unwrap().waits {
        violations.push(format!("somebody is left waiting: {wait:?}"));
    }
    eprintln!(
        "{processes} processes of {THREADS} threads, {seconds} s: {turns} turns alone, {} kills ({} with a lock, {} \
         of stopped ones), {} stops ({} with a lock), {deaths} deaths told, {} waits over 0.2 s, longest unexplained {}\n{table}",
        director.kills,
        director.killed_inside,
        director.killed_stopped,
        director.stops,
        director.stopped_inside,
        waits.len(),
        longest(&waits),
    );
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
    assert!(director.kills > 0 && director.stops > 0 && director.killed_inside > 0);
    assert!(director.stopped_inside > 0 && deaths > 0);
}
