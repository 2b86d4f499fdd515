//! `locks --graph`: shows deadlocks that shell commands make.

use std::{
    sync::{self, Arc},
    thread,
};

use commonhold::{Access, Barrier, Mapping, Semaphore};
use serde_json::Value;

use crate::support::{Held, Space, keys, until};

/// A script that holds the first lock with a command that takes the second.
const CROSS: &str = "\
    commonhold=$0; first=$1; second=$2\n\
    exec \"$commonhold\" lock \"$first\" -- sh -c \
    'echo has; read go; exec \"$0\" lock \"$1\" -- echo has both' \"$commonhold\" \"$second\"";

fn crossing(space: &Space, first: &str, second: &str) -> Held {
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", CROSS, env!("CARGO_BIN_EXE_commonhold"), first, second]);
    shell.env("COMMONHOLD_SPACE", &space.url).env_remove("COMMONHOLD_OWNER_DIED");
    let mut held = Held::spawn(shell);
    assert_eq!(held.line(), "has");
    held
}

fn until_circle(space: &Space) -> Value {
    let mut graph = Value::Null;
    until("a circle", || {
        graph = space.json(&["locks", "--graph"]);
        !graph["cycles"].as_array().unwrap().is_empty()
    });
    graph
}

#[test]
fn two_commands_that_want_each_others_locks_are_a_deadlock() {
    let space = Space::new();
    space.ends(0, &["create", "a", "0"]);
    assert_eq!(space.ends(0, &["locks", "--graph"]), "nobody waits\n");
    let mut one = crossing(&space, "a", "b");
    let mut two = crossing(&space, "b", "a");
    assert!(!space.ends(0, &["locks", "--graph"]).contains("deadlock"));
    one.tell("go on");
    two.tell("go on");
    let graph = until_circle(&space);
    assert_eq!(keys(&graph), ["cycles", "locks", "threads", "waits"]);
    assert_eq!(keys(&graph["locks"][0]), ["offset", "owner", "readers", "record", "region"]);
    let of_thread = ["domain", "generation", "name", "pid", "slot", "state", "thread", "tid"];
    assert_eq!(keys(&graph["threads"][0]), of_thread);
    let of_wait = ["blockers", "confirmed", "kind", "lock", "open", "process", "thread"];
    assert_eq!(keys(&graph["waits"][0]), of_wait);
    let cycle = &graph["cycles"][0];
    assert_eq!(keys(cycle), ["confirmed", "waits"]);
    assert_eq!(cycle["confirmed"], true);
    // Each holder waits for its command, and the command for the other holder.
    assert_eq!(cycle["waits"].as_array().unwrap().len(), 4);
    let text = space.until_text(&["locks", "--graph"], "deadlock: ");
    let first = text.lines().next().unwrap();
    for part in [
        &format!("pid {} (commonhold) holds a and waits for process ", one.pid()),
        "(commonhold) waits for b; ",
        &format!("pid {} (commonhold) holds b and waits for process ", two.pid()),
    ] {
        assert!(first.contains(part), "{part:?} is not in {first:?}");
    }
    assert!(text.contains("--timeout"), "{text}");
    assert_eq!(space.ends(0, &["locks", "--graph=text"]).lines().next(), Some(first));
    let dot = space.until_text(&["locks", "--graph=dot"], "color=red");
    assert!(dot.starts_with("digraph locks {\n") && dot.ends_with("}\n"), "{dot}");
    assert_eq!(dot.matches("shape=ellipse").count(), 2, "{dot}");
    for label in ["waits for", "held by"] {
        let line = format!("[label=\"{label}\", color=red");
        assert_eq!(dot.matches(&line).count(), 2, "{label} in {dot}");
    }
    // The way out: a command that is ended frees what it holds.
    one.signal("TERM");
    assert_eq!(one.wait(), 143);
    assert_eq!(two.wait(), 0);
    assert_eq!(space.ends(0, &["locks", "--graph"]), "nobody waits\n");
}

#[test]
fn three_commands_in_a_circle_are_a_deadlock_and_a_fourth_waiter_is_not_part_of_it() {
    let space = Space::new();
    let wishes = [("a", "b"), ("b", "c"), ("c", "a")];
    let mut held: Vec<_> =
        wishes.iter().map(|(first, second)| crossing(&space, first, second)).collect();
    let fourth = space.start(&["lock", "a", "--shared", "--", "true"]);
    space.until_waiters("a", 1);
    for one in &mut held {
        one.tell("go on");
    }
    let graph = until_circle(&space);
    assert_eq!(graph["cycles"].as_array().unwrap().len(), 1);
    assert_eq!(graph["cycles"][0]["waits"].as_array().unwrap().len(), 6);
    let waiting = format!("pid {} (commonhold) waits to read a, held by ", fourth.pid());
    let text = space.until_text(&["locks", "--graph"], &waiting);
    assert_eq!(text.matches("deadlock: ").count(), 1, "{text}");
}

