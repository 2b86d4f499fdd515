//! A peer that is *stopped* at a point while it holds the directory mutex, and what other peers can do meanwhile.
//!
//! # What must hold
//! 1. Every operation of another peer ends within its deadline: it succeeds, or its error names the stopped peer.
//!    Nothing is taken over from the stopped peer.
//! 2. When the stopped peer is continued, it finishes its operation, and everything is whole.
//!
//! # What it does not do
//! It measures no time: an operation hangs if it has not ended after [`FOR_EVER`].

use std::{
    fmt::Debug,
    path::{Path, PathBuf},
    sync::mpsc::channel,
    thread,
    time::Duration,
};

use commonhold::{Access, Destroy, FormatOptions, RegionError, Removal, Space, State};
use commonhold_window::Point;

use crate::crash::{
    Outcome,
    actor::{Heard, ScriptedProcess},
    arm,
};

/// Longer than any deadline in this module.
const FOR_EVER: Duration = Duration::from_secs(10);
const BRIEFLY: Duration = Duration::from_millis(20);

/// The commands of the peer that is stopped, and the points at which it is stopped.
const STOPS: &[(&str, &[Point])] = &[
    (
        "create made 8192",
        &[
            Point::CreateChosen,
            Point::CreateWritten,
            Point::LinkIntent,
            Point::LinkOdd,
            Point::CreateState,
            Point::LinkHalf,
            Point::LinkDone,
            Point::LinkEven,
        ],
    ),
    ("destroy gone wait", &[Point::DestroyActor, Point::DestroyState]),
    (
        "destroy gone wait",
        &[
            Point::LinkIntent,
            Point::LinkOdd,
            Point::LinkHalf,
            Point::DestroyUnlinked,
            Point::DestroyFree,
            Point::LinkDone,
            Point::LinkEven,
        ],
    ),
    (
        "resize sized 100",
        &[
            Point::ResizeMarked,
            Point::ResizeSizes,
            Point::ResizeIntent,
            Point::ResizeTrial,
            Point::ResizeGranted,
        ],
    ),
];

/// Stops a peer at each point, one after the other. Returns what went wrong.
#[must_use]
pub fn beside_the_stopped(program: &Path) -> Vec<String> {
    let all =
        STOPS.iter().flat_map(|(command, points)| points.iter().map(move |at| (command, *at)));
    all.filter_map(|(command, point)| {
        let why = play(program, command, point).err()?;
        Some(format!("{command:?} stopped at {}: {why}", point.name()))
    })
    .collect()
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The URL of a space, which is removed when this is dropped.
struct Url(String);

impl Drop for Url {
    fn drop(&mut self) {
        let _ = Space::remove(&self.0, Removal::Forced);
    }
}

fn play(program: &Path, command: &str, point: Point) -> Outcome {
    let url = Url(format!("shm:stop-{}-{}", std::process::id(), point.name()));
    let options = FormatOptions { capacity: Some(6 << 20), ..FormatOptions::default() };
    Space::format(&url.0, &options).map_err(text)?;
    let space = Space::open(&url.0).map_err(text)?;
    for (name, size) in [
        ("kept", 4096),
        ("gone", 4096),
        ("sized", 8192),
        ("spare", 4096),
        ("later", 0),
        ("used", 4096),
    ] {
        space.create(name, size).map_err(text)?;
    }
    let mut user = ScriptedProcess::start(program, None)?;
    ask(&mut user, &format!("open {}", url.0))?;
    ask(&mut user, "map used")?;
    let at = PathBuf::from(format!("{}:1", point.name()));
    let mut stopped = ScriptedProcess::start_with(program, None, &[(arm::STOPPED, &at)])?;
    ask(&mut stopped, &format!("open {}", url.0))?;
    stopped.tell(command);
    while stopped.hear()? != Heard::Point(point) {}
    // It prints the point just before it stops itself.
    stopped.until_stopped()?;

    let pid = stopped.pid().as_raw_nonzero().get().unsigned_abs();
    let beside = Beside { space: space.clone(), url: url.0.clone(), pid, command };
    let seen = beside.everything();

    stopped.go_on()?;
    let answer = hear(&mut stopped)?;
    seen?;
    if answer != "ok" {
        return Err(format!("it went on, and was told {answer:?}"));
    }
    after(&space)?;
    for mut actor in [stopped, user] {
        if actor.in_flight.is_none() {
            let _ = ask(&mut actor, "unmap used");
        }
        ask(&mut actor, "close")?;
        actor.dismiss()?;
    }
    Ok(())
}

fn ask(actor: &mut ScriptedProcess, command: &str) -> Outcome<String> {
    actor.tell(command);
    hear(actor)
}

fn hear(actor: &mut ScriptedProcess) -> Outcome<String> {
    actor.answer()?.ok_or_else(|| "it died".into())
}

/// A peer that works while another one is stopped.
struct Beside<'a> {
    space: Space,
    url: String,
    pid: u32,
    command: &'a str,
}

