//! Opening a space while others remove or replace it.

use std::{
    fs::{self, File},
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::Path,
    time::{Duration, Instant},
};

use commonhold::{ErrorKind, FormatOptions, OpenError, Owners, Removal, Space};
use commonhold_layout::header_word;

use crate::support::{
    DEADLINE, Folder, Role, Scratch, ScriptedProcess, fails, listen, say, stay, until,
};

pub(crate) const ROLES: &[Role] = &[
    ("gate-stay", stay_attached),
    ("gate-lock", lock_a_byte),
    ("gate-enter", enter),
    ("gate-seize", seize),
    ("gate-open", open_and_say),
    ("gate-child", leave_a_child),
    ("gate-child-entering", leave_a_child_entering),
    ("gate-ramfs", on_ramfs),
];

const LONG: Duration = Duration::from_secs(60);

fn forced() -> FormatOptions {
    FormatOptions { force: true, ..Scratch::tiny() }
}

fn stay_attached(args: &[&str]) {
    let space = Space::open(args[0]).unwrap();
    say(space.peer().0);
    stay();
}

/// Writes one word of a space's file.
fn put(path: &Path, word: usize, value: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&value.to_le_bytes(), 8 * word as u64).unwrap();
}

/// The bug: a file whose version, header or magic number this version could not read counted as unused. `remove`
/// succeeded, and `format --force` made a new space, while a peer held a lock of the old one. The evidence of life
/// is a lock on the file, and does not depend on its bytes.
#[test]
fn an_unreadable_file_with_a_living_holder_is_neither_removed_nor_replaced() {
    let versions = [2, 99].map(|version| (header_word::VERSION, version));
    for (word, value) in versions.into_iter().chain([(header_word::CHECKSUM, 7), (0, 7)]) {
        let scratch = Scratch::with(&Scratch::tiny());
        let holder = ScriptedProcess::start("gate-stay", &[&scratch.url]);
        let slot: u16 = holder.hear().parse().unwrap();
        let pid = holder.pid();
        put(&scratch.path(), word, value);
        let refusals = [
            Space::remove(&scratch.url, Removal::IfUnused),
            Space::format(&scratch.url, &forced()),
        ];
        for refused in refusals {
            fails!(&refused, OpenError::Held { slot: Some(it), byte, by: Some(by), .. }
                if *it == slot && *byte == (1 << 62) + u64::from(slot) && by.pid == pid && !by.stopped);
            let refused = refused.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InUse);
            let text = refused.to_string();
            assert!(text.contains("fuser") && text.contains("rm /"), "{text}");
        }
        assert!(scratch.path().exists());
        holder.kill();
        if word == 0 {
            // No process holds it, but it is no space.
            fails!(Space::remove(&scratch.url, Removal::IfUnused), OpenError::NotASpace { .. });
            Space::format(&scratch.url, &forced()).unwrap();
        } else {
            Space::remove(&scratch.url, Removal::IfUnused).unwrap();
        }
    }
}

/// Locks a byte of a file, and stays.
fn lock_a_byte(args: &[&str]) {
    let file = File::options().read(true).write(true).open(args[0]).unwrap();
    // SAFETY: `zeroed` wants a type for which zeros are a value: `flock` is integers.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    (lock.l_start, lock.l_len) = (args[1].parse().unwrap(), 1);
    // SAFETY: `fcntl` wants an open descriptor and a `flock`.
    assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) }, 0);
    say("locked");
    stay();
}

/// Another process, because children of this one that are just being started share its open file descriptions.
fn locked(path: &Path, byte: u64) -> ScriptedProcess {
    let actor = ScriptedProcess::start("gate-lock", &[path.to_str().unwrap(), &byte.to_string()]);
    actor.says("locked");
    actor
}

