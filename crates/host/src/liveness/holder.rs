//! Which process has a byte of a file locked, for messages.
//!
//! # What it owns
//! The reading of `/proc/PID/fdinfo` and `/proc/locks`. The first shows the locks of each process that this one may
//! inspect. The second shows all locks, but names no process for the lock of an open file description.
//!
//! # Invariants
//! 1. A search takes a bounded time, however many processes there are.
//! 2. The result goes into messages only, since it may be wrong: several processes may share a description that has
//!    the lock, some processes are hidden, and the answer may be out of date when it is read.

use std::{
    fmt, fs,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, Instant},
};

use super::process::age_of;

/// Longest search.
const TIME: Duration = Duration::from_millis(500);

/// A process that has a lock on a file.
///
/// # Examples
/// ```
/// # use commonhold_host::LockHolder;
/// fn tell(holder: &LockHolder) {
///     match holder.stopped {
///         true => println!("kill -CONT {}", holder.pid),
///         false => println!("{holder} has it"),
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockHolder {
    /// Its process id, as this process sees it.
    pub pid: u32,
    /// The name of its command.
    pub name: String,
    /// Whether it is stopped, by a signal or by a debugger.
    pub stopped: bool,
    /// Whose process it is: the user id.
    pub uid: u32,
    /// How long it has run: it cannot have had the lock for longer. `None` if that cannot be seen.
    pub age: Option<Duration>,
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({:?}", self.pid, self.name)?;
        f.write_str(if self.stopped { ", stopped)" } else { ")" })?;
        write!(f, " of user {}", self.uid)?;
        match self.age.map(|age| age.as_secs()) {
            None => Ok(()),
            Some(age @ 0..60) => write!(f, ", started {age} s ago,"),
            Some(age @ 60..3600) => write!(f, ", started {} min ago,", age / 60),
            Some(age) => write!(f, ", started {} h ago,", age / 3600),
        }
    }
}

impl LockHolder {
    /// A process that has the byte locked; a stopped one, if there is one.
    pub(crate) fn new(file: (u64, u64), byte: u64) -> Option<Self> {
        let until = Instant::now() + TIME;
        let mut found: Option<Self> = None;
        for process in fs::read_dir("/proc").ok()?.filter_map(Result::ok) {
            if Instant::now() > until {
                break;
            }
            let name = process.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            if !locks(&process.path(), file, byte, until) {
                continue;
            }
            let holder = Self::look(pid, &process.path());
            let stopped = holder.stopped;
            // This process is named only if no other has the lock.
            if stopped || found.as_ref().is_none_or(|found| found.pid == std::process::id()) {
                found = Some(holder);
            }
            if stopped {
                break;
            }
        }
        found.or_else(|| Self::listed(file, byte))
    }

    /// A process by `/proc/locks`: it may be one whose descriptors this process may not inspect.
    fn listed((device, inode): (u64, u64), byte: u64) -> Option<Self> {
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let file = format!("{major:02x}:{minor:02x}:{inode}");
        let locks = fs::read_to_string("/proc/locks").ok()?;
        let pid = locks.lines().find_map(|line| pid_of_lock(line, &file, byte))?;
        Some(Self::look(pid, &Path::new("/proc").join(pid.to_string())))
    }

    fn look(pid: u32, process: &Path) -> Self {
        let status = fs::read_to_string(process.join("status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim()
        };
        let stopped = field("State:").starts_with(['T', 't']);
        let uid = field("Uid:").split_ascii_whitespace().next().and_then(|uid| uid.parse().ok());
        let name = field("Name:").to_owned();
        Self { pid, name, stopped, uid: uid.unwrap_or(u32::MAX), age: age_of(pid) }
    }
}

/// The name of a heartbeat thread, cut to the length that the kernel keeps. Such a thread has a descriptor table of
/// its own.
const HEART: &str = "commonhold-hear";

/// Whether a description of this process, or of its heartbeat thread, has the byte locked.
fn locks(process: &Path, file: (u64, u64), byte: u64, until: Instant) -> bool {
    if table_locks(process, file, byte, until) {
        return true;
    }
    let Ok(threads) = fs::read_dir(process.join("task")) else { return false };
    threads.filter_map(Result::ok).take_while(|_| Instant::now() <= until).any(|thread| {
        fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name.trim_end() == HEART)
            && table_locks(&thread.path(), file, byte, until)
    })
}

