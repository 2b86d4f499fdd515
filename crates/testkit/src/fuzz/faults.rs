//! Every system call of a command fails, or takes long, one after the other.
//!
//! `strace --inject` makes the N-th call of a kind return an error, or delays it, in an unchanged program. A command
//! whose call fails must end with a documented status; a command whose call takes long must succeed. Afterwards
//! nothing may be lost, and everything must be whole.
//!
//! # What it does not do
//! Calls that the C library and its loader make for themselves do not fail: loading, and mappings of private memory.
//! Without `strace` nothing is tested, and a message says so.

use std::{fs, path::Path, process::Command};

use fastrand::Rng;

use super::{
    Finding, Run,
    check::{self, typed},
    child::{self, End, FOR_EVER},
    commands::{COMMANDS, Scene, TestSpace, Words, statuses},
};

/// The calls that are made to fail, and the errors of each.
const CALLS: &[(&str, &[&str])] = &[
    ("open", &["EIO", "EACCES", "EINTR", "EMFILE", "ENOMEM", "ENOSPC"]),
    ("openat", &["EIO", "EACCES", "EINTR", "EMFILE", "ENOMEM"]),
    ("fcntl", &["EIO", "EINTR", "EAGAIN", "EACCES", "ENOMEM"]),
    ("unlink", &["EIO", "EACCES", "ENOSPC"]),
    ("unlinkat", &["EIO", "EACCES", "ENOSPC"]),
    ("rename", &["EIO", "EACCES", "ENOSPC"]),
    ("renameat", &["EIO", "EACCES", "ENOSPC"]),
    ("renameat2", &["EIO", "EACCES", "ENOSPC"]),
    ("linkat", &["EIO", "EACCES", "ENOSPC"]),
    ("fallocate", &["EIO", "EINTR", "ENOSPC", "ENOMEM"]),
    ("ftruncate", &["EIO", "EINTR", "ENOSPC", "EACCES"]),
    ("mmap", &["ENOMEM", "EAGAIN", "EACCES"]),
    ("clone3", &["EAGAIN", "ENOMEM"]),
    ("fstat", &["EIO", "ENOMEM"]),
    ("fstatfs", &["EIO", "ENOMEM"]),
    ("stat", &["EIO", "EACCES", "ENOMEM"]),
    ("newfstatat", &["EIO", "EACCES", "ENOMEM"]),
    ("statx", &["EIO", "EACCES", "ENOMEM"]),
    ("fchmod", &["EIO", "EACCES"]),
    ("pread64", &["EIO", "EINTR"]),
    ("read", &["EIO", "EINTR"]),
    ("write", &["EIO", "ENOSPC", "EPIPE"]),
    ("madvise", &["ENOMEM", "EAGAIN"]),
    ("pidfd_open", &["EMFILE", "ENOMEM"]),
    ("set_robust_list", &["EINVAL"]),
];

/// The status of a command whose reader of standard output has gone away.
const BROKEN_PIPE: i32 = 141;

/// How long a delayed call takes, in microseconds.
const DELAY_US: u32 = 30_000;

/// One call of a command, and its fault.
#[derive(Debug, Clone, Copy)]
struct Fault {
    words: Words,
    call: &'static str,
    number: u32,
    /// The error; `None` if the call is delayed.
    error: Option<&'static str>,
}

pub(super) fn run(run: &mut Run) -> Finding {
    let logs = run.arena.path().join("logs");
    fs::create_dir_all(&logs).map_err(|error| error.to_string())?;
    let version = child::run(Command::new("strace").arg("--version"), &logs, FOR_EVER);
    if !version.is_ok_and(|ended| ended.how == End::Exit(0)) {
        return Err("there is no strace: install it".to_owned());
    }
    let place = run.arena.path().join("test_space");
    let mut faults = vec![];
    for words in COMMANDS {
        let test_space = TestSpace::make(&place, Scene::Quiet)?;
        faults.extend(calls(run, &test_space, words, &logs)?);
    }
    let mut random = Rng::with_seed(run.seed);
    random.shuffle(&mut faults);
    for fault in faults.iter().cycle() {
        if !run.goes_on() {
            return Ok(());
        }
        run.rounds += 1;
        let scene = if random.bool() { Scene::Quiet } else { Scene::Dead };
        let test_space = TestSpace::make(&place, scene)?;
        match inject(run, &test_space, *fault, &logs) {
            Ok(code) => run.tally.count(fault.call, &code.to_string()),
            Err(why) => run.finds(run.seed, &format!("{fault:?}: {why}")),
        }
    }
    Ok(())
}

