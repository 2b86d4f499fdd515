//! Nothing that a test starts outlives the test, however the test ends.
//!
//! # How
//! 1. One thread, which lives as long as the process, starts all programs. It starts them through `guest-actor bound`,
//!    which asks the kernel for SIGKILL at the end of that thread, and then becomes the program.
//! 2. A separate process, `guest-actor broom`, removes a directory when its standard input ends. It has its own
//!    process group, so that Ctrl-C does not kill it first.

use std::{
    ffi::OsString,
    fs,
    io::{self, Read as _, stdin},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        mpsc::{Sender, channel},
    },
    thread,
};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::vm::{GuestImage, Outcome, failed};

type Request = (Command, Sender<io::Result<Child>>);

static LAUNCHER: OnceLock<Sender<Request>> = OnceLock::new();

/// A command that runs `argv` and does not outlive this process. It must be started by [`launch`].
pub(crate) fn bound(image: &GuestImage, argv: &[impl AsRef<std::ffi::OsStr>]) -> Command {
    let mut command = Command::new(image.helper());
    command.args(["bound", &std::process::id().to_string()]).args(argv);
    command
}

/// Starts a command from the thread to whose end it is bound.
pub(crate) fn launch(command: Command) -> io::Result<Child> {
    let launcher = LAUNCHER.get_or_init(|| {
        let (sender, requests) = channel::<Request>();
        thread::spawn(move || {
            for (mut command, answer) in requests {
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let (sender, answer) = channel();
    let gone = |_| io::Error::other("the thread that starts programs is gone");
    launcher.send((command, sender)).map_err(|_| gone(std::sync::mpsc::RecvError))?;
    answer.recv().map_err(gone)?
}

/// Executes `bound PARENT PROGRAM ARGUMENT...`. Returns only if that fails.
pub(crate) fn become_bound(mut arguments: impl Iterator<Item = OsString>) -> io::Error {
    let parent = arguments.next().and_then(|text| text.to_str()?.parse::<i32>().ok());
    let Some(program) = arguments.next() else {
        return io::Error::other("usage: bound PARENT PROGRAM ARGUMENT...");
    };
    if let Err(errno) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return errno.into();
    }
    if getppid().map(|pid| pid.as_raw_nonzero().get()) != parent {
        return io::Error::other("the parent is gone already");
    }
    Command::new(program).args(arguments).exec()
}

/// Executes `broom DIRECTORY`: removes the directory when standard input ends.
pub(crate) fn sweep(directory: &Path) -> io::Result<()> {
    stdin().read_to_end(&mut Vec::new())?;
    fs::remove_dir_all(directory)
}

/// The process that will remove a directory.
#[derive(Debug)]
pub(crate) struct Broom(Child);

impl Broom {
    pub(crate) fn over(image: &GuestImage, directory: &Path) -> Outcome<Self> {
        let mut command = Command::new(image.helper());
        command.arg("broom").arg(directory).stdin(Stdio::piped()).process_group(0);
        command.spawn().map(Self).map_err(failed("start the broom"))
    }
}

impl Drop for Broom {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