/// Whether a description in the table of the process or thread at `of` has the byte locked.
fn table_locks(of: &Path, file: (u64, u64), byte: u64, until: Instant) -> bool {
    let Ok(descriptors) = fs::read_dir(of.join("fd")) else { return false };
    descriptors.filter_map(Result::ok).take_while(|_| Instant::now() <= until).any(|descriptor| {
        fs::metadata(descriptor.path()).is_ok_and(|found| (found.dev(), found.ino()) == file)
            && fs::read_to_string(of.join("fdinfo").join(descriptor.file_name()))
                .is_ok_and(|info| info.lines().any(|line| is_lock_of(line, byte)))
    })
}

/// Whether this is a lock of the byte; in a line such as
/// `lock: 1: OFDLCK  ADVISORY  WRITE -1 00:1b:815 4611686018427387902 EOF`.
fn is_lock_of(line: &str, byte: u64) -> bool {
    let Some(lock) = line.strip_prefix("lock:") else { return false };
    let mut words = lock.split_ascii_whitespace().rev();
    let last = match words.next() {
        Some("EOF") => Some(u64::MAX),
        word => word.and_then(|word| word.parse().ok()),
    };
    let first = words.next().and_then(|word| word.parse().ok());
    // A lock of `flock` is shown with all bytes of the file, but does not conflict with ours.
    !lock.contains("FLOCK")
        && first.zip(last).is_some_and(|(a, b): (u64, u64)| (a..=b).contains(&byte))
}

/// The process of a line such as `1: POSIX  ADVISORY  READ 815 00:1b:9 0 EOF`, if that is a lock of this byte of this
/// file.
fn pid_of_lock(line: &str, file: &str, byte: u64) -> Option<u32> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [.., pid, of, _, _] = words[..] else { return None };
    let found = of == file && is_lock_of(&format!("lock:{line}"), byte);
    // -1: the lock is a description's, and the kernel names no process.
    pid.parse().ok().filter(|pid| found && *pid > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_locks_names_its_process_unless_a_description_has_the_lock() {
        let of = |pid, bytes| format!("3: POSIX  ADVISORY  READ  {pid} 00:1b:9 {bytes}");
        assert_eq!(pid_of_lock(&of("815", "5 9"), "00:1b:9", 7), Some(815));
        assert_eq!(pid_of_lock(&of("815", "0 EOF"), "00:1b:9", 7), Some(815));
        for (line, file) in [(of("-1", "5 9"), "00:1b:9"), (of("815", "8 9"), "00:1b:9")] {
            assert_eq!(pid_of_lock(&line, file, 7), None);
        }
        assert_eq!(pid_of_lock(&of("815", "5 9"), "00:1b:8", 7), None);
        for line in ["", "1:", "1: -> POSIX", "x y 00:1b:9 z w"] {
            assert_eq!(pid_of_lock(line, "00:1b:9", 7), None);
        }
    }

    #[test]
    fn a_lock_is_found_by_its_bytes_and_flock_does_not_count() {
        let of = |kind, bytes| format!("lock:\t1: {kind}  ADVISORY  WRITE -1 00:1b:815 {bytes}");
        assert!(is_lock_of(&of("OFDLCK", "7 7"), 7));
        assert!(is_lock_of(&of("OFDLCK", "0 EOF"), 7));
        assert!(is_lock_of(&of("POSIX", "5 9"), 7));
        assert!(!is_lock_of(&of("OFDLCK", "8 9"), 7));
        assert!(!is_lock_of(&of("FLOCK", "0 EOF"), 7));
        for line in ["", "lock:", "lock: 7", "pos:\t7 7", "lock: x y"] {
            assert!(!is_lock_of(line, 7), "{line}");
        }
    }
}
