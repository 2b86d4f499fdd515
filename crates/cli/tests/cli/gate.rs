//! Removing and replacing a space while other processes open it.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::FileExt,
    process::{Command, Stdio},
    sync::{
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use crate::support::{Folder, Held, Space, commonhold, kill, until};

/// Variable that says how many seconds the loop of removals lasts at least.
const SECONDS: &str = "COMMONHOLD_TEST_SECONDS";
/// On a busy machine a removal may find a locker each time: the loop goes on until each command has succeeded, or for
/// this long.
const AT_MOST: Duration = Duration::from_secs(120);
/// The status of the command under the lock if another one holds the lock too.
const TWO_INSIDE: i32 = 99;

fn status(space: &Space, args: &[&str]) -> i32 {
    let output = space.run(args);
    let code = output.status.code().unwrap_or(-1);
    // Not found, exists, in use and timed out may happen to any process here.
    let expected = [0, 3, 4, 5, 6, TWO_INSIDE].contains(&code);
    assert!(expected, "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    code
}

/// The story: `space remove` looked for live peers and then removed the name. A process that opened the file in
/// between took a lock that no other process could find.
#[test]
fn three_lockers_beside_removals_and_formats_are_never_inside_together() {
    let seconds = std::env::var(SECONDS).ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let folder = Folder::new();
    let space = Space::new();
    let inside = folder.0.join("inside");
    // If two commands make the same directory, one of them fails.
    let script = format!("mkdir {0} || exit {TWO_INSIDE}; rmdir {0}", inside.display());
    let locked = ["lock", "x", "--timeout", "5s", "--", "sh", "-c", &script];
    let remove = ["space", "remove", &space.url];
    let format = ["space", "format", &space.url, "--capacity", "4M", "--force"];
    let counts = [const { AtomicU32::new(0) }; 3];
    let over = AtomicBool::new(false);
    let start = Instant::now();
    let goes_on = || {
        let all = counts.iter().all(|count| count.load(Ordering::Relaxed) > 0);
        let least = if all { Duration::from_secs(seconds) } else { AT_MOST };
        start.elapsed() < least && !over.load(Ordering::Relaxed)
    };
    let repeat = |what: &[&str], count: usize| {
        while goes_on() {
            match status(&space, what) {
                0 => _ = counts[count].fetch_add(1, Ordering::Relaxed),
                TWO_INSIDE => over.store(true, Ordering::Relaxed),
                _ => {}
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| repeat(&locked, 0));
        }
        scope.spawn(|| repeat(&remove, 1));
        scope.spawn(|| repeat(&format, 2));
    });
    let [inside, removed, formatted] = counts.map(AtomicU32::into_inner);
    eprintln!("{inside} times inside, {removed} removals, {formatted} formats");
    assert!(!over.into_inner(), "two were inside, after {inside} visits");
    assert!(inside > 0 && removed > 0 && formatted > 0);
}

/// The story: a space of a later version was removed with status 0, although another process used it.
#[test]
fn a_space_of_another_version_that_somebody_holds_is_in_use() {
    let folder = Folder::new();
    let path = folder.0.join("space");
    let space = Space::at(format!("file:{}", path.display()));
    space.ends(0, &["space", "format", &space.url, "--capacity", "4M"]);
    let holder = space.start(&["lock", "x", "--", "cat"]);
    space.until_held("x");
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&99_u64.to_le_bytes(), 8).unwrap();
    space.ends(9, &["ls"]);
    space.ends(5, &["space", "format", &space.url, "--force"]);
    let refused = space.run(&["space", "remove", &space.url]);
    assert_eq!(refused.status.code(), Some(5));
    let text = String::from_utf8(refused.stderr).unwrap();
    let pid = format!("process {} (\"commonhold\")", holder.pid());
    for part in [pid.as_str(), "byte 46116860184273879", "slot", "fuser", "rm /"] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    drop(holder);
    space.ends(0, &["space", "remove", &space.url]);
}

/// A stopped process that holds the gate of a space's file.
fn stopped_at_the_gate(path: &std::path::Path) -> Held {
    // Exclusive, as a remover holds it.
    let script = "import fcntl, struct, sys, time\n\
                  file = open(sys.argv[1], 'r+b')\n\
                  lock = struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 2**62 - 2, 1, 0)\n\
                  fcntl.fcntl(file, 37, lock)\n\
                  print('alone', flush=True)\n\
                  time.sleep(3600)";
    let mut command = Command::new("python3");
    command.arg("-c").arg(script).arg(path);
    let mut held = Held::spawn(command);
    assert_eq!(held.line(), "alone");
    kill("STOP", held.pid());
    held
}

#[test]
fn a_lock_keeps_its_timeout_and_notices_signals_while_the_gate_is_held() {
    if Command::new("python3").arg("-V").stdout(Stdio::null()).status().is_err() {
        eprintln!("note: not tested: there is no python3 to hold the gate");
        return;
    }
    let folder = Folder::new();
    let path = folder.0.join("space");
    let space = Space::at(format!("file:{}", path.display()));
    space.ends(0, &["space", "format", &space.url, "--capacity", "4M"]);
    let remover = stopped_at_the_gate(&path);
    let refused = space.run(&["lock", "x", "--timeout", "0ms", "--", "true"]);
    assert_eq!(refused.status.code(), Some(6));
    let text = String::from_utf8(refused.stderr).unwrap();
    let pid = format!("process {} (\"python3\", stopped)", remover.pid());
    assert!(text.contains(&pid) && text.contains("kill -CONT"), "{text}");
    space.ends(6, &["destroy", "x", "--timeout", "1ms"]);
    space.ends(6, &["ls"]);
    for waits in [&["lock", "x", "--", "true"][..], &["map", "x", "--", "true"]] {
        let mut waiter = space.start(waits);
        // It installs its signal handlers before it opens the space.
        let status = format!("/proc/{}/status", waiter.pid());
        until("a handler", || {
            let text = fs::read_to_string(&status).unwrap_or_default();
            let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:\t"));
            caught.is_some_and(|bits| u64::from_str_radix(bits, 16).unwrap() & (1 << 14) != 0)
        });
        waiter.signal("TERM");
        assert_eq!(waiter.wait(), 143);
    }
    drop(remover);
    space.ends(0, &["ls"]);
}

#[test]
fn the_holder_of_a_lock_in_a_removed_space_is_warned() {
    let folder = Folder::new();
    let path = folder.0.join("space");
    let url = format!("file:{}", path.display());
    let space = Space::at(url.clone());
    space.ends(0, &["space", "format", &url, "--capacity", "4M"]);
    assert_eq!(space.json(&["space", "info"])["orphaned"], false);
    for command in [&["lock", "x", "--", "cat"][..], &["map", "x", "--", "cat"]] {
        if !path.exists() {
            space.ends(0, &["space", "format", &url, "--capacity", "4M"]);
            space.ends(0, &["create", "x", "4K"]);
        }
        let mut child = commonhold()
            .args(["--space", &url])
            .args(command)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let errors = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        if command[0] == "lock" {
            space.until_held("x");
        } else {
            until("the mapping", || space.json(&["stat", "x"])["maps"] == 1);
        }
        fs::remove_file(&path).unwrap();
        let warning = lines.recv_timeout(Duration::from_secs(20)).expect("no warning");
        assert!(warning.contains("WARN") && warning.contains("orphaned"), "{warning}");
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        assert_eq!(lines.iter().count(), 0, "it warns once");
    }
}
