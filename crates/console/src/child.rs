//! Children that die with this process.
//!
//! Invariants: 1. a child that has called [`die_with`] gets SIGKILL when its parent dies, however the parent dies
//! (`PR_SET_PDEATHSIG`). 2. The child must be started from the main thread: the kernel sends the signal when the
//! *thread* that forked ends.
//!
//! Does not cover: processes that the child itself starts, and set-user-ID programs, for which the kernel clears
//! the request.

use std::{io, process::Command};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// A command that runs this same program, even if its file was replaced or deleted.
#[must_use]
pub fn this_program() -> Command {
    Command::new("/proc/self/exe")
}

/// Makes this process die with its parent from now on. Called in the child; false if the parent is already gone.
///
/// # Errors
/// What `prctl` says.
pub fn die_with(parent: i32) -> io::Result<bool> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(getppid().is_some_and(|now| now.as_raw_nonzero().get() == parent))
}