/// The bug: a file that was emptied or wiped while it was in use was formatted over without force.
#[test]
fn an_empty_file_that_a_process_has_locked_is_not_formatted_over() {
    let folder = Folder::in_memory();
    for (name, size) in [("empty", 0), ("zeros", 1 << 20)] {
        let (path, url) = (folder.0.join(name), folder.url(name));
        File::create(&path).unwrap().set_len(size).unwrap();
        // The byte of a slot, that of a slot which no version has, and the byte that is locked to fill holes.
        for byte in [1 << 62, (1 << 62) + 70_000, (1 << 62) - 1] {
            let holder = locked(&path, byte);
            fails!(Space::format(&url, &forced()), OpenError::Held { by: Some(by), byte: it, .. }
                if by.pid == holder.pid() && *it == byte);
            fails!(Space::format(&url, &Scratch::tiny()), OpenError::Held { .. });
            holder.kill();
        }
        Space::format(&url, &Scratch::tiny()).unwrap();
    }
}

#[test]
fn a_lock_of_a_process_that_the_tables_do_not_know_counts_as_a_living_peer() {
    let scratch = Scratch::with(&Scratch::tiny());
    let holder = locked(&scratch.path(), (1 << 62) + 2);
    fails!(Space::remove(&scratch.url, Removal::IfUnused), OpenError::Held { slot: Some(2), .. });
    fails!(Space::format(&scratch.url, &forced()), OpenError::Held { slot: Some(2), .. });
    holder.kill();
    Space::format(&scratch.url, &forced()).unwrap();
    let _holder = locked(&scratch.path(), (1 << 62) + 2);
    // Force still removes a space with live peers.
    Space::remove(&scratch.url, Removal::Forced).unwrap();
}

/// Makes a child as `fork` does, but runs no handlers: it keeps all descriptors.
fn raw_fork() -> libc::pid_t {
    // SAFETY: with these arguments it is `fork`; the child only waits to be killed.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    child as libc::pid_t
}

fn wait_to_be_killed() -> ! {
    loop {
        // SAFETY: `pause` wants nothing.
        unsafe { libc::pause() };
    }
}

fn kill(pid: u32, signal: libc::c_int) {
    // SAFETY: `kill` wants nothing; the process is a child, or a child's.
    assert_eq!(unsafe { libc::kill(pid.cast_signed(), signal) }, 0);
}

/// The child of a scripted process, killed when this is dropped.
struct Stray(u32);

impl Drop for Stray {
    fn drop(&mut self) {
        // SAFETY: as in `kill`.
        unsafe { libc::kill(self.0.cast_signed(), libc::SIGKILL) };
    }
}

impl Stray {
    fn new(parent: &ScriptedProcess) -> Self {
        Self(parent.hear().parse().unwrap())
    }
}

fn leave_a_child(args: &[&str]) {
    let _space = Space::open(args[0]).unwrap();
    match raw_fork() {
        0 => wait_to_be_killed(),
        child => say(child),
    }
    stay();
}

#[test]
fn a_lock_inherited_from_a_dead_peer_does_not_keep_a_space_from_being_removed() {
    for removes in [true, false] {
        let scratch = Scratch::with(&Scratch::tiny());
        let parent = ScriptedProcess::start("gate-child", &[&scratch.url]);
        let _child = Stray::new(&parent);
        fails!(Space::remove(&scratch.url, Removal::IfUnused), OpenError::InUse { peers: 1, .. });
        parent.kill();
        if removes {
            Space::remove(&scratch.url, Removal::IfUnused).unwrap();
        } else {
            Space::format(&scratch.url, &forced()).unwrap();
        }
    }
}

fn enter(args: &[&str]) {
    let gate = commonhold_host::enter(&args[0].parse().unwrap(), Owners::Trusted, LONG).unwrap();
    say("inside");
    stay();
    drop(gate);
}

/// Holds the gate alone; does with the name what it is told, and ends.
fn seize(args: &[&str]) {
    let url = args[0].parse().unwrap();
    let gate = commonhold_host::seize(&url, Owners::Trusted, LONG).unwrap();
    say("alone");
    match listen().as_deref() {
        Some("remove") => gate.unlink().unwrap(),
        Some("replace") => {
            // By hand, since the gate is ours: as `rename` does it under the gate.
            let other = format!("{}-other", args[0]);
            Space::format(&other, &Scratch::tiny()).unwrap();
            let path = |url: &str| commonhold_host::path_of(&url.parse().unwrap()).unwrap();
            fs::rename(path(&other), path(args[0])).unwrap();
        }
        _ => {}
    }
}

