//! The identity of this process, and whether another process has ended.
//!
//! # What it owns
//! The reading of `/proc`, which may be absent, may belong to another PID namespace, or may hide
//! processes of other users.
//!
//! # Invariants
//! 1. [`Life::Gone`] is a proof. In doubt the answer is [`Life::Unknown`].
//! 2. A process id means the same only within one PID namespace. A start time, which `/proc` shows, tells two
//!    processes with one id apart. But in any time namespace except the first, `/proc` may show it by a clock with an
//!    offset. So a process there publishes no start time, and compares none. [`Myself`] keeps both rules.
//! 3. A main thread that has ended is a zombie while its process lives on. The `pidfd` shows the
//!    difference, and so does the number of threads.
//!
//! # What it does not do
//! It does not weigh evidence; `witness.rs` does.

use std::{
    fs,
    os::{fd::AsFd, unix::fs::MetadataExt},
    time::Duration,
};

use commonhold_layout::{BootId, PeerName};
use commonhold_space::Identity;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{self, Pid, PidfdFlags},
};

/// Inode number of the time namespace in which clocks have no offset (`PROC_TIME_INIT_INO`).
const FIRST_TIME_NAMESPACE: u64 = 0xefff_fffa;

/// What is known of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// The process that had this id and start time has ended. A zombie counts as ended.
    Gone,
    /// It runs.
    Runs,
    /// A process of this id runs, or may run, and it cannot be known whether it is the same one.
    Unknown,
}

/// This process, as it presents itself, and which facts of `/proc` it may use about others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Myself {
    pub(crate) identity: Identity,
    /// Whether `/proc` shows the process ids of our own PID namespace.
    proc_is_ours: bool,
    /// Whether this process sees start times without a time namespace's offset.
    clock_is_common: bool,
}

/// The fields of `/proc/PID/stat` that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    state: u8,
    parent: u32,
    threads: u64,
    start_time: u64,
    flags: u64,
}

/// `PF_EXITING`: the task runs no user code any more.
const PF_EXITING: u64 = 4;

impl Stat {
    /// The name of the command stands in parentheses and may itself contain `)`. After the last `)` come a letter and
    /// numbers.
    fn parse(text: &[u8]) -> Option<Self> {
        let end = text.iter().rposition(|byte| *byte == b')')?;
        let rest = str::from_utf8(text.get(end + 1..)?).ok()?;
        // Fields from the third of proc(5) on.
        let mut fields = rest.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let parent = fields.next()?.parse().ok()?;
        let flags = fields.nth(4)?.parse().ok()?;
        let threads = fields.nth(10)?.parse().ok()?;
        let start_time = fields.nth(1)?.parse().ok()?;
        Some(Self { state, parent, threads, start_time, flags })
    }

    fn new(process: &str) -> Option<Self> {
        Self::parse(&fs::read(format!("/proc/{process}/stat")).ok()?)
    }

    const fn has_ended(self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x') && self.threads <= 1
    }

    /// Whether a thread, as its own `stat` shows it, runs no user code any more.
    const fn is_exiting(self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x') || self.flags & PF_EXITING != 0
    }
}

/// The id of the calling thread in its own PID namespace.
#[must_use]
pub fn thread_id() -> u32 {
    u32::try_from(rustix::thread::gettid().as_raw_nonzero().get()).unwrap_or(1)
}

/// The parent of a process: the one that started it, or that it was reparented to. `None` if `/proc` does not say, or
/// belongs to another PID namespace.
#[must_use]
pub fn parent_of(pid: u32) -> Option<u32> {
    if !proc_is_ours() {
        return None;
    }
    Stat::new(&pid.to_string()).map(|stat| stat.parent).filter(|parent| *parent != 0)
}

/// How long a process has run, in whole seconds; `None` if `/proc` does not say.
pub(crate) fn age_of(pid: u32) -> Option<Duration> {
    let began = Stat::new(&pid.to_string())?.start_time / rustix::param::clock_ticks_per_second();
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: u64 = uptime.split('.').next()?.parse().ok()?;
    Some(Duration::from_secs(uptime.saturating_sub(began)))
}

fn boot_id() -> Option<BootId> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    u128::from_str_radix(&digits, 16).ok().map(BootId)
}

