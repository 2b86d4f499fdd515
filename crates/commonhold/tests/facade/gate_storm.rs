//! Processes that open, lock, free and leave, beside one that removes and one that formats by force. All are
//! stopped and killed at random instants. Two are never inside one lock.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::FileExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use commonhold::{ErrorKind, FormatOptions, LockError, Recovered, Removal, Space};

use crate::support::{Folder, Random, Role, Scratch, ScriptedProcess, say};

pub(crate) const ROLES: &[Role] =
    &[("storm-lock", lock), ("storm-remove", remove), ("storm-format", format)];

/// How long the storm lasts, in seconds.
const SECONDS: &str = "COMMONHOLD_TEST_SECONDS";
/// Bit in the ninth field of `/proc/PID/task/TID/stat`: the thread is ending.
const EXITING: u64 = 4;

/// Longer than any process is stopped.
const WAIT: Duration = Duration::from_secs(5);

/// Counts in a file, of which nothing is lost when this process is killed.
struct Count(File);

impl Count {
    fn new(folder: &str, what: &str) -> Self {
        let path = Path::new(folder).join(what);
        Self(OpenOptions::new().create(true).append(true).open(path).unwrap())
    }

    fn one_more(&mut self) {
        self.0.write_all(b".").unwrap();
    }
}

/// This thread, as one number.
fn myself() -> u64 {
    u64::from(std::process::id()) | u64::from(commonhold_host::thread_id()) << 32
}

/// Whether the thread can still run code: the next owner learns of its death before the rest of its process is
/// gone.
fn runs(who: u64) -> bool {
    let (pid, tid) = (who & u64::from(u32::MAX), who >> 32);
    let stat = fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")).unwrap_or_default();
    let Some((_, rest)) = stat.rsplit_once(") ") else { return false };
    let fields: Vec<&str> = rest.split(' ').collect();
    !matches!(fields[0], "Z" | "X") && fields[6].parse::<u64>().unwrap() & EXITING == 0
}

/// The thread inside the lock writes its number into a file.
struct Marker(File);

impl Marker {
    fn read(&self) -> u64 {
        let mut word = [0; 8];
        self.0.read_exact_at(&mut word, 0).unwrap();
        u64::from_le_bytes(word)
    }

    fn write(&self, who: u64) {
        self.0.write_all_at(&who.to_le_bytes(), 0).unwrap();
    }

    /// Stays inside the lock for a moment.
    fn visit(&self) {
        let me = myself();
        let other = self.read();
        if other != 0 && other != me && runs(other) {
            say(format!("violation: {me:#x} meets {other:#x}"));
        }
        self.write(me);
        thread::yield_now();
        let now = self.read();
        if now != me {
            say(format!("violation: {now:#x} came while {me:#x} was inside"));
        }
        self.write(0);
    }
}

fn lock(args: &[&str]) {
    let &[url, folder] = args else { panic!("{args:?}") };
    let marker = Path::new(folder).join("marker");
    let marker = Marker(File::options().read(true).write(true).open(marker).unwrap());
    let mut visits = Count::new(folder, "visits");
    loop {
        let space = match Space::open(url) {
            Ok(space) => space,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // Small: a space of the default size takes longer to make.
                let _ = Space::format(url, &Scratch::tiny());
                continue;
            }
            Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::NoMemory) => {
                continue;
            }
            Err(error) => return say(format!("violation: cannot open: {error}")),
        };
        let mapping = match space.map_or_create("lock", 0) {
            Ok(mapping) => mapping,
            Err(error) => return say(format!("violation: cannot map: {error}")),
        };
        let guard = match mapping.lock_recover_for(WAIT) {
            Ok(Recovered::Consistent(guard)) => guard,
            Ok(Recovered::Inconsistent(guard)) => guard.mark_consistent().unwrap(),
            Err(LockError::TimedOut(_)) => continue,
            Err(error) => return say(format!("violation: cannot lock: {error}")),
        };
        marker.visit();
        visits.one_more();
        guard.unlock().unwrap();
    }
}

fn remove(args: &[&str]) {
    let mut done = Count::new(args[1], "removed");
    loop {
        match Space::remove(args[0], Removal::IfUnused) {
            Ok(()) => done.one_more(),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InUse) => {}
            Err(error) if error.kind() == ErrorKind::TimedOut => {}
            Err(error) => return say(format!("violation: cannot remove: {error}")),
        }
        thread::yield_now();
    }
}

fn format(args: &[&str]) {
    let mut done = Count::new(args[1], "formatted");
    let forced = FormatOptions { force: true, ..Scratch::tiny() };
    loop {
        match Space::format(args[0], &forced) {
            Ok(()) => done.one_more(),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::Exists
                        | ErrorKind::InUse
                        | ErrorKind::TimedOut
                        | ErrorKind::NotFound
                ) => {}
            Err(error) => return say(format!("violation: cannot format: {error}")),
        }
        thread::yield_now();
    }
}

fn signal(actor: &ScriptedProcess, signal: libc::c_int) {
    // SAFETY: `kill` wants nothing; the process is our own child.
    assert_eq!(unsafe { libc::kill(actor.pid().cast_signed(), signal) }, 0);
}

/// The bug: the check for living peers and the `unlink` were two steps, and an opener did not check again that its
/// file still had its name. So one process could lock a space that had just been removed, while another locked the
/// one that was made in its place.
#[test]
fn two_processes_are_never_inside_one_lock_while_spaces_are_removed_and_replaced() {
    let seconds = std::env::var(SECONDS).ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let folder = Folder::in_memory();
    let url = folder.url("space");
    let place = folder.0.to_str().unwrap();
    File::create(folder.0.join("marker")).unwrap().write_all(&[0; 8]).unwrap();
    let parts = ["storm-lock", "storm-lock", "storm-lock", "storm-remove", "storm-format"];
    let start = |part: &str| ScriptedProcess::start(part, &[&url, place]);
    let mut actors = parts.map(start);
    let mut random = Random(0x6a7e);
    let (mut stops, mut kills) = (0, 0);
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        let one = random.below(actors.len() as u64) as usize;
        // Between two faults all of them run for a moment.
        thread::sleep(Duration::from_micros(random.below(3000)));
        signal(&actors[one], libc::SIGSTOP);
        thread::sleep(Duration::from_micros(random.below(8000)));
        stops += 1;
        if random.below(10) == 0 {
            kills += 1;
            std::mem::replace(&mut actors[one], start(parts[one])).kill();
        } else {
            signal(&actors[one], libc::SIGCONT);
        }
        for actor in &actors {
            if let Some(said) = actor.hear_within(Duration::ZERO) {
                panic!("after {stops} stops and {kills} kills: {said}");
            }
        }
    }
    for actor in actors {
        if let Some(said) = actor.hear_within(Duration::ZERO) {
            panic!("{said}");
        }
        actor.kill();
    }
    let count = |what: &str| fs::metadata(folder.0.join(what)).map_or(0, |found| found.len());
    let (visits, removed, formatted) = (count("visits"), count("removed"), count("formatted"));
    eprintln!(
        "{visits} visits, {removed} removals, {formatted} formats, {stops} stops, {kills} kills"
    );
    assert!(visits > 0 && removed > 0 && formatted > 0 && stops > 0);
}
