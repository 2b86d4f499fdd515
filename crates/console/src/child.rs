//! Children that die with this process.
//!
//! Invariants: 1. a child that has called [`die_with`] gets SIGKILL when its parent dies, however that dies
//! (`PR_SET_PDEATHSIG`). 2. It must have been started from the main thread: the kernel sends the signal when the
//! *thread* that forked is gone.
//!
//! Does not cover: what the child itself starts, and set-user-ID programs, for which the kernel clears the request.

use std::{io, process::Command};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// A command that runs this very program, whatever became of its file.
#[must_use]
pub fn this_program() -> Command {
    Command::new("/proc/self/exe")
}

/// In the child: dies with its parent from now on; false if the parent is gone already.
///
/// # Errors
/// What `prctl` says.
pub fn die_with(parent: i32) -> io::Result<bool> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(getppid().is_some_and(|now| now.as_raw_nonzero().get() == parent))
}
