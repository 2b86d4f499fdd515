//! A scripted process: it executes the commands on its standard input through the facade, and answers each line. It
//! lets a test use a space from another process or another kernel.
//!
//! What it holds is held by a frame of the call stack: `map r` calls a loop that reads lines until `unmap r`, so that
//! guards can borrow mappings, and mappings a space. So a script must give things back in reverse order. A line that
//! cannot be executed, because something it needs was refused before, is answered with `skip`.

use std::{
    fs::File,
    io::{BufRead as _, Write as _, stdin},
    os::unix::fs::FileExt as _,
    process::ExitCode,
    time::Duration,
};

use commonhold::{
    Access, CreateOptions, Destroy, LockError, LockGuard, LockResult, Mapping, RawMutexGuard,
    ReadGuard, Recovered, RegionError, Repairable, Space,
};

/// The longest wait for an event.
const EVENT_WAIT: Duration = Duration::from_millis(300);

/// Additional commands of a scripted process. Gets the line, and the space and the mapping of the named region if it
/// has them. Returns whether the line was such a command.
pub(crate) type Verbs = fn(&Line, Option<&Space>, Option<&Mapping>) -> bool;

/// What this process holds, from the innermost outwards.
struct Frame<'a> {
    verbs: Verbs,
    outer: Option<&'a Self>,
    space: Option<&'a Space>,
    mapping: Option<&'a Mapping>,
}

/// A line of the script.
pub(crate) struct Line(Vec<String>);

impl Line {
    /// Reads the next line; `None` at the end of the script.
    pub(crate) fn read() -> Option<Self> {
        let mut text = String::new();
        let read = stdin().lock().read_line(&mut text).ok()?;
        (read > 0).then(|| Self(text.split_whitespace().map(str::to_owned).collect()))
    }

    pub(crate) fn word(&self, index: usize) -> &str {
        self.0.get(index).map_or("", String::as_str)
    }

    pub(crate) fn number(&self, index: usize) -> u64 {
        self.word(index).parse().unwrap_or(0)
    }
}

/// Sends the driver a line: an answer (`=`), or something that comes before the answer. If the driver is gone, this
/// process ends.
pub(crate) fn say(kind: char, text: &str) {
    let mut out = std::io::stdout().lock();
    let said = out.write_all(format!("{kind}{text}\n").as_bytes()).and_then(|()| out.flush());
    if said.is_err() {
        std::process::exit(4);
    }
}

/// The main function of a scripted process.
#[must_use]
pub(crate) fn act(verbs: Verbs) -> ExitCode {
    let root = Frame { verbs, outer: None, space: None, mapping: None };
    while let Some(line) = root.serve(&[]) {
        say('=', "skip");
        drop(line);
    }
    ExitCode::SUCCESS
}

pub(crate) fn refused(error: impl Into<LockError>) -> String {
    let error = match error.into() {
        LockError::OwnerDied(_) => return "ownerdied".into(),
        LockError::ParticipantDied(_) => return "participantdied".into(),
        LockError::TimedOut(_) => return "timedout".into(),
        LockError::Deadlock(_) => return "deadlock".into(),
        LockError::Unrecoverable(_) => return "unrecoverable".into(),
        LockError::Fenced => return "fenced".into(),
        LockError::Region(error) => *error,
        error => return format!("failed: {error}"),
    };
    match error {
        RegionError::Exists { .. } => "exists".into(),
        RegionError::NotFound { .. } => "notfound".into(),
        RegionError::Mapped { .. } => "mapped".into(),
        RegionError::TimedOut { .. } => "timedout".into(),
        RegionError::NoSpace { .. } => "nospace".into(),
        RegionError::NoMemory { .. } | RegionError::NoRoom(_) => "nomemory".into(),
        RegionError::BeyondReserve { .. } => "beyond".into(),
        RegionError::NothingSpent => "nothingspent".into(),
        error => format!("failed: {error}"),
    }
}

