//! `lock`: what it has in common with flock(1), and what it adds.

use crate::support::{Held, Space, ends, keys, lives, until};

/// A command that prints its process id and holds the lock until it is released.
const HOLD: [&str; 3] = ["sh", "-c", "echo $$; exec cat"];

fn hold(space: &Space, name: &str, options: &[&str]) -> (Held, u32) {
    let mut args = vec!["lock", name];
    args.extend(options);
    args.push("--");
    args.extend(HOLD);
    let mut held = space.start(&args);
    let pid = held.line().parse().expect("the command runs under the lock");
    (held, pid)
}

#[test]
fn the_command_gives_its_status_and_the_region_stays_as_a_named_lock() {
    let space = Space::new();
    space.ends(0, &["lock", "x", "--", "true"]);
    assert_eq!(space.run(&["lock", "x", "--", "sh", "-c", "exit 37"]).status.code(), Some(37));
    assert_eq!(space.run(&["lock", "x", "--", "sh", "-c", "kill -9 $$"]).status.code(), Some(137));
    space.ends(127, &["lock", "x", "--", "/nonexistent/command"]);
    space.ends(126, &["lock", "x", "--", "/dev/null"]);
    assert_eq!(space.json(&["stat", "x"])["size"], 0);
    assert_eq!(space.json(&["locks"]), serde_json::json!([]));
}

#[test]
fn an_exclusive_lock_excludes_and_tells_who_holds_it() {
    let space = Space::new();
    let (holder, _) = hold(&space, "x", &[]);
    space.until_held("x");
    let locks = space.json(&["locks"]);
    assert_eq!(
        keys(&locks[0]),
        ["holder", "kind", "left_by", "offset", "record", "region", "waiters"]
    );
    let of_holder = ["alive", "domain", "generation", "pid", "slot", "state"];
    assert_eq!(keys(&locks[0]["holder"]), of_holder);
    assert_eq!(locks[0]["kind"], "exclusive");
    assert_eq!(locks[0]["holder"]["pid"], holder.pid());
    assert!(space.ends(0, &["ls"]).contains(&format!("exclusive by {}", holder.pid())));
    space.ends(6, &["lock", "x", "--timeout", "0", "--", "true"]);
    space.ends(6, &["lock", "x", "--timeout", "120ms", "--", "true"]);
    space.ends(6, &["lock", "x", "--shared", "--timeout", "0", "--", "true"]);
    let mut waiter = space.start(&["lock", "x", "--", "true"]);
    space.until_waiters("x", 1);
    assert!(waiter.runs());
    assert_eq!(holder.release(), 0);
    assert_eq!(waiter.wait(), 0);
}

#[test]
fn shared_holders_share_and_exclude_writers() {
    let space = Space::new();
    let (first, _) = hold(&space, "x", &["--shared"]);
    let (second, _) = hold(&space, "x", &["--shared"]);
    assert!(space.ends(0, &["ls"]).contains("shared by 2"));
    let kinds = space.json(&["locks"]);
    assert!(kinds.as_array().unwrap().iter().all(|lock| lock["kind"] == "shared"));
    space.ends(6, &["lock", "x", "--timeout", "50ms", "--", "true"]);
    assert_eq!(first.release(), 0);
    space.ends(6, &["lock", "x", "--timeout", "0", "--", "true"]);
    assert_eq!(second.release(), 0);
    space.ends(0, &["lock", "x", "--timeout", "0", "--", "true"]);
}

#[test]
fn many_increments_under_the_lock_lose_none() {
    let space = Space::new();
    let file = std::env::temp_dir().join(format!("counter-{}", crate::support::unique()));
    std::fs::write(&file, "0\n").unwrap();
    let script = "read n < \"$0\"; echo $((n + 1)) > \"$0\"";
    let one = || {
        for _ in 0..25 {
            space.ends(0, &["lock", "x", "--", "sh", "-c", script, file.to_str().unwrap()]);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(one);
        }
    });
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), "100");
    std::fs::remove_file(file).unwrap();
}

