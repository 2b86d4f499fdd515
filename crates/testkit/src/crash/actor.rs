//! A child process as the driver sees it: the commands it was sent, what it printed, and whether it is alive.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::Duration,
};

use commonhold_window::Point;

use crate::crash::{Outcome, arm};

/// The longest time a command may take; after it, the child counts as hanging.
const PATIENCE: Duration = Duration::from_secs(10);

/// One hit of one point.
pub(crate) type Hit = (Point, u32);

/// The next thing that a child has done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Point(Point),
    Answer(String),
    /// It was killed, and the kernel has released everything it had.
    Death,
}

pub(crate) struct ScriptedProcess {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    /// Every point it passed, in order.
    pub(crate) trace: Vec<Point>,
    /// How many points of the trace are older than the command in flight.
    begun: usize,
    /// The command it has not answered yet.
    pub(crate) in_flight: Option<String>,
    pub(crate) alive: bool,
}

impl ScriptedProcess {
    /// Starts `program`, which dies at `at`.
    pub(crate) fn start(program: &Path, at: Option<Hit>) -> Outcome<Self> {
        Self::start_with(program, at, &[])
    }

    /// The same, with these variables added to the environment.
    pub(crate) fn start_with(
        program: &Path,
        at: Option<Hit>,
        environment: &[(&str, &Path)],
    ) -> Outcome<Self> {
        let mut command = Command::new(program);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.env_remove(arm::ARMED).env_remove(arm::STOPPED);
        command.envs(environment.iter().copied());
        if let Some((point, number)) = at {
            command.env(arm::ARMED, format!("{}:{number}", point.name()));
        }
        let mut child =
            command.spawn().map_err(|error| format!("cannot start a child: {error}"))?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or("a child without output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, input, lines, trace: vec![], begun: 0, in_flight: None, alive: true })
    }

    /// Sends it a command.
    pub(crate) fn tell(&mut self, command: &str) {
        self.begun = self.trace.len();
        self.in_flight = Some(command.to_owned());
        // If the pipe has no reader, the child is dead, and `hear` will report it.
        let _ = self.input.as_mut().map(|input| writeln!(input, "{command}"));
    }

    /// The points it has passed since it was sent the current command.
    pub(crate) fn points(&self) -> &[Point] {
        self.trace.get(self.begun..).unwrap_or(&[])
    }

    /// Waits for the next thing it does.
    pub(crate) fn hear(&mut self) -> Outcome<Heard> {
        let line = match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => return self.bury().map(|()| Heard::Death),
            Err(RecvTimeoutError::Timeout) => {
                let last = self.trace.last().map_or("no point", |point| point.name());
                return Err(format!("hangs in {:?} after {last}", self.in_flight));
            }
        };
        match line.split_at_checked(1) {
            Some(("@", name)) => {
                let point = arm::point(name).ok_or_else(|| format!("no point {name:?}"))?;
                self.trace.push(point);
                Ok(Heard::Point(point))
            }
            Some(("=", answer)) => Ok(Heard::Answer(answer.to_owned())),
            _ => Err(format!("it says {line:?}")),
        }
    }

    /// Waits for its answer; `None` if it died instead.
    pub(crate) fn answer(&mut self) -> Outcome<Option<String>> {
        loop {
            match self.hear()? {
                Heard::Point(_) => {}
                Heard::Answer(answer) => {
                    self.in_flight = None;
                    return Ok(Some(answer));
                }
                Heard::Death => return Ok(None),
            }
        }
    }

    /// Sends it several commands, and waits for each answer.
    pub(crate) fn tell_all(&mut self, commands: &[&str]) -> Outcome {
        for command in commands {
            self.tell(command);
            self.answer()?.ok_or_else(|| format!("it died in {command:?}"))?;
        }
        Ok(())
    }

    fn bury(&mut self) -> Outcome {
        let status = self.child.wait().map_err(|error| error.to_string())?;
        self.alive = false;
        match status.signal() {
            Some(9) => Ok(()),
            _ => Err(format!("ended by {status} in {:?}", self.in_flight)),
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// Waits until a signal has stopped it.
    pub(crate) fn until_stopped(&self) -> Outcome {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        let waited = waitid(WaitId::Pid(self.pid()), WaitIdOptions::STOPPED);
        waited.map(drop).map_err(|error| error.to_string())
    }

    /// Continues it.
    pub(crate) fn go_on(&self) -> Outcome {
        let told = rustix::process::kill_process(self.pid(), rustix::process::Signal::CONT);
        told.map_err(|error| error.to_string())
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(&mut self) -> Outcome {
        self.child.kill().map_err(|error| error.to_string())?;
        while self.hear()? != Heard::Death {}
        Ok(())
    }

    /// Ends its script; it must then exit with status 0.
    pub(crate) fn dismiss(&mut self) -> Outcome {
        drop(self.input.take());
        let status = self.child.wait().map_err(|error| error.to_string())?;
        self.alive = false;
        if status.success() { Ok(()) } else { Err(format!("ended by {status}, still holding")) }
    }
}

impl Drop for ScriptedProcess {
    fn drop(&mut self) {
        if self.alive {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
