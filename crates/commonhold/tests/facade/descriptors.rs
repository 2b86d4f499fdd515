//! Programs that close descriptors that they do not know, and use their numbers for files of their own.

use std::{
    fs,
    io::{Read, Seek, SeekFrom, Write},
    os::fd::{AsRawFd, RawFd},
    path::Path,
};

use commonhold::{Access, Destroy, LockError, Mapping, PeerLife, Space};

use crate::support::{
    DEADLINE, Folder, Role, SHORT, Scratch, ScriptedProcess, fails, listen, owner_died, say, until,
};

pub(crate) const ROLES: &[Role] = &[
    ("descriptors-holder", hold_without_descriptors),
    ("descriptors-asker", ask_a_strangers_file),
    ("descriptors-fork", fork_with_files_of_its_own),
];

/// What daemons and sandboxes do: everything but the standard streams is closed.
fn close_everything() {
    // SAFETY: `close_range` closes descriptors that this process uses no more, as far as this program knows. That the
    // library has some is the test.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    assert_eq!(closed, 0);
}

/// Files of the program's own, under the numbers that are free now.
struct Files(Vec<fs::File>, Vec<RawFd>);

const TEXT: &[u8] = b"not a space, and nobody's business";

impl Files {
    fn open(folder: &Path) -> Self {
        let open = |number: usize| {
            let path = folder.join(format!("file-{number}"));
            let mut options = fs::File::options();
            let mut file = options.read(true).write(true).create(true).truncate(true).open(path);
            let file = file.as_mut().unwrap();
            // Large enough for a hole to be punched into it.
            file.set_len(32 << 20).unwrap();
            file.write_all(TEXT).unwrap();
            file.try_clone().unwrap()
        };
        let files: Vec<_> = (0..24).map(open).collect();
        let numbers = files.iter().map(AsRawFd::as_raw_fd).collect();
        Self(files, numbers)
    }

    /// Asserts that the library has not closed, locked or changed them.
    fn check(mut self) {
        for (file, number) in self.0.iter_mut().zip(&self.1) {
            assert_eq!(file.as_raw_fd(), *number);
            file.seek(SeekFrom::Start(0)).unwrap();
            let mut text = [0; TEXT.len()];
            file.read_exact(&mut text).unwrap();
            assert_eq!(text, TEXT, "file {number}");
        }
    }
}

fn open(args: &[&str]) -> (Space, Mapping) {
    let space = Space::open(args[0]).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    (space, mapping)
}

fn hold_without_descriptors(args: &[&str]) {
    let (space, mapping) = open(args);
    let guard = mapping.lock().unwrap();
    close_everything();
    let files = Files::open(Path::new(args[1]));
    say("held");
    listen();
    guard.unlock().unwrap();
    // Everything still works: the library finds the file again.
    space.create("of the closed", 1 << 20).unwrap();
    space.destroy("of the closed", Destroy::Wait).unwrap();
    files.check();
    say("freed");
    listen();
}

/// The bug: its lock on the space's file was gone with the descriptors, and so it was taken for dead while it wrote.
#[test]
fn a_holder_that_closes_all_its_descriptors_is_not_taken_for_dead() {
    let (scratch, folder) = (Scratch::formatted(), Folder::new());
    let space = scratch.open();
    space.create("a", 64).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    let files = folder.0.display().to_string();
    let mut actor = ScriptedProcess::start("descriptors-holder", &[&scratch.url, &files]);
    actor.says("held");
    for _ in 0..4 {
        fails!(mapping.lock_for(SHORT), LockError::TimedOut(_));
    }
    assert!(space.reap().unwrap().peers.is_empty());
    assert!(space.peers().unwrap().iter().all(|peer| peer.state == PeerLife::Live));
    actor.tell("go on");
    actor.says("freed");
    drop(mapping.lock_for(DEADLINE).unwrap());
    // And its death is noticed like any other.
    let kept = space.peers().unwrap().len();
    actor.kill();
    until("the dead to be found", || {
        space.reap().unwrap();
        space.peers().unwrap().len() < kept
    });
}

fn ask_a_strangers_file(args: &[&str]) {
    let (space, mapping) = open(args);
    close_everything();
    let files = Files::open(Path::new(args[1]));
    // Each of these looks for evidence of the holder's life.
    for _ in 0..3 {
        fails!(mapping.lock_for(SHORT), LockError::TimedOut(_));
    }
    assert!(space.reap().unwrap().peers.is_empty(), "an innocent was fenced");
    assert!(space.peers().unwrap().iter().all(|peer| peer.state != PeerLife::Dead));
    files.check();
    say("asked");
    listen();
    // It still learns of a death.
    owner_died(mapping.lock_for(DEADLINE));
    say("told");
    listen();
}

/// The bug: the process asked the kernel about locks on a file of its own, found none there, and fenced the living
/// peer.
#[test]
fn a_process_that_lost_its_descriptors_to_other_files_fences_no_living_peer() {
    let (scratch, folder) = (Scratch::formatted(), Folder::new());
    let space = scratch.open();
    space.create("a", 64).unwrap();
    let holder = {
        let spare = folder.0.join("holder");
        fs::create_dir(&spare).unwrap();
        ScriptedProcess::start("descriptors-holder", &[&scratch.url, &spare.display().to_string()])
    };
    holder.says("held");
    let files = folder.0.display().to_string();
    let mut asker = ScriptedProcess::start("descriptors-asker", &[&scratch.url, &files]);
    asker.says("asked");
    holder.kill();
    asker.tell("go on");
    asker.says("told");
    asker.succeed();
}

fn fork_with_files_of_its_own(args: &[&str]) {
    let (space, mapping) = open(args);
    close_everything();
    let files = Files::open(Path::new(args[1]));
    // SAFETY: `fork`; the child looks at its files and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let all_there = files.0.iter().all(|file| file.metadata().is_ok());
        // SAFETY: `_exit` has no requirements.
        unsafe { libc::_exit(i32::from(!all_there)) };
    }
    let mut status = 0;
    // SAFETY: `waitpid` wants a place that it may write.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(status, 0, "the child found its files closed");
    drop(mapping);
    drop(space);
    files.check();
    say("done");
}

/// The bug: the handler that runs in forked children closed any file with a number that was once the library's.
#[test]
fn neither_fork_nor_detach_closes_files_that_reuse_the_librarys_descriptor_numbers() {
    let (scratch, folder) = (Scratch::formatted(), Folder::new());
    scratch.open().create("a", 64).unwrap();
    let files = folder.0.display().to_string();
    let actor = ScriptedProcess::start("descriptors-fork", &[&scratch.url, &files]);
    actor.says("done");
    actor.succeed();
}