#[test]
fn a_killed_holder_takes_its_command_with_it_and_the_next_is_told() {
    let space = Space::new();
    let (mut holder, command) = hold(&space, "x", &[]);
    let mut waiter = space.start(&["lock", "x", "--", "true"]);
    space.until_waiters("x", 1);
    holder.signal("KILL");
    assert_eq!(waiter.wait(), 8);
    until("the command to die", || !lives(command));
    assert_eq!(holder.wait(), 137);
    // The lock stays inconsistent for all, readers included, until it is repaired.
    for shared in [&["lock", "x"][..], &["lock", "x", "--shared"]] {
        let output = space.run(&[shared, &["--", "echo", "ran"]].concat());
        assert_eq!(ends(8, &output, shared), "");
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(message.contains(&format!("process {} ", holder.pid())), "{message}");
        assert!(message.contains("--on-death repair"), "{message}");
    }
    assert_eq!(space.json(&["locks"])[0]["kind"], "inconsistent");
    assert!(space.ends(0, &["ls"]).contains("inconsistent"));
    let repair = ["lock", "x", "--on-death", "repair", "--", "sh", "-c"];
    let run = |script: &str| space.run(&[&repair[..], &[script]].concat());
    assert_eq!(run("exit 5").status.code(), Some(5));
    space.ends(8, &["lock", "x", "--", "true"]);
    // A lock taken inside the repair does not inherit the variable of the outer lock.
    let inner = format!(
        "echo died=$COMMONHOLD_OWNER_DIED; {} lock y -- sh -c 'echo inner=$COMMONHOLD_OWNER_DIED'",
        env!("CARGO_BIN_EXE_commonhold")
    );
    assert_eq!(ends(0, &run(&inner), &repair), "died=1\ninner=\n");
    space.ends(0, &["lock", "x", "--", "true"]);
    let output = run("echo died=$COMMONHOLD_OWNER_DIED");
    assert_eq!(ends(0, &output, &repair), "died=\n");
    assert_eq!(space.json(&["locks"]), serde_json::json!([]));
}

#[test]
fn a_killed_reader_does_not_stop_writers() {
    let space = Space::new();
    let (mut reader, command) = hold(&space, "x", &["--shared"]);
    let mut writer = space.start(&["lock", "x", "--", "true"]);
    // The writer waits for the reader to leave; new readers already wait for the writer.
    let pid = writer.pid();
    space.until_lock("x", |lock| lock["waiters"] == 1 || lock["holder"]["pid"] == pid);
    assert!(writer.runs());
    reader.signal("KILL");
    assert_eq!(writer.wait(), 0);
    assert_eq!(reader.wait(), 137);
    until("the command to die", || !lives(command));
}

#[test]
fn sigterm_and_sigint_reach_the_command_and_release_the_lock() {
    let space = Space::new();
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let (mut holder, command) = hold(&space, "x", &[]);
        holder.signal(signal);
        assert_eq!(holder.wait(), code);
        assert!(!lives(command));
        space.ends(0, &["lock", "x", "--timeout", "0", "--", "true"]);
    }
}

#[test]
fn a_command_that_ignores_sigterm_keeps_its_lock_until_it_ends() {
    let space = Space::new();
    let script = "trap '' TERM; echo ready; cat; exit 9";
    let mut holder = space.start(&["lock", "x", "--", "sh", "-c", script]);
    assert_eq!(holder.line(), "ready");
    holder.signal("TERM");
    space.ends(6, &["lock", "x", "--timeout", "100ms", "--", "true"]);
    assert!(holder.runs());
    assert_eq!(holder.release(), 9);
    space.ends(0, &["lock", "x", "--timeout", "0", "--", "true"]);
}

#[test]
fn sigterm_and_sigint_end_the_waiting() {
    let space = Space::new();
    let (holder, _) = hold(&space, "x", &[]);
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let mut waiter = space.start(&["lock", "x", "--", "true"]);
        space.until_waiters("x", 1);
        waiter.signal(signal);
        assert_eq!(waiter.wait(), code);
    }
    space.until_waiters("x", 0);
    assert_eq!(holder.release(), 0);
    space.ends(0, &["lock", "x", "--timeout", "0", "--", "true"]);
}

#[test]
fn a_killed_waiter_leaves_nothing() {
    let space = Space::new();
    let (mut holder, _) = hold(&space, "x", &[]);
    let mut waiter = space.start(&["lock", "x", "--", "true"]);
    space.until_waiters("x", 1);
    waiter.signal("KILL");
    assert_eq!(waiter.wait(), 137);
    space.ends(0, &["reap"]);
    space.ends(6, &["lock", "x", "--timeout", "50ms", "--", "true"]);
    assert!(holder.runs());
    assert_eq!(holder.release(), 0);
    space.ends(0, &["lock", "x", "--timeout", "0", "--", "true"]);
}
