//! The processes of a command that runs several, and the space they work in.
//!
//! Invariants: 1. no worker outlives this process, however it dies. 2. Nothing waits for ever: every
//! wait has a deadline, and a watchdog ends the process if a call into the library does not come
//! back. 3. A space that was made for the run is removed with it.

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
    /// Which cell of the shared table is its own.
    #[arg(long, default_value_t = 0)]
    pub cell: u64,
    /// Chooses what it does.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// How many workers there are.
    #[arg(long, default_value_t = 1)]
    pub peers: u64,
    /// Where it keeps its log, if it keeps one.
    #[arg(long, default_value = "-")]
    pub log: PathBuf,
}

/// What a worker is told at its start: the command that makes one of this program, and its arguments.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// The hidden command.
    pub command: &'static str,
    /// The space.
    pub url: &'a str,
    /// Whose spaces are used.
    pub owners: Owners,
    /// As [`WorkerArgs::cell`].
    pub cell: u64,
    /// As [`WorkerArgs::seed`].
    pub seed: u64,
    /// As [`WorkerArgs::peers`].
    pub peers: u64,
    /// As [`WorkerArgs::log`].
    pub log: &'a Path,
}

/// Starts a worker: from the main thread, whose end would kill it.
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
        // A terminal's Ctrl-C is for the parent, which stops its workers in order.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .doing(|| format!("start a {}", order.command))
}

/// In a worker: binds it to its parent's life, and attaches.
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

/// Kills with SIGKILL and waits for the end. Returns whether it was alive until then.
///
/// # Errors
/// What `kill` or `waitpid` says.
pub fn kill(child: &mut Child) -> io::Result<bool> {
    if child.try_wait()?.is_some() {
        return Ok(false);
    }
    child.kill()?;
    child.wait()?;
    Ok(true)
}

/// How workers ended that were told to stop.
#[derive(Debug, Default)]
pub struct Joined {
    /// Did not stop in time, and were killed.
    pub stuck: u64,
    /// Stopped with a failure; their process ids.
    pub failed: Vec<u32>,
}

/// Waits for workers that were told to stop; kills those that do not.
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

/// Ends the process with a message if it is still there after `limit`. Workers die with it.
pub fn watchdog(session: &Session, what: &'static str, limit: Duration) {
    let program = session.program;
    let spawned = thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
        thread::sleep(limit);
        let limit = limit.as_secs();
        output::complain(&format!("{program}: {what} did not end within {limit} s: a call hangs"));
        std::process::exit(1);
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "there is no watchdog");
    }
}

/// The space of a run: its own, or the one that was chosen.
#[derive(Debug)]
pub struct TestSpace {
    /// Its URL.
    pub url: String,
    /// Whose spaces are used.
    pub owners: Owners,
    own: bool,
}

impl TestSpace {
    /// `shm:WHAT-PID`, unless `--space` was given.
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
        let ground = Self { url, owners, own: true };
        let space = Space::open(&ground.url).doing(|| format!("open {}", ground.url))?;
        Ok((ground, space))
    }

    /// Detaches, and removes an own space.
    ///
    /// # Errors
    /// Somebody is still attached, or it cannot be removed.
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

/// The last clone detaches when it goes, here.
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
