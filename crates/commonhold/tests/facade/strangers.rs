//! What users who may read the file of a space, but not write it, can do to its peers.

use std::{
    fs::File,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, MetadataExt},
    },
    path::Path,
    thread,
    time::{Duration, Instant},
};

use commonhold::{Access, Destroy, ErrorKind, FormatOptions, OpenError, Removal, Space};
use commonhold_layout::{Geometry, RegionId, region_word};

use crate::support::{
    DEADLINE, Folder, Role, Scratch, ScriptedProcess, fails, say, stay, until_waiters,
};

pub(crate) const ROLES: &[Role] = &[
    ("stranger-read", lock_as_a_reader),
    ("stranger-write", lock_as_a_writer),
    ("stranger-flock", lock_whole),
    ("stranger-touch", touch_holes),
    ("stranger-sleep", sleep_on_a_word),
];

/// Where the evidence of the first slot is, and no gate: that of a space is two bytes before.
const EVIDENCE: i64 = 1 << 62;
const GATE: i64 = EVIDENCE - 2;
const TO_THE_END: i64 = 0;

fn lock(file: &File, kind: libc::c_int, first: i64, len: i64) -> bool {
    // SAFETY: `zeroed` wants a type for which zeros are a value: `flock` is integers.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    (lock.l_start, lock.l_len) = (first, len);
    // SAFETY: `fcntl` wants an open descriptor and a `flock`.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) == 0 }
}

/// Locks bytes through a descriptor that can only be read, and stays.
fn lock_as_a_reader(args: &[&str]) {
    let file = File::open(args[0]).unwrap();
    let (first, len) = (args[1].parse().unwrap(), args[2].parse().unwrap());
    assert!(!lock(&file, libc::F_WRLCK, first, len), "the kernel lets readers write");
    assert!(lock(&file, libc::F_RDLCK, first, len));
    say("locked");
    stay();
}

fn lock_as_a_writer(args: &[&str]) {
    let file = File::options().read(true).write(true).open(args[0]).unwrap();
    assert!(lock(&file, libc::F_WRLCK, args[1].parse().unwrap(), args[2].parse().unwrap()));
    say("locked");
    stay();
}

/// Locks a file as flock(1) does, which readers can do exclusively.
fn lock_whole(args: &[&str]) {
    let file = File::open(args[0]).unwrap();
    // SAFETY: `flock` wants an open descriptor.
    assert_eq!(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) }, 0);
    say("locked");
    stay();
}

fn stranger(role: &str, path: &Path, first: i64, len: i64) -> ScriptedProcess {
    let actor = ScriptedProcess::start(
        role,
        &[path.to_str().unwrap(), &first.to_string(), &len.to_string()],
    );
    actor.says("locked");
    actor
}

/// The bug: attaching took an exclusive lock on the byte of a slot. A user who could read the file could lock all
/// these bytes shared, and then no process could attach.
#[test]
fn a_user_that_may_only_read_a_space_keeps_no_peer_out() {
    let scratch = Scratch::with(&Scratch::tiny());
    for (first, len) in [(EVIDENCE, 4), (EVIDENCE - 1, TO_THE_END), (0, TO_THE_END)] {
        let reader = stranger("stranger-read", &scratch.path(), first, len);
        let spaces: Vec<_> = (0..4).map(|_| scratch.open()).collect();
        fails!(Space::open(&scratch.url), OpenError::NoPeerSlot { peers: 4 });
        spaces[0].create("x", 4096).unwrap();
        let mapping = spaces[1].map("x", Access::ReadWrite).unwrap();
        drop(mapping.lock().unwrap());
        drop(mapping);
        spaces[2].destroy("x", Destroy::Wait).unwrap();
        fails!(
            Space::remove(&scratch.url, Removal::IfUnused),
            OpenError::InUse { .. } | OpenError::TimedOut { .. }
        );
        drop(spaces);
        reader.kill();
    }
}

/// Locks of a reader prove nothing, neither on bytes of slots nor on others.
#[test]
fn locks_of_processes_that_are_no_peers_do_not_keep_a_space_from_being_removed() {
    let locks = [
        ("stranger-read", EVIDENCE, 4),
        ("stranger-read", EVIDENCE - 1, TO_THE_END),
        ("stranger-write", EVIDENCE + 4, 1),
        ("stranger-write", EVIDENCE + 70_000, TO_THE_END),
        ("stranger-write", 0, 4096),
    ];
    for (role, first, len) in locks {
        let scratch = Scratch::with(&Scratch::tiny());
        let _stranger = stranger(role, &scratch.path(), first, len);
        Space::remove(&scratch.url, Removal::IfUnused).unwrap();
    }
}

/// Only the mode of the file prevents this: readers can block every kind of file lock.
#[test]
fn a_reader_that_locks_the_gate_delays_removers_and_is_named_but_not_openers() {
    let scratch = Scratch::with(&Scratch::tiny());
    let reader = stranger("stranger-read", &scratch.path(), GATE, 1);
    drop(scratch.open());
    let began = Instant::now();
    let refused = Space::remove(&scratch.url, Removal::IfUnused).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TimedOut);
    assert!(began.elapsed() < Duration::from_secs(20), "it waits without an end");
    let text = refused.to_string();
    let process = format!("process {} (", reader.pid());
    for part in [process.as_str(), "of user", "started", "mode 600 or 660"] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    reader.kill();
    Space::remove(&scratch.url, Removal::IfUnused).unwrap();
}

