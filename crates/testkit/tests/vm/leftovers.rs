//! A test that is killed itself leaves nothing behind.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    thread,
};

use commonhold_testkit::vm::{Guest, GuestImage, Machine, Outcome, RunSpace};

use crate::support::until;

const ROLE: &str = "COMMONHOLD_VM_TO_BE_KILLED";
const MARK: &str = "to be killed:";

#[test]
fn a_test_that_is_killed_leaves_no_process_and_no_file() -> Outcome {
    if env::var_os(ROLE).is_some() {
        return be_killed();
    }
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "leftovers::a_test_that_is_killed_leaves_no_process_and_no_file"])
        .arg("--nocapture")
        .env(ROLE, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let said = lines.find_map(|line| Some(line.split_once(MARK)?.1.to_owned())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let (path, qemu) = said.trim().split_once(' ').unwrap();
    let directory = Path::new(path).parent().unwrap();
    until("the files are gone", || Ok(!directory.exists()))?;
    until("the guest is gone", || Ok(!runs(qemu)))
}

#[allow(clippy::print_stdout, reason = "the other process reads it")]
fn be_killed() -> Outcome {
    let image = GuestImage::find()?;
    let run_space = RunSpace::blank(&image, 1 << 20)?;
    let guest = Guest::start(&image, &Machine::with(run_space.path()))?;
    guest.boot()?;
    println!("{MARK} {} {}", run_space.path().display(), guest.pid());
    loop {
        thread::park();
    }
}

/// Whether a process exists and is not a zombie.
fn runs(pid: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}
