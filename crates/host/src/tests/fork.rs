//! A forked child has nothing of its parent's spaces, and knows that.

use super::scripted_process::*;
use crate::{ForkGuard, LinuxPlatform, scratch::Scratch};
use commonhold_layout::{Evidence, Extent};
use commonhold_space::{BackingMemory, BackingMemoryError, EvidenceLock, LivenessEvidence};
use commonhold_sync::Verdict;
use rustix::process::{Pid, Signal, getpid, kill_process, test_kill_process, waitpid};
use std::{
    fs::File,
    io::{Read, Write},
    os::fd::AsRawFd,
    path::Path,
};

/// How a process is made.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    /// By the C library, with its handlers.
    Library,
    /// By the kernel's call, without handlers.
    Kernel,
}

/// Runs `body` in a child, whose exit status is the answer.
fn fork(way: Way, body: impl FnOnce() -> bool) -> Pid {
    let pid = match way {
        // SAFETY: `fork` wants a child that needs no other thread: `body` does no more than allocate, which the C
        // library allows, and the child ends by `_exit`.
        Way::Library => unsafe { libc::fork() },
        Way::Kernel => {
            // SAFETY: as above; with these arguments `clone` makes a process with a copy of this one's memory.
            let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
            i32::try_from(pid).unwrap()
        }
    };
    assert!(pid >= 0);
    let Some(child) = Pid::from_raw(pid) else {
        let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        // SAFETY: `_exit` has no requirement.
        unsafe { libc::_exit(i32::from(!matches!(answer, Ok(true)))) };
    };
    child
}

fn succeeds(child: Pid) -> bool {
    let (_, status) = waitpid(Some(child), rustix::process::WaitOptions::empty()).unwrap().unwrap();
    status.exit_status() == Some(0)
}

/// A child of a scripted process: prints its own id, and then lives until it is killed.
pub(super) struct Orphan(Pid);

impl Orphan {
    pub(super) fn heard(actor: &mut ScriptedProcess) -> Self {
        let said = actor.hear().expect("the child has ended");
        Self(Pid::from_raw(said.parse().unwrap()).unwrap())
    }

    pub(super) fn is_alive(&self) -> bool {
        test_kill_process(self.0).is_ok()
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

pub(super) fn hold_and_fork(path: &Path, way: Way) {
    let platform = hold(path);
    let (mut ready, mut tell) = std::io::pipe().unwrap();
    let child = fork(way, || {
        tell.write_all(b"x").unwrap();
        loop {
            // SAFETY: `pause` has no requirement.
            unsafe { libc::pause() };
        }
    });
    // Wait until the child's handlers have run.
    ready.read_exact(&mut [0]).unwrap();
    say(&child.as_raw_nonzero().to_string());
    introduce(&platform);
    wait_for_the_end();
}

#[test]
fn dropping_in_a_child_affects_neither_the_parent_nor_the_child() {
    let scratch = Scratch::new();
    drop(scratch.window("space", 8192));
    ScriptedProcess::play("drop", &scratch.path("space")).succeed();
}

/// In the child, the addresses of the window and the numbers of the descriptors have another use.
fn child_drops(platform: LinuxPlatform, base: *mut libc::c_void, scratch: &Path) -> bool {
    assert!(platform.is_forked_child());
    let commit = platform.commit(Extent::new(0, 4096).unwrap());
    assert!(matches!(commit, Err(BackingMemoryError::Failed { .. })));
    assert!(platform.publish(SLOT, EvidenceLock::Alone).is_err());
    platform.withdraw(SLOT);
    let me = record(platform.identity(), Evidence::OFD_LOCK.with(Evidence::PROCESS));
    assert_eq!(platform.verdict(&me, false, 1), Verdict::Suspect);
    assert!(platform.mapped().file().is_none());

    // SAFETY: `mmap` with MAP_FIXED_NOREPLACE replaces nothing.
    let here = unsafe {
        libc::mmap(
            base,
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
            -1,
            0,
        )
    };
    assert_eq!(here, base, "the parent's window is mapped in the child");
    let files: Vec<File> = (0..8).map(|_| File::open(scratch).unwrap()).collect();
    drop(platform);
    // SAFETY: the page was mapped above; if the drop has unmapped it, this is what shows.
    unsafe { base.cast::<u8>().write_volatile(1) };
    // SAFETY: F_GETFD wants nothing of the descriptor, not even that it is open.
    files.iter().all(|file| unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFD) } != -1)
}

pub(super) fn drop_in_a_child(path: &Path) {
    let mut platform = Some(hold(path));
    let observer = super::scripted_process::platform(path);
    let me = platform.as_ref().unwrap().identity();
    let window = platform.as_ref().unwrap().mapped().window();
    let base = window.pointer(Extent::EMPTY).unwrap().as_ptr().cast();
    for way in [Way::Library, Way::Kernel] {
        let child = fork(way, || child_drops(platform.take().unwrap(), base, path));
        assert!(succeeds(child), "{way:?}");
        let alive = observer.verdict(&record(me, Evidence::OFD_LOCK), false, 0);
        assert_eq!(alive, Verdict::Alive, "{way:?}");
    }
}

#[test]
fn a_child_and_its_children_know_that_they_are_forked_however_they_were_made() {
    let scratch = Scratch::new();
    drop(scratch.window("space", 8192));
    ScriptedProcess::play("nest", &scratch.path("space")).succeed();
}

pub(super) fn nest(path: &Path) {
    for way in [Way::Library, Way::Kernel] {
        let mine = ForkGuard::new().unwrap();
        let parent = getpid();
        let child = fork(way, || {
            assert_ne!(getpid(), parent);
            assert!(mine.is_forked_child());
            let child_s = hold(path);
            assert!(!child_s.is_forked_child());
            assert!(mine.is_forked_child(), "also when the child has made something");
            let first = fork(way, || {
                // Nothing is made here, so only the wiped page can tell.
                mine.is_forked_child() && child_s.is_forked_child()
            });
            let second = fork(way, || {
                let own = ForkGuard::new().unwrap();
                !own.is_forked_child() && mine.is_forked_child() && child_s.is_forked_child()
            });
            succeeds(first) && succeeds(second) && !child_s.is_forked_child()
        });
        assert!(succeeds(child), "{way:?}");
        assert!(!mine.is_forked_child());
    }
}
