//! A child process in this kernel, whose output becomes events.
//!
//! The agent in a guest and the tests on the host use this same code.

use std::{
    io::{self, BufRead as _, BufReader, Read, Write as _},
    os::{fd::OwnedFd, unix::process::ExitStatusExt as _},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::vm::wire::Event;

/// A running process.
#[derive(Debug)]
pub(crate) struct Process {
    stdin: Option<ChildStdin>,
    /// Not a process id: another process may get it once this one has been waited for.
    pidfd: OwnedFd,
}

/// Gives a command the pipes that [`Process::follow`] needs.
pub(crate) fn piped(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped())
}

impl Process {
    /// Reports everything that happens to a child with pipes, until it ends.
    pub(crate) fn follow(
        mut child: Child,
        tell: impl Fn(Event) + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pidfd = pidfd_open(pid.ok_or(io::ErrorKind::InvalidInput)?, PidfdFlags::empty())?;
        let stdin = child.stdin.take();
        let out = child.stdout.take().map(|pipe| lines(pipe, tell.clone(), Event::Out));
        let err = child.stderr.take().map(|pipe| lines(pipe, tell.clone(), Event::Err));
        thread::spawn(move || {
            let status = child.wait();
            for reader in [out, err].into_iter().flatten() {
                let _ = reader.join();
            }
            let code = |status: std::process::ExitStatus| {
                status.code().or_else(|| status.signal().map(|signal| 128 + signal))
            };
            tell(Event::End(status.ok().and_then(code).unwrap_or(-1)));
        });
        Ok(Self { stdin, pidfd })
    }

    /// Writes a line to it. If the pipe has no reader, the process is dead, which an event will report.
    pub(crate) fn tell(&mut self, line: &str) {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(format!("{line}\n").as_bytes()).and_then(|()| stdin.flush());
        }
    }

    /// Closes its standard input.
    pub(crate) fn close(&mut self) {
        self.stdin = None;
    }

    /// Kills it; does nothing if it is dead.
    pub(crate) fn kill(&self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

fn lines(
    pipe: impl Read + Send + 'static,
    tell: impl Fn(Event) + Send + 'static,
    event: fn(String) -> Event,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        // Read as bytes: the output of a program need not be text.
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            tell(event(String::from_utf8_lossy(&line).into_owned()));
        }
    })
}
