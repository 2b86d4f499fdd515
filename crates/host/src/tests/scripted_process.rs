//! Processes that tests start: the test program again with [`ROLE`] set, where only `the_role_of_a_child` does
//! anything. Also shared set-up for tests of a space's file.

#[cfg(not(target_env = "musl"))]
use super::words;
use super::{fork, medium};
use crate::{HostError, LinuxPlatform, MappedWindow, memory::FileLocation};
use commonhold_layout::{DeathFutex, Evidence, PeerId};
use commonhold_space::{EvidenceLock, Identity, LivenessEvidence, PeerRecord};
use std::{
    env,
    io::{BufRead, BufReader, Read, Write, stdin, stdout},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

pub(super) const ROLE: &str = "COMMONHOLD_TEST_ROLE";
pub(super) const PATH: &str = "COMMONHOLD_TEST_PATH";
pub(super) const SLOT: PeerId = PeerId::new(3);

pub(super) fn open(path: &Path) -> Result<MappedWindow, HostError> {
    FileLocation::of_path(path).open()
}

pub(super) fn platform(path: &Path) -> LinuxPlatform {
    LinuxPlatform::new(open(path).unwrap()).unwrap()
}

pub(super) fn record(identity: Identity, evidence: Evidence) -> PeerRecord {
    PeerRecord {
        peer: SLOT,
        generation: 1,
        evidence,
        identity,
        attached_ms: 0,
        heartbeat: 0,
        death_futex: DeathFutex::NONE,
    }
}

/// The same record, of a peer whose death futex has fired.
pub(super) fn rung(record: PeerRecord) -> PeerRecord {
    PeerRecord { death_futex: DeathFutex::from_word(1 << 30), ..record }
}

/// The name of `the_role_of_a_child` on the test program's command line. A wrong name would run no test, and succeed.
pub(super) fn role_test() -> String {
    let (_crate, module) = module_path!().split_once("::").unwrap();
    format!("{module}::the_role_of_a_child")
}

/// Starts the test program again, in a role.
pub(super) struct ScriptedProcess {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl ScriptedProcess {
    pub(super) fn play(role: &str, path: &Path) -> Self {
        Self::play_under(&[], role, path)
    }

    /// Starts it by a program that runs the program named behind it.
    pub(super) fn play_under(wrapper: &[&str], role: &str, path: &Path) -> Self {
        let program = env::current_exe().unwrap();
        let program = program.to_str().unwrap();
        let test = role_test();
        let arguments = ["--exact", &test, "--nocapture"];
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

    /// The next line that it prints; `None` if it has ended.
    pub(super) fn hear(&mut self) -> Option<String> {
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

    /// Waits until it has left evidence, and reads its identity. The kernel's part is that of `like`.
    pub(super) fn identity(&mut self, like: &Identity) -> Identity {
        let said = self.hear().expect("the child has ended");
        let numbers: Vec<u64> = said.split(' ').map(|n| n.parse().unwrap()).collect();
        let [pid, pid_namespace, start_time] = numbers[..] else { panic!("{said}") };
        let pid = u32::try_from(pid).unwrap();
        Identity { pid, pid_namespace, start_time, ..*like }
    }

    /// Kills it and waits for its death, but leaves the zombie.
    pub(super) fn kill(&mut self) {
        use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
        self.child.kill().unwrap();
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(Pid::from_child(&self.child)), options).unwrap();
    }

    pub(super) fn succeed(mut self) {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success(), "{rest}");
    }
}

impl Drop for ScriptedProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn say(text: &str) {
    let mut out = stdout().lock();
    writeln!(out, "\n@{text}").unwrap();
    out.flush().unwrap();
}

/// Waits until the test is over.
pub(super) fn wait_for_the_end() {
    let _ = stdin().read_to_end(&mut Vec::new());
}

pub(super) fn hold(path: &Path) -> LinuxPlatform {
    let platform = platform(path);
    assert!(platform.publish(SLOT, EvidenceLock::Alone).unwrap().is_some());
    platform
}

pub(super) fn introduce(platform: &LinuxPlatform) {
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
