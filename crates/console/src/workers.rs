//! The worker processes of a command that starts several, and the space they work in.
//!
//! Invariants: 1. no worker outlives this process, however this process dies. 2. Nothing waits for ever: every wait
//! has a deadline, and a watchdog ends the process if a call into the library does not return. 3. A space that was
//! made for the run is removed at its end.

use std::{
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use commonhold::{FormatOptions, Owners, Removal, Space};

use crate::{
    child,
    failure::{Doing, Failure},
    output,
    session::Session,
};

/// How long a worker may take to stop once it is told to.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The arguments of a worker.
#[derive(Debug, Args)]
pub struct WorkerArgs {
    /// The process whose death ends this one.
    #[arg(long)]
    pub parent: i32,
    /// Its index in the table that the workers share.
    #[arg(long, default_value_t = 0)]
    pub cell: u64,
    /// Seed of its random choices.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// How many workers there are.
    #[arg(long, default_value_t = 1)]
    pub peers: u64,
    /// Path of its log, if it writes one.
    #[arg(long, default_value = "-")]
    pub log: PathBuf,
}

/// How to start a worker: the hidden command of this program, and its arguments.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// The hidden command.
    pub command: &'static str,
    /// URL of the space.
    pub url: &'a str,
    /// Whose spaces may be used.
    pub owners: Owners,
    /// See [`WorkerArgs::cell`].
    pub cell: u64,
    /// See [`WorkerArgs::seed`].
    pub seed: u64,
    /// See [`WorkerArgs::peers`].
    pub peers: u64,
    /// See [`WorkerArgs::log`].
    pub log: &'a Path,
}

/// Starts a worker. To be called from the main thread: the worker is killed when the calling thread ends.
///
/// # Errors
/// The process cannot be made.
pub fn start(order: Order<'_>) -> Result<Child, Failure> {
    child::this_program()
        .args([order.command, "--space", order.url])
        .args((order.owners == Owners::Any).then_some("--any-owner"))
        .args(["--parent", &std::process::id().to_string()])
        .args(["--cell", &order.cell.to_string()])
        .args(["--seed", &order.seed.to_string()])
        .args(["--peers", &order.peers.to_string()])
        .arg("--log")
        .arg(order.log)
        // Ctrl-C on a terminal must reach the parent only: it stops its workers itself.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .doing(|| format!("start a {}", order.command))
}

/// Binds this worker's life to its parent's, and attaches to the space.
///
/// # Errors
/// The parent is gone, or the space cannot be opened.
pub fn attach(session: &Session, args: &WorkerArgs, name: &str) -> Result<Space, Failure> {
    if !child::die_with(args.parent).doing(|| "bind to the parent".to_owned())? {
        return Err(Failure { code: 1, message: None });
    }
    let space = session.open()?;
    space.set_name(&format!("{name}-{}", args.cell)).doing(|| "name this peer".to_owned())?;
    Ok(space)
}

/// Kills a child with SIGKILL, and waits until it has ended. Returns whether it was alive before.
///
/// # Errors
/// As for `kill` and `waitpid`.
pub fn kill(child: &mut Child) -> io::Result<bool> {
    if child.try_wait()?.is_some() {
        return Ok(false);
    }
    child.kill()?;
    child.wait()?;
    Ok(true)
}

/// How the workers ended after they were told to stop.
#[derive(Debug, Default)]
pub struct Joined {
    /// How many did not stop in time, and were killed.
    pub stuck: u64,
    /// Process ids of those that stopped with a failure.
    pub failed: Vec<u32>,
}

/// Waits for workers that were told to stop, and kills those that do not stop in time.
#[must_use]
pub fn join(children: &mut [Child]) -> Joined {
    let deadline = Instant::now() + PATIENCE;
    let mut joined = Joined::default();
    for child in children {
        loop {
            match child.try_wait() {
                Ok(Some(status)) => {
                    if !status.success() {
                        joined.failed.push(child.id());
                    }
                    break;
                }
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(2)),
                _ => {
                    joined.stuck += 1;
                    if let Err(error) = kill(child) {
                        tracing::warn!(pid = child.id(), %error, "a worker could not be killed");
                    }
                    break;
                }
            }
        }
    }
    joined
}

/// Starts a thread that ends the process with a message after `limit`. The workers die with the process.
pub fn watchdog(session: &Session, what: &'static str, limit: Duration) {
    let program = session.program;
    let spawned = thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
        thread::sleep(limit);
        let limit = limit.as_secs();
        output::complain(&format!("{program}: {what} did not end within {limit} s: a call hangs"));
        std::process::exit(1);
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "the watchdog thread could not be started");
    }
}

/// The space of a run: one made for it, or the one given by `--space`.
#[derive(Debug)]
pub struct TestSpace {
    /// Its URL.
    pub url: String,
    /// Whose spaces may be used.
    pub owners: Owners,
    own: bool,
}

impl TestSpace {
    /// Formats and opens `shm:WHAT-PID`, or opens the space given by `--space`.
    ///
    /// # Errors
    /// The space cannot be formatted or opened.
    pub fn prepare(
        session: &Session,
        what: &str,
        options: &FormatOptions,
    ) -> Result<(Self, Space), Failure> {
        let owners = session.owners;
        if session.chosen {
            let space = session.open_or_format()?;
            return Ok((Self { url: session.url.clone(), owners, own: false }, space));
        }
        let url = format!("shm:{what}-{}", std::process::id());
        let options = FormatOptions { force: true, ..options.clone() };
        Space::format(&url, &options).doing(|| format!("format {url}"))?;
        let this = Self { url, owners, own: true };
        let space = Space::open(&this.url).doing(|| format!("open {}", this.url))?;
        Ok((this, space))
    }

    /// Detaches, and removes a space that was made for the run.
    ///
    /// # Errors
    /// Another peer is still attached, or the space cannot be removed.
    pub fn remove(mut self, space: Space) -> Result<(), Failure> {
        detach(space);
        if !std::mem::take(&mut self.own) {
            return Ok(());
        }
        let removed = Space::remove(&self.url, Removal::IfUnused);
        if removed.is_err() {
            self.own = true;
        }
        removed.doing(|| format!("remove {}", self.url))
    }
}

/// Drops the last clone of the space, which detaches this process.
fn detach(_space: Space) {}

impl Drop for TestSpace {
    fn drop(&mut self) {
        if self.own
            && let Err(error) = Space::remove(&self.url, Removal::Forced)
        {
            tracing::warn!(%error, url = self.url, "the space of this run was not removed");
        }
    }
}