/// A command under `strace`, whose own output goes to the logs.
fn traced(
    run: &Run,
    test_space: &TestSpace,
    words: Words,
    options: &[String],
    logs: &Path,
) -> Command {
    let mut command = Command::new("strace");
    command.args(["--follow-forks", "--quiet=all", "--output"]).arg(logs.join("trace"));
    command.args(options).arg("--").arg(&run.program).args(test_space.words(words));
    test_space.surround(&mut command);
    command
}

/// The faults for a command: each of its calls with every error, and once delayed.
fn calls(run: &Run, test_space: &TestSpace, words: Words, logs: &Path) -> Finding<Vec<Fault>> {
    // `?`: not every architecture has each of the calls.
    let names: Vec<String> = CALLS.iter().map(|(call, _)| format!("?{call}")).collect();
    let options = [format!("--trace={},munmap", names.join(","))];
    let mut command = traced(run, test_space, words, &options, logs);
    let ended = child::run(&mut command, logs, FOR_EVER)?;
    check::status(&ended, statuses(words)).map_err(|why| format!("{}: {why}", typed(&command)))?;
    let trace = fs::read_to_string(logs.join("trace")).map_err(|error| error.to_string())?;
    // `strace` counts calls by process and thread; only those of the main thread are used.
    let main = trace.lines().next().and_then(|line| line.split_whitespace().next()).unwrap_or("");
    let loaded = loaded(&trace);
    let mut faults = vec![];
    for (call, errors) in CALLS {
        let begin = format!("{call}(");
        let of_call = trace.lines().enumerate().filter(|(_, line)| {
            let mut parts = line.split_whitespace();
            parts.next() == Some(main) && parts.next().is_some_and(|what| what.starts_with(&begin))
        });
        for (number, (index, line)) in (1..).zip(of_call) {
            if index < loaded || is_the_library_s(call, line) {
                continue;
            }
            let errors = errors.iter().copied().map(Some).chain([None]);
            faults.extend(errors.map(|error| Fault { words, call, number, error }));
        }
    }
    Ok(faults)
}

/// How many lines of a trace belong to the loader: its last call unmaps the cache of libraries.
fn loaded(trace: &str) -> usize {
    let opens = |line: &str| line.contains("openat(") && line.contains(".so");
    let last = trace.lines().enumerate().filter(|(_, line)| opens(line)).last();
    let Some((last, _)) = last else { return 0 };
    let end = trace.lines().enumerate().skip(last).find(|(_, line)| line.contains("munmap("));
    end.map_or(last, |(end, _)| end)
}

/// Whether a call is made by the allocator or the thread library for itself.
fn is_the_library_s(call: &str, line: &str) -> bool {
    match call {
        "mmap" => !line.contains("MAP_SHARED"),
        "madvise" => line.contains("MADV_DONTNEED"),
        _ => false,
    }
}

fn inject(run: &Run, test_space: &TestSpace, fault: Fault, logs: &Path) -> Finding<i32> {
    let Fault { words, call, number, error } = fault;
    let what = match error {
        Some(error) => format!("error={error}"),
        None => format!("delay_enter={DELAY_US}"),
    };
    let options = [format!("--trace={call}"), format!("--inject={call}:{what}:when={number}")];
    let mut command = traced(run, test_space, words, &options, logs);
    let ended = child::run(&mut command, logs, FOR_EVER)?;
    let code = match (error, &ended.how) {
        // The reader of its output seems to be gone: it ends as by SIGPIPE.
        (Some("EPIPE"), End::Exit(BROKEN_PIPE)) => BROKEN_PIPE,
        _ => check::status(&ended, statuses(words))?,
    };
    check::texts(&ended, check::Output::Bytes)?;
    if error.is_none() && ![0, 7].contains(&code) {
        return Err(format!(
            "a call was only delayed, but it ends with {code}: {}",
            ended.message()
        ));
    }
    test_space.is_whole()?;
    Ok(code)
}