fn stop(actor: &ScriptedProcess) {
    kill(actor.pid(), libc::SIGSTOP);
    let status = format!("/proc/{}/status", actor.pid());
    until("a stop", || fs::read_to_string(&status).unwrap().contains("State:\tT"));
}

#[test]
fn a_stopped_opener_is_named_to_removers_and_does_not_block_other_openers() {
    let scratch = Scratch::with(&Scratch::tiny());
    let opener = ScriptedProcess::start("gate-enter", &[&scratch.url]);
    opener.says("inside");
    stop(&opener);
    drop(scratch.open());
    let began = Instant::now();
    let results = [
        Space::remove(&scratch.url, Removal::IfUnused),
        Space::remove(&scratch.url, Removal::Forced),
        Space::format(&scratch.url, &forced()),
    ];
    for result in results {
        fails!(&result, OpenError::TimedOut { by: Some(by), .. }
            if by.pid == opener.pid() && by.stopped && !by.name.is_empty());
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(error.to_string().contains("kill -CONT"), "{error}");
    }
    assert!(began.elapsed() < DEADLINE);
    drop(scratch.open());
    opener.kill();
    Space::remove(&scratch.url, Removal::IfUnused).unwrap();
}

#[test]
fn a_stopped_remover_is_named_to_openers_and_its_death_lets_them_in() {
    let scratch = Scratch::with(&Scratch::tiny());
    let remover = ScriptedProcess::start("gate-seize", &[&scratch.url]);
    remover.says("alone");
    stop(&remover);
    let began = Instant::now();
    let results = [
        Space::open(&scratch.url).map(drop),
        Space::open_within(&scratch.url, Duration::from_millis(20)).map(drop),
        Space::open_or_format_within(&scratch.url, Duration::ZERO).map(drop),
        Space::remove(&scratch.url, Removal::Forced),
    ];
    for result in results {
        fails!(&result, OpenError::TimedOut { by: Some(by), .. }
            if by.pid == remover.pid() && by.stopped);
    }
    assert!(began.elapsed() < DEADLINE);
    // Who is in already, or only looks, does not ask.
    assert!(matches!(
        Space::format(&scratch.url, &Scratch::tiny()),
        Err(OpenError::Exists { found: "a space", .. })
    ));
    remover.kill();
    drop(scratch.open());
}

fn open_and_say(args: &[&str]) {
    match Space::open_within(args[0], LONG) {
        Ok(space) => say(space.info().unwrap().uuid),
        Err(error) => say(format!("{:?}", error.kind())),
    }
}

/// Whether the process has the file open under this very name.
fn has_open(pid: u32, path: &Path) -> bool {
    fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|all| {
        all.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|at| at == path))
    })
}

/// An opener that had opened the file just before it was removed or replaced went on with the old file, and
/// never looked again whether that still had the name: it and the users of the new file met nobody.
#[test]
fn an_opener_whose_file_is_removed_or_replaced_meanwhile_begins_anew() {
    for what in ["remove", "replace", "leave"] {
        let scratch = Scratch::with(&Scratch::tiny());
        let uuid = || scratch.open().info().unwrap().uuid.to_string();
        let old = uuid();
        let mut remover = ScriptedProcess::start("gate-seize", &[&scratch.url]);
        remover.says("alone");
        let opener = ScriptedProcess::start("gate-open", &[&scratch.url]);
        until("the opener to have the file", || has_open(opener.pid(), &scratch.path()));
        assert_eq!(opener.hear_within(Duration::from_millis(1)), None, "the gate is shut");
        remover.tell(what);
        let found = opener.hear();
        match what {
            "remove" => assert_eq!(found, "NotFound"),
            "replace" => assert!(found == uuid() && found != old, "{found}"),
            _ => assert_eq!(found, old),
        }
        remover.succeed();
    }
}

