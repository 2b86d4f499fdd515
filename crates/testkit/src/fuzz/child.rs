//! A process under test, which has a deadline, and whose way of ending is known.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
};

use super::Finding;

/// A process that has not ended after this time hangs, even on a busy machine.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(30);

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    Exit(i32),
    Signal(i32),
    /// It did not end in time, and was killed.
    Hang,
}

/// The result of a process: how it ended, and what it printed.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) how: End,
    pub(crate) output: Vec<u8>,
    pub(crate) said: Vec<u8>,
}

impl Ended {
    /// Its standard error, as text.
    pub(crate) fn message(&self) -> String {
        String::from_utf8_lossy(&self.said).trim_end().to_owned()
    }
}

/// Runs a command until it ends, or until the limit. Its output goes to files in `folder`: with pipes, a process that
/// inherits them could make this wait.
pub(crate) fn run(command: &mut Command, folder: &Path, limit: Duration) -> Finding<Ended> {
    let wrong = |error: std::io::Error| error.to_string();
    let (output, said) = (folder.join("output"), folder.join("said"));
    let file = |path: &Path| fs::File::create(path).map_err(wrong);
    command.stdin(Stdio::null()).stdout(file(&output)?).stderr(file(&said)?).process_group(0);
    let mut child =
        command.spawn().map_err(|error| format!("cannot start {command:?}: {error}"))?;
    let how = end(&mut child, limit)?;
    let read = |path: &Path| fs::read(path).map_err(wrong);
    Ok(Ended { how, output: read(&output)?, said: read(&said)? })
}

/// Waits for a child that leads a process group. If it does not end in time, its whole group is killed.
fn end(child: &mut Child, limit: Duration) -> Finding<End> {
    let ended = ends_within(child, limit)?;
    if !ended {
        kill_group(child);
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    Ok(if ended { how(status) } else { End::Hang })
}

/// Whether a child ends in time. It is not reaped.
pub(crate) fn ends_within(child: &Child, limit: Duration) -> Finding<bool> {
    let pid = pidfd_open(Pid::from_child(child), PidfdFlags::empty());
    let pid = pid.map_err(|errno| format!("pidfd_open: {errno}"))?;
    let limit = Timespec::try_from(limit).map_err(|error| error.to_string())?;
    loop {
        match poll(&mut [PollFd::new(&pid, PollFlags::IN)], Some(&limit)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(format!("poll: {errno}")),
        }
    }
}

pub(crate) fn kill_group(child: &mut Child) {
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    let _ = child.kill();
}

fn how(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exit(code),
        (None, signal) => End::Signal(signal.unwrap_or(0)),
    }
}

/// This program in another role, and the lines that it prints.
#[derive(Debug)]
pub(crate) struct Worker {
    child: Child,
    lines: Receiver<String>,
}

/// Prints a line in a worker. If nothing reads it, the worker ends.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(4);
    }
}

/// The next line of a worker, or its end.
#[derive(Debug)]
pub(crate) enum Said {
    Line(String),
    End(End),
}

impl Worker {
    pub(crate) fn start(args: &[&str], log: &Path) -> Finding<Self> {
        let program = env::current_exe().map_err(|error| error.to_string())?;
        let said = fs::File::create(log).map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(said);
        let mut child = command.process_group(0).spawn().map_err(|error| error.to_string())?;
        let output = child.stdout.take().ok_or("a child without output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, lines })
    }

    pub(crate) fn hear(&mut self, limit: Duration) -> Finding<Said> {
        match self.lines.recv_timeout(limit) {
            Ok(line) => Ok(Said::Line(line)),
            Err(RecvTimeoutError::Disconnected) => end(&mut self.child, limit).map(Said::End),
            Err(RecvTimeoutError::Timeout) => {
                kill_group(&mut self.child);
                let _ = self.child.wait();
                Ok(Said::End(End::Hang))
            }
        }
    }

    pub(crate) fn kill(&mut self) {
        kill_group(&mut self.child);
        let _ = self.child.wait();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}
