//! Many processes and one mutex, which is biased to one of them after the other; and all of them are killed.

use std::{
    thread,
    time::{Duration, Instant},
};

use commonhold::{Access, FormatOptions, Mapping, Space};

use crate::support::{Random, Role, Scratch, ScriptedProcess, say};

pub(crate) const ROLES: &[Role] = &[("biased-bursts", bursts)];

/// Processes at a time.
const WORKERS: u64 = 3;
/// If set, the test runs for this many seconds.
const SECONDS: &str = "COMMONHOLD_TEST_BIASED_SECONDS";
/// Otherwise the test runs for this long.
const SHORTLY: Duration = Duration::from_millis(2500);

// Where things lie in the region. What is written under the mutex:
const MUTEX: u64 = 0;
/// Counts all turns, twice.
const PAIR: u64 = 64;
/// How many deaths of owners were reported.
const TOLD: u64 = 128;
/// And without it:
const STOP: u64 = 192;
/// Lines of numbers of each worker: its turns, under the mutex; biases that it found to be others', and that it
/// had in the end of a burst.
const LINES: u64 = 256;

fn line(worker: u64) -> u64 {
    LINES + 64 * worker
}

fn number(mapping: &Mapping, at: u64) -> u64 {
    mapping.get(at).unwrap()
}

fn add_one(mapping: &Mapping, at: u64) {
    mapping.set(at, &(number(mapping, at) + 1)).unwrap();
}

/// What the pair must be: a turn writes the worker's own count last.
fn turns(mapping: &Mapping) -> u64 {
    (0..WORKERS).map(|worker| number(mapping, line(worker))).sum()
}

fn pair(mapping: &Mapping) -> [u64; 2] {
    [number(mapping, PAIR), number(mapping, PAIR + 8)]
}

fn turn(mapping: &Mapping, worker: u64) {
    let mutex = mapping.mutex(MUTEX).unwrap();
    let repaired = mutex.lock_repairing(|_| {
        let right = turns(mapping);
        mapping.set(PAIR, &right)?;
        mapping.set(PAIR + 8, &right)?;
        add_one(mapping, TOLD);
        Ok(())
    });
    let guard = repaired.unwrap();
    assert_eq!(pair(mapping), [turns(mapping); 2], "torn, and nobody was told");
    for at in [PAIR, PAIR + 8, line(worker)] {
        add_one(mapping, at);
    }
    guard.unlock().unwrap();
}

/// Whether the mutex is biased, and to this peer.
fn biased_to(mapping: &Mapping, slot: u16) -> Option<bool> {
    Some(crate::biased::word(mapping, MUTEX).bias()?.peer.get() == slot)
}

/// Takes the mutex many times in a row, and then does nothing for a moment.
fn bursts(args: &[&str]) {
    let space = Space::open(args[0]).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    let [worker, seed] = [args[1], args[2]].map(|text| text.parse::<u64>().unwrap());
    let (slot, mut random) = (space.peer().0, Random(seed));
    say("there");
    while number(&mapping, STOP) == 0 {
        if biased_to(&mapping, slot) == Some(false) {
            add_one(&mapping, line(worker) + 8);
        }
        for _ in 0..100 + random.below(200) {
            turn(&mapping, worker);
        }
        if biased_to(&mapping, slot) == Some(true) {
            add_one(&mapping, line(worker) + 16);
        }
        for _ in 0..random.below(64) {
            thread::yield_now();
        }
    }
}

#[test]
fn no_turn_of_a_biased_mutex_is_lost_or_torn_when_processes_are_killed_in_it() {
    // Few slots, so that those of the dead are taken over.
    let options = FormatOptions { peers: Some(6), ..Scratch::tiny() };
    let scratch = Scratch::with(&options);
    let space = scratch.open();
    space.create("a", 4096).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    let seconds = std::env::var(SECONDS).ok().map(|text| text.parse().unwrap());
    let deadline = Instant::now() + seconds.map_or(SHORTLY, Duration::from_secs);
    let mut random = Random(9);
    let start = |worker: u64, random: &mut Random| {
        let seed = random.next().to_string();
        ScriptedProcess::start("biased-bursts", &[&scratch.url, &worker.to_string(), &seed])
    };
    let mut actors: Vec<_> = (0..WORKERS).map(|worker| start(worker, &mut random)).collect();
    let mut kills = 0_u64;
    while Instant::now() < deadline {
        let worker = random.below(WORKERS);
        let actor = &mut actors[worker as usize];
        actor.says("there");
        // Its output is read for a while; it has nothing more to say.
        assert_eq!(actor.hear_within(Duration::from_millis(random.below(20))), None);
        assert!(actor.is_running(), "an actor has failed");
        std::mem::replace(actor, start(worker, &mut random)).kill();
        kills += 1;
        if random.below(3) == 0 {
            space.reap().unwrap();
        }
    }
    mapping.set(STOP, &1_u64).unwrap();
    for actor in actors {
        actor.succeed();
    }
    // The last worker killed may have been inside, and no thread has asked since.
    turn(&mapping, 0);
    let sum = |at: u64| (0..WORKERS).map(|worker| number(&mapping, line(worker) + at)).sum::<u64>();
    let (all, told) = (turns(&mapping), number(&mapping, TOLD));
    eprintln!(
        "{kills} kills, {told} told, {all} turns, {} biases revoked at least, {} made at least",
        sum(8),
        sum(16)
    );
    assert_eq!(pair(&mapping), [all; 2]);
    assert!(kills > 0 && told <= kills && sum(8) > 0 && sum(16) > 0);
}
