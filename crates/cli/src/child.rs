//! Runs a command under a lock or a mapping that it must not outlive.
//!
//! Invariants: 1. the command gets SIGKILL when this process dies, however it dies. The child first runs this
//! program again with the hidden command `exec-child`. It asks the kernel for the signal (`console::child`; the
//! request survives `execve` of ordinary programs), checks that its parent is still there, and only then becomes
//! the command. 2. The child is started from the main thread, as `console::child` requires.

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

/// What a child gets in addition to its arguments.
#[derive(Debug, Default)]
pub(crate) struct Gifts {
    /// Environment variables to set, or (without a value) to remove.
    pub(crate) environment: Vec<(&'static str, Option<String>)>,
    /// A descriptor that the child inherits under the same number.
    pub(crate) descriptor: Option<OwnedFd>,
}

/// Runs a command until it ends. Signals that ask this process to end are forwarded to the command. While this
/// thread waits for the command, the space says so, and `locks --graph` shows it.
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

/// Becomes the command. Called in the child; returns only if that fails.
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
    fn a_command_killed_by_a_signal_has_status_128_plus_its_number() {
        assert_eq!(code_of(ExitStatus::from_raw(0)), 0);
        assert_eq!(code_of(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(code_of(ExitStatus::from_raw(9)), 137);
    }
}