fn leave_a_child_entering(args: &[&str]) {
    let gate = commonhold_host::enter(&args[0].parse().unwrap(), Owners::Trusted, LONG).unwrap();
    let fork = match args[1] {
        // SAFETY: the child only waits to be killed.
        "fork" => unsafe { libc::fork() },
        _ => raw_fork(),
    };
    match fork {
        0 => wait_to_be_killed(),
        child => say(child),
    }
    if args[1] == "fork" {
        stay();
    }
    drop(gate);
    say("left");
    stay();
}

/// A child that is forked while its parent opens a space shares the description by which the gate is held.
#[test]
fn a_forked_child_does_not_keep_the_gate_of_its_parent() {
    for how in ["fork", "clone"] {
        let scratch = Scratch::with(&Scratch::tiny());
        let parent = ScriptedProcess::start("gate-child-entering", &[&scratch.url, how]);
        let _child = Stray::new(&parent);
        if how == "clone" {
            parent.says("left");
        }
        // With fork handlers, also if the parent dies while it holds the gate.
        parent.kill();
        Space::remove(&scratch.url, Removal::IfUnused).unwrap();
    }
}

/// On a file system that is not known to be local, a missing lock proves nothing, so an unreadable file there may
/// be in use.
#[test]
fn an_unreadable_file_is_not_removed_where_locks_prove_nothing() {
    let folder = Folder::new();
    let actor = ScriptedProcess::start("gate-ramfs", &[folder.0.to_str().unwrap()]);
    let said = actor.hear();
    if said == "not permitted" {
        eprintln!("note: not tested: this user may not mount");
        return;
    }
    assert_eq!(said, "mounted");
    actor.says("done");
    actor.succeed();
}

fn on_ramfs(args: &[&str]) {
    let at = std::ffi::CString::new(args[0]).unwrap();
    // SAFETY: `unshare` wants nothing: this process, which was made for it, has its own mounts from now on.
    let alone = unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0;
    let (none, root, ramfs) = (c"none".as_ptr(), c"/".as_ptr(), c"ramfs".as_ptr());
    let private = libc::MS_REC | libc::MS_PRIVATE;
    let null: *const libc::c_void = std::ptr::null();
    // SAFETY: `mount` wants strings, and no data for these.
    let private = alone && unsafe { libc::mount(none, root, null.cast(), private, null) } == 0;
    // SAFETY: as above.
    if !private || unsafe { libc::mount(none, at.as_ptr(), ramfs, 0, null) } != 0 {
        return say("not permitted");
    }
    say("mounted");
    let path = Path::new(args[0]).join("a");
    let url = format!("file:{}", path.display());
    Space::format(&url, &Scratch::tiny()).unwrap();
    put(&path, header_word::VERSION, 99);
    let refusals = [Space::remove(&url, Removal::IfUnused), Space::format(&url, &forced())];
    for refused in refusals {
        fails!(&refused, OpenError::Unknowable { .. });
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InUse);
        assert!(refused.to_string().contains("`rm`"), "{refused}");
    }
    Space::remove(&url, Removal::Forced).unwrap();
    // A readable file says which peers live, and an empty one has none.
    Space::format(&url, &Scratch::tiny()).unwrap();
    Space::format(&url, &forced()).unwrap();
    Space::remove(&url, Removal::IfUnused).unwrap();
    File::create(&path).unwrap().set_len(1 << 20).unwrap();
    Space::format(&url, &Scratch::tiny()).unwrap();
    say("done");
}

/// The bug: nothing keeps `rm` from a space in use. Its users went on, and did not meet later openers of the name.
#[test]
fn a_peer_of_a_space_removed_by_hand_learns_it() {
    let scratch = Scratch::with(&Scratch::tiny());
    let space = scratch.open();
    assert!(!space.is_orphaned() && !space.info().unwrap().orphaned);
    fs::remove_file(scratch.path()).unwrap();
    assert!(space.info().unwrap().orphaned);
    until("the heart to see it", || space.is_orphaned());
    Space::format(&scratch.url, &Scratch::tiny()).unwrap();
    let other = scratch.open();
    assert!(space.info().unwrap().orphaned && !other.info().unwrap().orphaned);
    assert_ne!(space.info().unwrap().uuid, other.info().unwrap().uuid);
}