/// Whether `/proc` was mounted in our own PID namespace: then it shows one id for this process, our own, and not
/// several.
fn proc_is_ours() -> bool {
    let Ok(status) = fs::read_to_string("/proc/self/status") else { return false };
    let mine = process::getpid().as_raw_nonzero().get().to_string();
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    ids.is_some_and(|ids| ids.split_ascii_whitespace().eq([mine.as_str()]))
}

fn clock_is_common() -> bool {
    // If the file is missing, the kernel has no time namespaces.
    fs::metadata("/proc/self/ns/time").map_or(true, |found| found.ino() == FIRST_TIME_NAMESPACE)
}

fn name() -> PeerName {
    let comm = fs::read_to_string("/proc/self/comm").ok();
    let text = comm.map(|comm| comm.trim_end().to_owned()).filter(|comm| !comm.is_empty());
    let text = text.or_else(|| {
        let first = std::env::args_os().next()?;
        let base = std::path::Path::new(&first).file_name()?;
        Some(base.to_string_lossy().into_owned())
    });
    PeerName::new(&text.unwrap_or_default())
}

impl Myself {
    pub(crate) fn look() -> Self {
        let clock_is_common = clock_is_common();
        let start_time = Stat::new("self").filter(|_| clock_is_common).map_or(0, |s| s.start_time);
        let identity = Identity {
            boot: boot_id().unwrap_or(BootId(0)),
            pid: process::getpid().as_raw_nonzero().get().unsigned_abs(),
            pid_namespace: fs::metadata("/proc/self/ns/pid").map_or(0, |found| found.ino()),
            start_time,
            uid: process::getuid().as_raw(),
            name: name(),
        };
        Self { identity, proc_is_ours: proc_is_ours(), clock_is_common }
    }

    /// Whether `/proc` shows the process ids of our own PID namespace.
    pub(crate) const fn proc_is_ours(&self) -> bool {
        self.proc_is_ours
    }

    /// Whether process ids mean the same to this process and to that peer: same boot of one kernel, same PID
    /// namespace.
    pub(crate) fn shares_processes_with(&self, other: &Identity) -> bool {
        let me = &self.identity;
        me.boot != BootId(0)
            && me.boot == other.boot
            && me.pid_namespace != 0
            && me.pid_namespace == other.pid_namespace
            && other.pid != 0
    }

    /// Whether the process lives. Only for peers that [share processes](Self::shares_processes_with) with us.
    pub(crate) fn life_of(&self, other: &Identity) -> Life {
        let Some(pid) = i32::try_from(other.pid).ok().and_then(Pid::from_raw) else {
            return Life::Unknown;
        };
        // The pidfd is opened before the start time is read, so that both belong to one process.
        let pidfd = match process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) if has_ended(&pidfd) => return Life::Gone,
            Err(Errno::SRCH) => return Life::Gone,
            pidfd => pidfd.ok(),
        };
        if pidfd.is_none() && signal_says(pid) == Life::Gone {
            return Life::Gone;
        }
        if !self.proc_is_ours {
            return Life::Unknown;
        }
        match Stat::new(&pid.as_raw_nonzero().to_string()) {
            Some(stat) if stat.has_ended() => Life::Gone,
            // Some process has the id, and the start time cannot tell which.
            Some(_) if other.start_time == 0 || !self.clock_is_common => Life::Unknown,
            Some(stat) if stat.start_time != other.start_time => Life::Gone,
            Some(_) => Life::Runs,
            // It ended after the pidfd was opened, or `/proc` hides it.
            None if pidfd.as_ref().is_some_and(has_ended) => Life::Gone,
            None => signal_says(pid),
        }
    }
}

impl Myself {
    /// Whether a thread of that process runs no user code any more: `true` is a proof. Only for peers that
    /// [share processes](Self::shares_processes_with) with us.
    pub(crate) fn thread_has_ended(&self, other: &Identity, tid: u32) -> bool {
        if !self.proc_is_ours || !self.clock_is_common || other.start_time == 0 {
            return false;
        }
        let thread = Stat::new(&format!("{}/task/{tid}", other.pid));
        if let Some(thread) = thread {
            // Only if the id still is that process's: a thread of a later process proves nothing.
            return thread.is_exiting() && self.is_process(other);
        }
        // `/proc` shows no such thread. That proves something only if it shows the process itself, before and after.
        let missing = || fs::symlink_metadata(format!("/proc/{}/task/{tid}", other.pid));
        let gone = |found: std::io::Result<_>| {
            found.err().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
        };
        self.is_process(other) && gone(missing().map(drop)) && self.is_process(other)
    }

