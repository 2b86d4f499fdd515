//! Processes that format memory of a device, where others can open it at any time: each dies at each of its points.
//!
//! The memory is a file that stands for `/dev/mem`; the children open it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use commonhold::{FormatOptions, OpenError, Space};
use commonhold_layout::OpenError as Unopened;
use commonhold_window::Point;

use crate::{
    crash::{
        Outcome,
        actor::{Heard, Hit, ScriptedProcess},
        removers::refusal,
    },
    scripted_process::say,
};

/// Variable with the path of the file that stands for `/dev/mem`.
const DEVICE: &str = "COMMONHOLD_DEV_MEM";
/// A physical address at which no machine has memory.
const BASE: u64 = 1 << 46;
const SIZE: u64 = 1 << 20;

/// The points at which a formatter can die.
pub(crate) const POINTS: [Point; 3] =
    [Point::FormatClaimed, Point::FormatWiped, Point::FormatWritten];

/// Executes `format URL plain|force` in the child, and answers with the outcome.
pub(crate) fn format(url: &str, force: bool) {
    match Space::format(url, &FormatOptions { force, ..FormatOptions::default() }) {
        Ok(()) => say('=', "ok"),
        Err(OpenError::Formatting { .. }) => say('=', "unfinished"),
        Err(error) => say('=', &format!("failed: {error}")),
    }
}

/// Executes `try URL` in the child, and answers with what is there.
pub(crate) fn try_open(url: &str) {
    match Space::open(url).map(|space| space.check()) {
        Ok(Ok(())) => say('=', "whole"),
        Err(OpenError::NotASpace { why: Unopened::Unfinished, .. }) => say('=', "unfinished"),
        Ok(Err(error)) => say('=', &format!("failed: {error}")),
        Err(error) => say('=', &refusal(&error)),
    }
}

/// The file, removed when this is dropped.
struct Memory(PathBuf);

impl Memory {
    fn new(first: Point, second: Option<Point>) -> Outcome<Self> {
        let second = second.map_or("none", Point::name);
        let name = format!("commonhold-{}-{}-{second}", std::process::id(), first.name());
        let path = Path::new("/dev/shm").join(name);
        let file = fs::File::create(&path).map_err(|error| error.to_string())?;
        let memory = Self(path);
        file.set_len(BASE + SIZE).map_err(|error| error.to_string())?;
        Ok(memory)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// One formatter dies at `first`. If there is a `second`, the next formatter dies there. What they leave is refused
/// until another one formats by force.
pub(crate) fn play(program: &Path, first: Point, second: Option<Point>) -> Outcome {
    let memory = Memory::new(first, second)?;
    let url = format!("mem:{BASE:#x}+{SIZE:#x}");
    let start = |at: Option<Hit>| ScriptedProcess::start_with(program, at, &[(DEVICE, &memory.0)]);
    let dies = |point: Point, how: &str| {
        let mut actor = start(Some((point, 1)))?;
        match answer(&mut actor, &format!("format {url} {how}"))? {
            None => Ok(()),
            Some(said) => Err(format!("a formatter armed at {} says {said:?}", point.name())),
        }
    };
    dies(first, "plain")?;
    if let Some(second) = second {
        dies(second, "force")?;
    }
    let mut other = start(None)?;
    for (command, right) in [
        (format!("try {url}"), "unfinished"),
        (format!("format {url} plain"), "unfinished"),
        (format!("try {url}"), "unfinished"),
        (format!("format {url} force"), "ok"),
        (format!("try {url}"), "whole"),
    ] {
        let said = answer(&mut other, &command)?.unwrap_or_default();
        if said != right {
            return Err(format!("{command:?} was answered {said:?}, not {right:?}"));
        }
    }
    other.dismiss()
}

/// Sends a command and waits for the answer; `None` if the child died.
fn answer(actor: &mut ScriptedProcess, command: &str) -> Outcome<Option<String>> {
    actor.tell(command);
    loop {
        match actor.hear()? {
            Heard::Point(_) => {}
            Heard::Answer(said) => return Ok(Some(said)),
            Heard::Death => return Ok(None),
        }
    }
}
