//! The programs in `examples`, while their processes are killed at random: they keep their promises, and the next
//! process goes on.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what a test cannot do without, it fails by")]

use std::{
    collections::HashMap,
    env, fs,
    io::{BufRead, BufReader, Lines},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

/// How many processes each test kills.
const KILLS: u64 = 12;

/// A directory for the spaces of one test.
struct TestSpace(PathBuf);

impl TestSpace {
    fn new(name: &str) -> Self {
        let path =
            env::temp_dir().join(format!("commonhold-example-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn command(&self, example: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program(example));
        command.args(arguments).env("COMMONHOLD_SPACE", "shm:example");
        command.env("COMMONHOLD_SHM_DIR", &self.0).stdout(Stdio::piped());
        command
    }

    fn start(&self, example: &str, arguments: &[&str]) -> Child {
        self.command(example, arguments).spawn().unwrap()
    }

    fn output(&self, example: &str, arguments: &[&str]) -> String {
        let output = self.command(example, arguments).output().unwrap();
        assert!(output.status.success(), "{example} {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for TestSpace {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The path of an example. Cargo builds the examples of a package before its tests, beside the program.
fn program(example: &str) -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_commonhold")).parent().unwrap();
    let path = beside.join("examples").join(example);
    assert!(path.exists(), "{} is missing: `cargo build --examples` makes it", path.display());
    path
}

/// Random pauses of up to some milliseconds, repeatable by a seed: long enough for a process to be anywhere in its
/// code.
struct Pauses(u64);

impl Pauses {
    fn pause(&mut self, most_ms: u64) {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        thread::sleep(Duration::from_micros((self.0 >> 33) % (1000 * most_ms)));
    }
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn numbers(line: &str) -> Vec<u64> {
    line.split_whitespace().map(|word| word.parse().unwrap()).collect()
}

/// A process that prints every message it receives.
struct Receiver {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Receiver {
    fn start(test_space: &TestSpace) -> Self {
        let mut process = test_space.start("ring", &["receive"]);
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }
}

#[test]
fn messages_arrive_once_and_in_order_and_each_death_loses_one_at_most() {
    const LAST: &str = "1000000";
    let test_space = TestSpace::new("ring");
    let mut pauses = Pauses(1);
    let mut got: HashMap<u64, u64> = HashMap::new();
    let mut lost = 0;
    let mut take = |line: String| {
        let [sender, number] = numbers(&line)[..] else { panic!("{line}") };
        let before = got.insert(sender, number).unwrap_or(0);
        assert!(number > before, "message {number} of sender {sender} after {before}");
        lost += number - before - 1;
        sender.to_string() == LAST
    };
    for kill in 1..=KILLS {
        let sender = test_space.start("ring", &["send", &kill.to_string(), "1000000"]);
        let mut receiver = Receiver::start(&test_space);
        for _ in 0..20 {
            take(receiver.lines.next().unwrap().unwrap());
        }
        pauses.pause(3);
        // Kills both, one after the other. Which is first alternates, so that either may be in the middle of a change.
        let (first, second) =
            if kill % 2 == 0 { (sender, receiver.process) } else { (receiver.process, sender) };
        end(first);
        end(second);
        for line in receiver.lines.map(Result::unwrap) {
            take(line);
        }
    }
    let mut receiver = Receiver::start(&test_space);
    test_space.output("ring", &["send", LAST, "1"]);
    while !take(receiver.lines.next().unwrap().unwrap()) {}
    end(receiver.process);
    assert!(lost <= KILLS, "{lost} messages lost by {KILLS} deaths of receivers");
}

#[test]
fn rows_stay_whole_when_their_writers_die() {
    let test_space = TestSpace::new("board");
    let mut pauses = Pauses(2);
    let mut steps_before = 0;
    for _kill in 0..KILLS {
        let worker = test_space.start("board", &["work", "3", "1000000000"]);
        let steps = || numbers(test_space.output("board", &["show"]).lines().nth(3).unwrap());
        // Reads until the worker has changed the row; every row that is read must be whole.
        while {
            let [_, steps, twice] = steps()[..] else { panic!("a row has three numbers") };
            assert_eq!(twice, 2 * steps);
            steps == steps_before
        } {}
        pauses.pause(3);
        end(worker);
        let [_, steps, twice] = steps()[..] else { panic!("a row has three numbers") };
        assert_eq!(twice, 2 * steps);
        assert!(steps > steps_before);
        steps_before = steps;
    }
}

#[test]
fn counts_are_exact_except_for_the_turns_of_killed_workers() {
    const TURNS: u64 = 3000;
    let test_space = TestSpace::new("table");
    let mut pauses = Pauses(3);
    let turns = TURNS.to_string();
    let count = |key: &str| numbers(&test_space.output("table", &["get", key]))[0];
    let mut living = test_space.start("table", &["add", "shared", &turns]);
    for kill in 0..KILLS {
        let key = format!("key-{kill}");
        let worker = test_space.start("table", &["add", &key, "1000000000"]);
        while count(&key) == 0 {}
        pauses.pause(3);
        end(worker);
        let (once, again) = (count(&key), count(&key));
        assert_eq!(once, again, "a killed worker goes on counting");
    }
    assert!(living.wait().unwrap().success());
    assert_eq!(count("shared"), TURNS);
}

#[test]
fn all_work_is_done_although_workers_die() {
    const JOBS: u64 = 300;
    let test_space = TestSpace::new("supervisor");
    let mut pauses = Pauses(4);
    let supervisor = test_space.start("supervisor", &["3", &JOBS.to_string()]);
    let children = format!("/proc/{0}/task/{0}/children", supervisor.id());
    let mut kills = 0;
    // The supervisor has no children any more when all work is done.
    while kills < KILLS {
        let Ok(children) = fs::read_to_string(&children) else { break };
        if let Some(worker) = children.split_whitespace().next() {
            let killed = Command::new("kill").args(["-9", worker]).status().unwrap();
            kills += u64::from(killed.success());
        }
        pauses.pause(20);
    }
    let output = supervisor.wait_with_output().unwrap();
    assert!(output.status.success());
    let sum: u64 = (0..JOBS).map(|number| number * number).sum();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with(&format!("{sum} after ")), "{said}");
    assert!(kills > 0 && !said.contains(" 0 deaths"), "{kills} kills: {said}");
}