    /// Whether `/proc` shows the process, with the same start time.
    fn is_process(&self, other: &Identity) -> bool {
        Stat::new(&other.pid.to_string()).is_some_and(|stat| stat.start_time == other.start_time)
    }
}

/// Whether a process of this id has a thread of this id, which may be exiting. This costs less than reading `/proc`.
pub(crate) fn has_thread(pid: u32, tid: u32) -> bool {
    // SAFETY: `tgkill` wants nothing of memory, and signal 0 is sent to no thread.
    let found = unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, 0) };
    // Any other error, such as EPERM, means that there is such a thread.
    found == 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

/// Whether the process of this descriptor has ended. A zombie counts as ended.
pub(crate) fn has_ended(pidfd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut fds, Some(&at_once)), Ok(1..))
}

/// Asks with signal 0, for when no pidfd could be opened: the id is a mere thread's, the kernel is old, a sandbox
/// forbids it, or no descriptors are left.
fn signal_says(pid: Pid) -> Life {
    match process::test_kill_process(pid) {
        Err(Errno::SRCH) => Life::Gone,
        _ => Life::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_command_name_is_parsed() {
        let line = b"42 (a ) Z 1 (b) S 1 42 42 0 -1 4194560 90 0 0 0 0 0 0 0 20 0 3 0 777 1 2";
        let stat = Stat::parse(line).unwrap();
        let expected =
            Stat { state: b'S', parent: 1, threads: 3, start_time: 777, flags: 4_194_560 };
        assert_eq!(stat, expected);
        for short in [&b""[..], b"42", b"42 (x", b"42 (x)", b"42 (x) S 1 2 3", b"1 (\xff) S"] {
            assert_eq!(Stat::parse(short), None);
        }
    }

    #[test]
    fn a_zombie_whose_threads_run_on_has_not_ended() {
        let ended = |state, threads| {
            Stat { state, parent: 1, threads, start_time: 1, flags: 0 }.has_ended()
        };
        assert!(ended(b'Z', 1) && ended(b'X', 0));
        assert!(!ended(b'Z', 2) && !ended(b'S', 1) && !ended(b'T', 1));
    }

    #[test]
    fn this_process_runs_and_an_earlier_one_with_its_id_is_gone() {
        let me = Myself::look();
        assert_ne!(me.identity.boot, BootId(0));
        assert!(me.shares_processes_with(&me.identity));
        assert_eq!(me.life_of(&me.identity), Life::Runs);
        let earlier = Identity { start_time: me.identity.start_time - 1, ..me.identity };
        assert_eq!(me.life_of(&earlier), Life::Gone);
        let elsewhere = Identity { pid_namespace: 1, ..me.identity };
        assert!(!me.shares_processes_with(&elsewhere));
        let reboot = Identity { boot: BootId(1), ..me.identity };
        assert!(!me.shares_processes_with(&reboot));
    }

    #[test]
    fn a_start_time_proves_nothing_without_our_own_proc_and_a_common_clock() {
        let me = Myself::look();
        let earlier = Identity { start_time: 1, ..me.identity };
        let foreign = Myself { proc_is_ours: false, ..me };
        assert_eq!(foreign.life_of(&earlier), Life::Unknown);
        let shifted = Myself { clock_is_common: false, ..me };
        assert_eq!(shifted.life_of(&earlier), Life::Unknown);
    }

    #[test]
    fn zombies_and_missing_processes_are_gone_even_without_proc() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = process::WaitId::Pid(Pid::from_child(&child));
        let options = process::WaitIdOptions::EXITED | process::WaitIdOptions::NOWAIT;
        process::waitid(pid, options).unwrap();
        let me = Myself { proc_is_ours: false, ..Myself::look() };
        let other = Identity { pid: child.id(), start_time: 1, ..me.identity };
        assert_eq!(me.life_of(&other), Life::Gone);
        child.wait().unwrap();
        assert_eq!(me.life_of(&other), Life::Gone);
    }
}
