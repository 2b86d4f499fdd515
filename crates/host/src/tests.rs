//! Tests that need processes of their own: deaths, forks, limits.
//!
//! A test starts the test program again with [`ROLE`] set, and only `the_role_of_a_child` runs there.

mod death;
mod fork;
mod medium;
// With musl there is no list by which the kernel could be told of a word (`death_word.rs`).
#[cfg(not(target_env = "musl"))]
mod words;

use std::{
    env,
    io::{BufRead, BufReader, Read, Write, stdin, stdout},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use commonhold_layout::{Bell, Evidence, PeerId};
use commonhold_space::{Deposit, Identity, PeerRecord, Witness};

use crate::{HostError, LinuxPlatform, MappedWindow, file::Place};

const ROLE: &str = "COMMONHOLD_TEST_ROLE";
const PATH: &str = "COMMONHOLD_TEST_PATH";
const SLOT: PeerId = PeerId::new(3);

fn open(path: &Path) -> Result<MappedWindow, HostError> {
    Place::of_path(path).open()
}

fn platform(path: &Path) -> LinuxPlatform {
    LinuxPlatform::new(open(path).unwrap()).unwrap()
}

fn record(identity: Identity, evidence: Evidence) -> PeerRecord {
    PeerRecord {
        peer: SLOT,
        generation: 1,
        evidence,
        identity,
        attached_ms: 0,
        heartbeat: 0,
        bell: Bell::NONE,
    }
}

/// The same record of a peer whose bell has rung.
fn rung(record: PeerRecord) -> PeerRecord {
    PeerRecord { bell: Bell::from_word(1 << 30), ..record }
}

/// The test program again, in a role.
struct Actor {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Actor {
    fn play(role: &str, path: &Path) -> Self {
        Self::play_under(&[], role, path)
    }

    /// In a program that runs the one after it.
    fn play_under(wrapper: &[&str], role: &str, path: &Path) -> Self {
        let program = env::current_exe().unwrap();
        let program = program.to_str().unwrap();
        let arguments = ["--exact", "tests::the_role_of_a_child", "--nocapture"];
        let mut words = wrapper.iter().copied().chain([program]).chain(arguments);
        let mut child = Command::new(words.next().unwrap())
            .args(words)
            .env(ROLE, role)
            .env(PATH, path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// The next thing it says; `None` if it has ended.
    fn hear(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some(said) = line.strip_prefix('@') {
                return Some(said.trim_end().to_owned());
            }
        }
    }

    /// Waits until it holds evidence, and learns who it is. `like` knows the kernel.
    fn identity(&mut self, like: &Identity) -> Identity {
        let said = self.hear().expect("the child has ended");
        let numbers: Vec<u64> = said.split(' ').map(|n| n.parse().unwrap()).collect();
        let [pid, pid_namespace, start_time] = numbers[..] else { panic!("{said}") };
        let pid = u32::try_from(pid).unwrap();
        Identity { pid, pid_namespace, start_time, ..*like }
    }

    /// Kills it and waits for its death, but leaves the zombie.
    fn kill(&mut self) {
        use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
        self.child.kill().unwrap();
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(Pid::from_child(&self.child)), options).unwrap();
    }

    fn succeed(mut self) {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success(), "{rest}");
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(text: &str) {
    let mut out = stdout().lock();
    writeln!(out, "\n@{text}").unwrap();
    out.flush().unwrap();
}

/// Until the test is over.
fn wait_for_the_end() {
    let _ = stdin().read_to_end(&mut Vec::new());
}

fn hold(path: &Path) -> LinuxPlatform {
    let platform = platform(path);
    assert!(platform.deposit(SLOT, Deposit::Alone).unwrap().is_some());
    platform
}

fn introduce(platform: &LinuxPlatform) {
    let Identity { pid, pid_namespace, start_time, .. } = platform.identity();
    say(&format!("{pid} {pid_namespace} {start_time}"));
}

#[test]
fn the_role_of_a_child() {
    let (Ok(role), Some(path)) = (env::var(ROLE), env::var_os(PATH)) else { return };
    let path = Path::new(&path);
    match role.as_str() {
        "hold" => {
            let platform = hold(path);
            introduce(&platform);
            wait_for_the_end();
        }
        "fork" => fork::hold_and_fork(path, fork::Way::Library),
        "clone" => fork::hold_and_fork(path, fork::Way::Kernel),
        "drop" => fork::drop_in_a_child(path),
        "nest" => fork::nest(path),
        #[cfg(not(target_env = "musl"))]
        "fork-armed" => words::fork_armed(path),
        "limit" => medium::open_under_a_limit(path),
        "shm" => medium::use_another_directory(),
        other => panic!("no role {other}"),
    }
}