pub(crate) fn answer<T>(result: Result<T, impl Into<LockError>>) {
    match result {
        Ok(_) => say('=', "ok"),
        Err(error) => say('=', &refused(error)),
    }
}

/// Takes a lock as most users do, who pass errors on; if its owner died, takes it again in its inconsistent state.
pub(crate) fn owner_died_if<G>(
    asked: LockResult<Option<G>>,
    recover: impl FnOnce() -> LockResult<Recovered<G>>,
) -> Result<Recovered<G>, String> {
    match asked {
        Ok(Some(guard)) => Ok(Recovered::Consistent(guard)),
        Ok(None) => Err("timedout".into()),
        Err(LockError::OwnerDied(_)) => recover().map_err(refused),
        Err(error) => Err(refused(error)),
    }
}

/// Releases a guard that may be inconsistent; `unlock` and `leave` release the guard in either way.
pub(crate) fn give_back<G: Repairable>(
    guard: Recovered<G>,
    how: &str,
    unlock: fn(G) -> LockResult<()>,
    leave: fn(G) -> LockResult<()>,
) -> LockResult<()> {
    match (guard, how) {
        (Recovered::Consistent(guard), "leave") => leave(guard),
        (Recovered::Consistent(guard), _) => unlock(guard),
        (Recovered::Inconsistent(guard), "unlock") => unlock(guard.mark_consistent()?),
        (Recovered::Inconsistent(guard), "giveup") => guard.give_up(),
        // It was not repaired: it stays inconsistent.
        (Recovered::Inconsistent(guard), _) => {
            drop(guard);
            Ok(())
        }
    }
}

/// Every kind of guard.
enum Guard<'a> {
    Region(Recovered<LockGuard<'a>>),
    Read(ReadGuard<'a>),
    Mutex(Recovered<RawMutexGuard<'a>>),
}

impl Guard<'_> {
    /// The answer that reports it.
    const fn told(&self) -> &'static str {
        match self {
            Self::Region(Recovered::Inconsistent(_)) | Self::Mutex(Recovered::Inconsistent(_)) => {
                "ownerdied"
            }
            Self::Region(_) | Self::Mutex(_) | Self::Read(_) => "ok",
        }
    }

    fn repair(self) -> LockResult<Self> {
        Ok(match self {
            Self::Region(Recovered::Inconsistent(guard)) => {
                Self::Region(Recovered::Consistent(guard.mark_consistent()?))
            }
            Self::Mutex(Recovered::Inconsistent(guard)) => {
                Self::Mutex(Recovered::Consistent(guard.mark_consistent()?))
            }
            whole => whole,
        })
    }

    fn give_back(self, how: &str) -> LockResult<()> {
        match self {
            Self::Region(guard) => {
                give_back(guard, how, LockGuard::unlock, LockGuard::leave_inconsistent)
            }
            Self::Mutex(guard) => {
                give_back(guard, how, RawMutexGuard::unlock, RawMutexGuard::leave_inconsistent)
            }
            Self::Read(guard) => guard.unlock(),
        }
    }
}