/// Only a process that may write the file can do this, and the error names it.
#[test]
fn a_process_that_locks_all_free_slots_exclusively_is_named() {
    let scratch = Scratch::with(&Scratch::tiny());
    let writer = stranger("stranger-write", &scratch.path(), EVIDENCE, 4);
    let refused = Space::open(&scratch.url).unwrap_err();
    fails!(Err::<(), _>(&refused), OpenError::SlotLocked { by: Some(by), .. } if by.pid == writer.pid());
    assert_eq!(refused.kind(), ErrorKind::InUse);
    writer.kill();
    drop(scratch.open());
}

/// flock(2) takes a lock that this library never looks at.
#[test]
fn flock_on_the_file_has_no_effect() {
    let folder = Folder::in_memory();
    let (path, url) = (folder.0.join("a"), folder.url("a"));
    File::create(&path).unwrap();
    let holder = ScriptedProcess::start("stranger-flock", &[path.to_str().unwrap()]);
    holder.says("locked");
    Space::format(&url, &Scratch::tiny()).unwrap();
    let other = ScriptedProcess::start("stranger-flock", &[path.to_str().unwrap()]);
    other.says("locked");
    drop(Space::open(&url).unwrap());
    Space::remove(&url, Removal::IfUnused).unwrap();
}

/// Maps a file as a user can who may only read it.
fn map_to_read(path: &str) -> (*const u8, usize) {
    let file = File::open(path).unwrap();
    let len = file.metadata().unwrap().len() as usize;
    let null = std::ptr::null_mut();
    // SAFETY: `mmap` wants nothing of a range that it chooses itself.
    let base =
        unsafe { libc::mmap(null, len, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0) };
    assert_ne!(base, libc::MAP_FAILED);
    (base.cast(), len)
}

/// Reads a byte of each page.
fn touch_holes(args: &[&str]) {
    let (base, len) = map_to_read(args[0]);
    for at in (0..len).step_by(4096) {
        // SAFETY: `read_volatile` wants a mapped address: `at` lies within the mapping.
        unsafe { base.wrapping_add(at).read_volatile() };
    }
    say("touched");
    stay();
}

/// Only the mode of the file prevents this: reading a hole of a tmpfs through a shared mapping takes memory.
#[test]
fn a_reader_of_holes_through_a_mapping_takes_memory_and_breaks_nothing_else() {
    let scratch = Scratch::with(&FormatOptions { capacity: Some(8 << 20), ..Scratch::tiny() });
    let space = scratch.open();
    let taken = || scratch.path().metadata().unwrap().blocks() * 512;
    let before = taken();
    let reader = ScriptedProcess::start("stranger-touch", &[scratch.path().to_str().unwrap()]);
    reader.says("touched");
    let after = taken();
    assert!(before < 1 << 20 && after >= 8 << 20, "{before} bytes, then {after}");
    space.create("x", 4 << 20).unwrap();
    space.destroy("x", Destroy::Wait).unwrap();
    space.check().unwrap();
}

/// Sleeps on a word with 8 threads, again and again, so that these take wakes that are meant for others.
fn sleep_on_a_word(args: &[&str]) {
    let (base, _) = map_to_read(args[0]);
    let word = base.wrapping_add(args[1].parse().unwrap()) as usize;
    for _ in 0..8 {
        thread::spawn(move || {
            let word = word as *const u32;
            loop {
                // SAFETY: `read_volatile` wants a mapped address: the mapping stays.
                let seen = unsafe { word.read_volatile() };
                let forever: *const libc::timespec = std::ptr::null();
                // SAFETY: `futex` wants a mapped word, and no time.
                unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAIT, seen, forever) };
            }
        });
    }
    say("asleep");
    stay();
}

/// A futex wakes the first sleeper, also one that may only read. So a waiter for a lock also looks again by itself.
#[test]
fn a_reader_that_swallows_wakes_blocks_no_waiter_for_ever() {
    let scratch = Scratch::with(&Scratch::tiny());
    let space = scratch.open();
    space.create("x", 0).unwrap();
    let file = File::open(scratch.path()).unwrap();
    let mut header = [0; 256];
    file.read_exact_at(&mut header, 0).unwrap();
    let words = header.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
    let claims: Vec<u64> = words.collect();
    let geometry =
        Geometry::check(&claims.try_into().unwrap(), file.metadata().unwrap().len()).unwrap();
    let lock = geometry.region(RegionId::new(0)).unwrap().get() + 8 * region_word::LOCK as u64;
    let path = scratch.path();
    let sleeper =
        ScriptedProcess::start("stranger-sleep", &[path.to_str().unwrap(), &lock.to_string()]);
    sleeper.says("asleep");
    let mapping = space.map("x", Access::ReadWrite).unwrap();
    let neighbour = scratch.open();
    for _ in 0..20 {
        let guard = mapping.lock().unwrap();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let mapping = neighbour.map("x", Access::ReadWrite).unwrap();
                drop(mapping.lock_for(DEADLINE).unwrap());
            });
            until_waiters(&space, "x", 1);
            drop(guard);
            waiter.join().unwrap();
        });
    }
}
