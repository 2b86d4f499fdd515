//! Tests that need a process of their own: one that dies by a signal, or uses up what a process may have.
//!
//! Such a test starts the test program again with [`ROLE`] set. There only `the_role_of_a_child` does anything.

use super::{descriptors, failures, forks, own_acts, pagers, replacing, signals};
use std::{
    env,
    io::{BufRead, BufReader, Read, Write, stdout},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
};

const ROLE: &str = "COMMONHOLD_TEST_ROLE";

/// The name of `the_role_of_a_child` on the test program's command line. A wrong name would run no test, and succeed.
fn role_test() -> String {
    let (_crate, module) = module_path!().split_once("::").unwrap();
    format!("{module}::the_role_of_a_child")
}

/// Starts the test program again, in a role.
pub(super) struct ScriptedProcess {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl ScriptedProcess {
    pub(super) fn play(role: &str) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", &role_test(), "--nocapture"])
            .env(ROLE, role)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// The next line that the role prints; `None` if the process has ended.
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

    pub(super) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// All that it has printed since, and how it ended.
    pub(super) fn rest(mut self) -> (String, ExitStatus) {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        (rest, self.wait())
    }

    pub(super) fn succeed(mut self) {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        assert!(self.wait().success(), "{rest}");
    }
}

impl Drop for ScriptedProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Prints a line for the test to read.
pub(super) fn say(text: &str) {
    let mut out = stdout().lock();
    writeln!(out, "\n@{text}").unwrap();
    out.flush().unwrap();
}

#[test]
fn the_role_of_a_child() {
    let Ok(role) = env::var(ROLE) else { return };
    match role.as_str() {
        "closed" => descriptors::close_and_reuse(),
        "forked" => forks::use_everything_in_a_child(),
        "signals" => signals::touch_in_handlers(),
        "moved" => replacing::move_memory(),
        "reentrant" => pagers::touch_managed_memory(),
        "many-parts" => failures::make_many_parts(),
        role if role.starts_with("touch-") => failures::touch(role),
        role if role.starts_with("act-") => own_acts::act(&role["act-".len()..]),
        other => panic!("no role {other}"),
    }
}