#[test]
fn a_deadlock_of_a_reader_and_a_writer_names_the_reader() {
    let space = Space::new();
    let shared = ["sh", "-c", "echo has; read go; exec \"$0\" lock b -- true"];
    let program = env!("CARGO_BIN_EXE_commonhold");
    let mut reader =
        space.start(&[&["lock", "a", "--shared", "--"], &shared[..], &[program]].concat());
    assert_eq!(reader.line(), "has");
    let mut writer = crossing(&space, "b", "a");
    reader.tell("go on");
    writer.tell("go on");
    let text = space.until_text(&["locks", "--graph"], "deadlock: ");
    let reads = format!("pid {} (commonhold) reads a and waits for process", reader.pid());
    assert!(text.contains(&reads), "{text}");
    assert!(text.contains("waits for the readers of a"), "{text}");
}

/// A thread that takes something, calls the function, and then waits for something else.
type Busy = fn(&Mapping, &dyn Fn());

/// Two threads that wait for each other over a semaphore, and two over a barrier.
const STUCK: [Busy; 4] = [
    |mapping, ready| {
        let semaphore = mapping.open::<Semaphore<1>>(0).unwrap();
        let _permit = semaphore.acquire().unwrap();
        ready();
        drop(mapping.mutex(64).unwrap().lock());
    },
    |mapping, ready| {
        let mutex = mapping.mutex(64).unwrap();
        let _guard = mutex.lock().unwrap();
        ready();
        drop(mapping.open::<Semaphore<1>>(0).unwrap().acquire());
    },
    |mapping, ready| {
        let barrier = mapping.open::<Barrier<3>>(128).unwrap();
        let _participant = barrier.join().unwrap();
        ready();
        drop(mapping.mutex(72).unwrap().lock());
    },
    |mapping, ready| {
        let mutex = mapping.mutex(72).unwrap();
        let _guard = mutex.lock().unwrap();
        let barrier = mapping.open::<Barrier<3>>(128).unwrap();
        let participant = barrier.join().unwrap();
        ready();
        let _ = participant.wait();
    },
];

#[test]
fn deadlocks_over_a_permit_and_over_a_barrier_name_the_holder_and_the_missing_participant() {
    let space = Space::new();
    space.ends(0, &["create", "a", "4096"]);
    let shared = commonhold::Space::open(&space.url).unwrap();
    let all = Arc::new(sync::Barrier::new(STUCK.len()));
    for busy in STUCK {
        let (shared, all) = (shared.clone(), all.clone());
        // The thread ends with this process.
        thread::spawn(move || {
            let mapping = shared.map("a", Access::ReadWrite).unwrap();
            busy(&mapping, &|| {
                all.wait();
            });
        });
    }
    let mut text = String::new();
    until("two circles", || {
        text = space.ends(0, &["locks", "--graph"]);
        text.matches("deadlock: ").count() == 2
    });
    for part in [
        ") holds a permit of the semaphore a+0 and waits for a+64",
        ") holds a+64 and waits for a permit of the semaphore a+0",
        ") has not arrived at the barrier a+128 and waits for a+72",
        ") holds a+72 and waits at the barrier a+128",
        ") waits for a permit of the semaphore a+0, all held by pid ",
        ") waits at the barrier a+128 for pid ",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    until("both kinds", || {
        let graph = space.json(&["locks", "--graph"]);
        let waits = graph["waits"].as_array().unwrap();
        ["permit", "parties"].iter().all(|kind| {
            let wait = waits.iter().find(|wait| wait["kind"] == *kind);
            wait.is_some_and(|wait| {
                wait["open"] == false && wait["blockers"].as_array().unwrap().len() == 1
            })
        })
    });
    until("red arrows", || {
        let dot = space.ends(0, &["locks", "--graph=dot"]);
        let labels = ["waits for a permit", "held by", "waits at", "waits for"];
        labels.iter().all(|label| dot.contains(&format!("[label=\"{label}\", color=red")))
    });
}