impl Beside<'_> {
    /// Runs an operation that must end in time. Returns its result.
    fn ends<T: Send + 'static>(
        &self,
        what: &str,
        operation: impl FnOnce(&Space) -> T + Send + 'static,
    ) -> Outcome<T> {
        let (sender, answer) = channel();
        let space = self.space.within(BRIEFLY);
        thread::spawn(move || drop(sender.send(operation(&space))));
        answer.recv_timeout(FOR_EVER).map_err(|_| format!("{what} hangs"))
    }

    fn succeeds<T: Send + 'static>(
        &self,
        what: &str,
        operation: impl FnOnce(&Space) -> Result<T, RegionError> + Send + 'static,
    ) -> Outcome<T> {
        self.ends(what, operation)?.map_err(|error| format!("{what}: {error}"))
    }

    /// Runs an operation that must fail with an error that names the stopped peer.
    fn is_refused<T: Debug + Send + 'static>(
        &self,
        what: &str,
        operation: impl FnOnce(&Space) -> Result<T, RegionError> + Send + 'static,
    ) -> Outcome {
        match self.ends(what, operation)? {
            Err(RegionError::Busy(holder))
                if holder.pid == self.pid && holder.stopped == Some(true) =>
            {
                Ok(())
            }
            other => Err(format!("{what}: {other:?}")),
        }
    }

    fn everything(&self) -> Outcome {
        self.looks()?;
        self.is_refused("create", |space| space.create("new", 4096))?;
        self.is_refused("map or create", |space| space.map_or_create("new", 0))?;
        self.is_refused("resize", |space| space.resize("kept", 100))?;
        self.is_refused("check", Space::check)?;
        self.succeeds("reap", Space::reap)?;
        self.is_refused("destroy what is mapped", |space| {
            space.destroy("used", Destroy::Within(Duration::ZERO))
        })?;
        self.succeeds("destroy", |space| space.destroy("spare", Destroy::Within(Duration::ZERO)))?;
        self.succeeds("destroy deferred", |space| space.destroy("later", Destroy::Deferred))?;
        let url = self.url.clone();
        self.ends("open", move |_| Space::open(&url).map(drop))?.map_err(text)?;
        let twice = self.ends("destroy again", |space| {
            space.destroy("spare", Destroy::Within(Duration::ZERO)).err().map(|error| error.kind())
        })?;
        if twice != Some(commonhold::ErrorKind::NotFound) {
            return Err(format!("destroyed twice: {twice:?}"));
        }
        self.looks()
    }

    /// Runs the operations that need no mutex.
    fn looks(&self) -> Outcome {
        self.succeeds("list", Space::regions)?;
        self.succeeds("locks", Space::locks)?;
        self.succeeds("peers", Space::peers)?;
        self.succeeds("info", Space::info)?;
        let info = self.succeeds("stat", |space| space.stat("kept"))?;
        if info.state != State::Active || info.size != 4096 {
            return Err(format!("stat: {info:?}"));
        }
        self.succeeds("lock", |space| {
            let mapping = space.map("kept", Access::ReadWrite)?;
            drop(mapping.try_lock());
            mapping.unmap()
        })?;
        let absent = self.ends("map what is not there", |space| {
            space.map("absent", Access::ReadWrite).err().map(|error| error.kind())
        })?;
        if absent != Some(commonhold::ErrorKind::NotFound) {
            return Err(format!("map of an absent name beside {:?}: {absent:?}", self.command));
        }
        // The region that the stopped peer works on may be found in any state, or not, but is never waited for.
        self.ends("stat of the same", |space| drop(space.stat("made")))?;
        Ok(())
    }
}

/// After the stopped peer was continued: everything is whole, and the next operation completes what was left.
fn after(space: &Space) -> Outcome {
    space.check().map_err(text)?;
    for name in ["new", "spare", "later"] {
        space.create(name, 4096).map_err(|error| format!("create {name} afterwards: {error}"))?;
        space.destroy(name, Destroy::Wait).map_err(text)?;
    }
    space.resize("kept", 100).map_err(text)?;
    space.check().map_err(text)
}