impl Frame<'_> {
    /// Executes lines until one of `closers` comes for what the innermost frame holds.
    fn serve(&self, closers: &[&str]) -> Option<Line> {
        loop {
            let line = Line::read()?;
            if closers.contains(&line.word(0)) {
                return Some(line);
            }
            self.obey(&line);
        }
    }

    /// Executes lines until `name` is given back. A script must not end before that.
    fn hold(&self, closers: &[&str], name: &str) -> Line {
        loop {
            let Some(line) = self.serve(closers) else { std::process::exit(3) };
            if line.word(1) == name {
                return line;
            }
            say('=', "skip");
        }
    }

    fn mapping_of(&self, name: &str) -> Option<&Mapping> {
        match self.mapping {
            Some(mapping) if mapping.name() == name => Some(mapping),
            _ => self.outer.and_then(|outer| outer.mapping_of(name)),
        }
    }

    fn obey(&self, line: &Line) {
        let name = line.word(1);
        let mapping = self.mapping_of(name);
        if (self.verbs)(line, self.space, mapping) {
            return;
        }
        match (line.word(0), self.space, mapping) {
            ("open", None, _) => self.open(name),
            ("lock" | "rlock" | "mlock", _, Some(mapping)) => self.lock(mapping, line),
            ("fill", _, Some(mapping)) => {
                let bytes = vec![pattern(name); usize::try_from(mapping.size()).unwrap_or(0)];
                answer(mapping.write_at(0, &bytes));
            }
            ("look", _, Some(mapping)) => say('=', &look(mapping)),
            ("reset", _, Some(mapping)) => answer(mapping.reset_lock()),
            ("signal" | "broadcast" | "wait", _, Some(mapping)) => event(mapping, line),
            (_, Some(space), _) => self.obey_in(space, line),
            _ => say('=', "skip"),
        }
    }

    fn obey_in(&self, space: &Space, line: &Line) {
        let name = line.word(1);
        match line.word(0) {
            "create" => {
                let options = CreateOptions {
                    size: line.number(2),
                    reserve: Some(line.number(3)).filter(|reserve| *reserve > 0),
                    lazy: line.word(4) == "lazy",
                    force: line.word(4) == "forced",
                };
                answer(space.create_with(name, &options));
            }
            "map" => self.map(space, name),
            "destroy" => {
                let how = match line.word(2) {
                    "wait" => Destroy::Wait,
                    "deferred" => Destroy::Deferred,
                    _ => Destroy::Within(Duration::from_millis(line.number(2))),
                };
                answer(space.destroy(name, how));
            }
            "resize" => answer(space.resize(name, line.number(2))),
            "region" => say('=', &region(space, name)),
            "name" => answer(space.set_name(name)),
            "litter" => answer(litter(space)),
            "reap" => answer(space.reap()),
            "check" => answer(space.check()),
            _ => say('=', "skip"),
        }
    }

    fn open(&self, url: &str) {
        let space = match Space::open(url) {
            Ok(space) => space,
            Err(error) => return say('=', &format!("failed: {error}")),
        };
        say('=', "ok");
        let inner =
            Frame { outer: Some(self), verbs: self.verbs, space: Some(&space), mapping: None };
        inner.hold(&["close"], "");
        drop(space);
        say('=', "ok");
    }

    fn map(&self, space: &Space, name: &str) {
        let mapping = match space.map(name, Access::ReadWrite) {
            Ok(mapping) => mapping,
            Err(error) => return say('=', &refused(error)),
        };
        say('=', &format!("ok {}", mapping.size()));
        let inner = Frame {
            outer: Some(self),
            verbs: self.verbs,
            space: self.space,
            mapping: Some(&mapping),
        };
        inner.hold(&["unmap"], name);
        answer(mapping.unmap());
    }

    /// Executes `lock NAME HOW`, `rlock NAME HOW` or `mlock NAME HOW OFFSET`: HOW is `wait` or milliseconds.
    fn lock(&self, mapping: &Mapping, line: &Line) {
        let time = Duration::from_millis(line.number(2));
        match (line.word(0), line.word(2)) {
            ("lock", how) => {
                let guard = match how {
                    "wait" => owner_died_if(mapping.lock().map(Some), || mapping.lock_recover()),
                    "0" => owner_died_if(mapping.try_lock(), || mapping.lock_recover_for(time)),
                    _ => {
                        let asked = mapping.lock_for(time).map(Some);
                        owner_died_if(asked, || mapping.lock_recover_for(time))
                    }
                };
                self.keep(mapping, guard.map(Guard::Region));
            }
            ("rlock", how) => {
                let guard = match how {
                    "wait" => mapping.read_lock().map(Some),
                    "0" => mapping.try_read_lock(),
                    _ => mapping.read_lock_for(time).map(Some),
                };
                // A reader cannot repair, so it does not take an inconsistent lock.
                let guard = guard.map_err(refused).and_then(|guard| guard.ok_or("timedout".into()));
                self.keep(mapping, guard.map(Guard::Read));
            }
            (_, how) => {
                let mutex = match mapping.mutex(line.number(3)) {
                    Ok(mutex) => mutex,
                    Err(error) => return say('=', &refused(error)),
                };
                let guard = match how {
                    "wait" => owner_died_if(mutex.lock().map(Some), || mutex.lock_recover()),
                    _ => {
                        let asked = mutex.lock_for(time).map(Some);
                        owner_died_if(asked, || mutex.lock_recover_for(time))
                    }
                };
                self.keep(mapping, guard.map(Guard::Mutex));
            }
        }
    }

    /// Answers whether the lock was taken. If it was, holds it until it is given back.
    fn keep(&self, mapping: &Mapping, guard: Result<Guard<'_>, String>) {
        let mut guard = match guard {
            Ok(guard) => guard,
            Err(said) => return say('=', &said),
        };
        say('=', guard.told());
        let inner =
            Frame { outer: Some(self), verbs: self.verbs, space: self.space, mapping: None };
        loop {
            let closers = ["unlock", "leave", "abandon", "giveup", "repair", "inspect", "forget"];
            match inner.hold(&closers, mapping.name()).word(0) {
                "repair" => match guard.repair() {
                    Ok(repaired) => {
                        guard = repaired;
                        say('=', "ok");
                    }
                    Err(error) => return say('=', &refused(error)),
                },
                "inspect" if guard.told() == "ownerdied" => say('=', "ok inconsistent"),
                "inspect" => say('=', "ok consistent"),
                "forget" => {
                    std::mem::forget(guard);
                    return say('=', "ok");
                }
                how => return answer(guard.give_back(how)),
            }
        }
    }
}

