//! Processes that remove or replace a space, and processes that open it meanwhile: each kind dies, and each is
//! stopped, at each of its points.
//!
//! What must hold: no process attaches to a space whose name is gone, and no name is taken from a space with live
//! peers. A dead process blocks no other, and an error names a stopped one.

use std::{
    fs,
    path::{Path, PathBuf},
};

use commonhold::{FormatOptions, OpenError, Removal, Space};
use commonhold_window::Point;

use crate::{
    crash::{
        Outcome,
        actor::{Heard, ScriptedProcess},
        arm,
    },
    scripted_process::say,
};

/// The points of a remover, and whether the name still means the old space at each.
pub(crate) const POINTS: [(Point, bool); 3] =
    [(Point::GateSeized, true), (Point::NameChecked, true), (Point::NameTaken, false)];

/// The points of an opener before others can see that it is alive.
const COMING: [Point; 3] = [Point::GateEntered, Point::AttachEvidence, Point::AttachRecordWritten];

/// The ways of taking a name away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Remove,
    Replace,
}

impl How {
    pub(crate) const ALL: [Self; 2] = [Self::Remove, Self::Replace];

    const fn verb(self) -> &'static str {
        match self {
            Self::Remove => "remove",
            Self::Replace => "renew",
        }
    }

    /// What another process finds there afterwards.
    const fn leaves(self) -> &'static str {
        match self {
            Self::Remove => "gone",
            Self::Replace => "whole",
        }
    }
}

/// Executes `remove URL` in the child, and answers with the outcome.
pub(crate) fn remove(url: &str) {
    said(&Space::remove(url, Removal::IfUnused));
}

/// Executes `renew URL` in the child: the same, replacing the space by a new one.
pub(crate) fn renew(url: &str) {
    said(&Space::format(url, &FormatOptions { force: true, ..small() }));
}

fn small() -> FormatOptions {
    FormatOptions { capacity: Some(1 << 20), regions: Some(16), ..FormatOptions::default() }
}

fn said(result: &Result<(), OpenError>) {
    match result {
        Ok(()) => say('=', "ok"),
        Err(error) => say('=', &refusal(error)),
    }
}

/// Why a space could not be opened, removed or replaced, in one word.
pub(crate) fn refusal(error: &OpenError) -> String {
    match error {
        OpenError::NotFound { .. } => "gone".to_owned(),
        OpenError::InUse { .. } => "used".to_owned(),
        OpenError::TimedOut { by: Some(by), .. } if by.stopped => "barred".to_owned(),
        error => format!("failed: {error}"),
    }
}

/// A space, removed when this is dropped.
struct Place {
    path: PathBuf,
    url: String,
}

impl Place {
    fn new(name: &str, how: How) -> Outcome<Self> {
        let file = format!("commonhold-{}-{name}-{how:?}", std::process::id());
        let path = Path::new("/dev/shm").join(file);
        let url = format!("file:{}", path.display());
        Space::format(&url, &small()).map_err(|error| error.to_string())?;
        Ok(Self { path, url })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A remover dies.
pub(crate) fn dies(program: &Path, (point, named): (Point, bool), how: How) -> Outcome {
    let place = Place::new(point.name(), how)?;
    let mut actor = ScriptedProcess::start(program, Some((point, 1)))?;
    if let Some(said) = answer(&mut actor, &format!("{} {}", how.verb(), place.url))? {
        return Err(format!("it says {said:?}, and should be dead"));
    }
    let mut other = ScriptedProcess::start(program, None)?;
    let found = if named { "whole" } else { how.leaves() };
    expect(&mut other, &format!("try {}", place.url), found)?;
    let again = if found == "gone" { "gone" } else { "ok" };
    expect(&mut other, &format!("remove {}", place.url), again)?;
    other.dismiss()
}

/// A remover is stopped, while another process opens the space.
pub(crate) fn is_stopped(program: &Path, (point, named): (Point, bool), how: How) -> Outcome {
    let place = Place::new(point.name(), how)?;
    let mut remover = stopped(program, point, &format!("{} {}", how.verb(), place.url))?;
    let mut other = ScriptedProcess::start(program, None)?;
    let found = if named { "barred" } else { how.leaves() };
    expect(&mut other, &format!("try {}", place.url), found)?;
    remover.go_on()?;
    hears(&mut remover, "ok")?;
    expect(&mut other, &format!("try {}", place.url), how.leaves())?;
    remover.dismiss()?;
    other.dismiss()
}

/// An opener is stopped, while others open the space, and another tries to remove it.
pub(crate) fn comes(program: &Path, how: How) -> Outcome {
    for point in COMING {
        let place = Place::new(point.name(), how)?;
        let mut opener = stopped(program, point, &format!("open {}", place.url))?;
        let mut other = ScriptedProcess::start(program, None)?;
        let take = format!("{} {}", how.verb(), place.url);
        let in_words = |why| format!("opener at {}: {why}", point.name());
        expect(&mut other, &take, "barred").map_err(in_words)?;
        expect(&mut other, &format!("try {}", place.url), "whole").map_err(in_words)?;
        opener.go_on()?;
        hears(&mut opener, "ok")?;
        expect(&mut other, &take, "used").map_err(in_words)?;
        expect(&mut opener, "close", "ok")?;
        expect(&mut other, &take, "ok").map_err(in_words)?;
        opener.dismiss()?;
        other.dismiss()?;
    }
    Ok(())
}

/// Starts a child that executes this command and stops itself at the point.
fn stopped(program: &Path, point: Point, command: &str) -> Outcome<ScriptedProcess> {
    let at = PathBuf::from(format!("{}:1", point.name()));
    let mut actor = ScriptedProcess::start_with(program, None, &[(arm::STOPPED, &at)])?;
    actor.tell(command);
    while actor.hear()? != Heard::Point(point) {}
    actor.until_stopped()?;
    Ok(actor)
}

fn expect(actor: &mut ScriptedProcess, command: &str, right: &str) -> Outcome {
    actor.tell(command);
    hears(actor, right).map_err(|why| format!("{command:?}: {why}"))
}

fn hears(actor: &mut ScriptedProcess, right: &str) -> Outcome {
    match actor.answer()? {
        Some(said) if said == right => Ok(()),
        said => Err(format!("the answer is {said:?}, not {right:?}")),
    }
}

/// Sends a command and waits for the answer; `None` if the child died.
fn answer(actor: &mut ScriptedProcess, command: &str) -> Outcome<Option<String>> {
    actor.tell(command);
    actor.answer()
}
