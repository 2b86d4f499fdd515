//! Commands that run under a lock or a mapping, and must not outlive it.
//!
//! Invariants: 1. the command gets SIGKILL when this process dies, however it dies: a hidden re-exec
//! asks for that in the child (`console::child`; the request survives `execve` of ordinary programs),
//! looks whether its parent is still there, and only then becomes the command. 2. It is started from the
//! main thread, as that wants it.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Command, ExitStatus},
};

use command_fds::{CommandFdExt, FdMapping};
use commonhold::Space;
use commonhold_console::{
    child::{die_with, this_program},
    failure::{Doing, Failure, Status},
    signals::Signals,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::args::ExecChildArgs;

/// What a child gets beside its arguments.
#[derive(Debug, Default)]
pub(crate) struct Gifts {
    /// Variables to set, or (without a value) not to hand on.
    pub(crate) environment: Vec<(&'static str, Option<String>)>,
    /// Inherited under its own number.
    pub(crate) descriptor: Option<OwnedFd>,
}

/// Runs a command to its end; signals that ask us to end are forwarded to it. Others can see in the
/// space that this thread waits for it.
pub(crate) fn run(
    space: &Space,
    command: &[OsString],
    gifts: Gifts,
    signals: &Signals,
) -> Result<ExitStatus, Failure> {
    let shown = || format!("run {:?}", command.first().cloned().unwrap_or_default());
    let mut helper = this_program();
    helper.arg("exec-child").arg("--parent").arg(std::process::id().to_string()).arg("--");
    helper.args(command);
    for (name, value) in gifts.environment {
        match value {
            Some(value) => helper.env(name, value),
            None => helper.env_remove(name),
        };
    }
    if let Some(descriptor) = gifts.descriptor {
        let number = descriptor.as_raw_fd();
        helper
            .fd_mappings(vec![FdMapping { parent_fd: descriptor, child_fd: number }])
            .map_err(|error| Failure::new(Status::Other, format!("{}: {error}", shown())))?;
    }
    let mut child = helper.spawn().doing(shown)?;
    tracing::debug!(pid = child.id(), "started");
    match pidfd_of(child.id()) {
        Ok(pidfd) => signals.forward_to(pidfd),
        Err(error) => tracing::warn!(%error, "signals will not be forwarded to the command"),
    }
    let awaited = space.await_process(child.id());
    let status = child.wait().doing(shown);
    drop(awaited);
    signals.forward_to_nobody();
    status
}

/// The exit status that a shell would report.
pub(crate) fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// In the child: becomes the command. Returns only if that fails.
pub(crate) fn become_command(args: &ExecChildArgs) -> Failure {
    match die_with(args.parent) {
        Ok(true) => {}
        Ok(false) => return Failure { code: 125, message: None },
        Err(error) => {
            return Failure { code: 126, message: Some(format!("bind to the parent: {error}")) };
        }
    }
    let Some((program, rest)) = args.command.split_first() else {
        return Failure::new(Status::Usage, "no command was given");
    };
    let error = Command::new(program).args(rest).exec();
    let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
    Failure { code, message: Some(format!("run {}: {error}", program.display())) }
}

fn pidfd_of(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_by_signal_is_128_and_the_signal() {
        assert_eq!(code_of(ExitStatus::from_raw(0)), 0);
        assert_eq!(code_of(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(code_of(ExitStatus::from_raw(9)), 137);
    }
}