/// Takes memory for the last bytes of the window, where no region is, as a core dump may do.
fn litter(space: &Space) -> Result<(), RegionError> {
    const BYTES: [u8; 4096] = [0; 4096];
    let failed = |source| RegionError::Os { call: "pwrite", source };
    let file = File::from(space.duplicate_fd()?);
    let end = file.metadata().map_err(failed)?.len();
    let at = end.saturating_sub(2 * BYTES.len() as u64);
    file.write_all_at(&BYTES, at).map_err(failed)
}

/// The state of a region, and how often it is mapped.
fn region(space: &Space, name: &str) -> String {
    match space.stat(name) {
        Ok(info) => format!("ok {} {}", info.state, info.maps),
        Err(error) => refused(error),
    }
}

fn event(mapping: &Mapping, line: &Line) {
    let event = match mapping.event(line.number(2)) {
        Ok(event) => event,
        Err(error) => return say('=', &refused(error)),
    };
    match line.word(0) {
        "signal" => answer(event.signal()),
        "broadcast" => answer(event.broadcast()),
        _ => answer(event.wait_for(event.sequence(), EVENT_WAIT)),
    }
}

/// The byte that fills a region.
pub(crate) fn pattern(name: &str) -> u8 {
    name.bytes().next().unwrap_or(b'?')
}

/// The size of a region, and how many bytes at its head have the pattern; the others must be zero.
fn look(mapping: &Mapping) -> String {
    let mut bytes = vec![0; usize::try_from(mapping.size()).unwrap_or(0)];
    if let Err(error) = mapping.read_at(0, &mut bytes) {
        return refused(error);
    }
    let filled = bytes.iter().take_while(|byte| **byte == pattern(mapping.name())).count();
    if bytes.iter().skip(filled).any(|byte| *byte != 0) {
        return format!("failed: torn after {filled} of {} bytes", bytes.len());
    }
    format!("ok {} {filled}", bytes.len())
}
