//! Life words that the kernel marks, with real threads.

use super::scripted_process::*;
use crate::{LinuxPlatform, scratch::Scratch};
use commonhold_layout::{Evidence, Extent, Offset, ThreadLife};
use commonhold_space::{BackingMemory, LivenessEvidence};
use commonhold_window::atomic::Ordering;
use std::{
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

const ROW: u64 = 4096;
const CLAIMED: ThreadLife = ThreadLife::from_word(7 << 32);

fn row() -> Extent {
    Extent::new(ROW, 4096).unwrap()
}

fn at(index: u64) -> Offset {
    Offset::new(ROW + 128 * index).unwrap()
}

fn scene() -> (Scratch, Arc<LinuxPlatform>) {
    let scratch = Scratch::new();
    drop(scratch.window("space", 3 * 4096));
    let platform = platform(&scratch.path("space"));
    platform.commit(Extent::new(0, 3 * 4096).unwrap()).unwrap();
    (scratch, Arc::new(platform))
}

fn life(platform: &LinuxPlatform, at: Offset) -> ThreadLife {
    let word = platform.mapped().window().word(at).unwrap();
    ThreadLife::from_word(word.load(Ordering::SeqCst))
}

/// Makes the calling thread ready in the slot at `at`, as `sync` does. Returns whether its word is armed.
fn ready(platform: &LinuxPlatform, at: Offset) -> bool {
    let word = platform.mapped().window().word(at).unwrap();
    let claimed = CLAIMED.claimed(crate::thread_id()).unwrap();
    word.store(claimed.word(), Ordering::SeqCst);
    let armed = platform.arm(row(), at);
    let ready = if armed { claimed.armed() } else { claimed.unarmed() };
    word.store(ready.word(), Ordering::SeqCst);
    armed
}

fn until_dead(platform: &LinuxPlatform, at: Offset) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !life(platform, at).is_vacant() {
        assert!(Instant::now() < deadline, "{:?}", life(platform, at));
        thread::yield_now();
    }
}

fn in_thread(platform: &Arc<LinuxPlatform>, body: impl FnOnce(&LinuxPlatform) + Send + 'static) {
    let platform = Arc::clone(platform);
    thread::spawn(move || body(&platform)).join().unwrap();
}

#[test]
fn the_kernel_marks_the_word_of_a_thread_that_ends_and_no_other() {
    let (_scratch, platform) = scene();
    assert!(ready(&platform, at(0)));
    in_thread(&platform, |platform| assert!(ready(platform, at(1))));
    until_dead(&platform, at(1));
    assert_eq!(life(&platform, at(1)).incarnation(), 8);
    assert!(life(&platform, at(0)).is_ready());
    platform.disarm(at(0));
}

#[test]
fn a_thread_that_gave_its_word_back_marks_nothing() {
    let (_scratch, platform) = scene();
    in_thread(&platform, |platform| {
        assert!(ready(platform, at(1)));
        platform.disarm(at(1));
    });
    assert!(life(&platform, at(1)).is_ready());
    // Nor does a thread after `disarm_all`.
    let other = Arc::clone(&platform);
    let (armed, is_armed) = std::sync::mpsc::channel();
    let (go, goes) = std::sync::mpsc::channel::<()>();
    let late = thread::spawn(move || {
        armed.send(ready(&other, at(2))).unwrap();
        let _ = goes.recv();
    });
    assert!(is_armed.recv().unwrap());
    platform.disarm_all();
    drop(go);
    late.join().unwrap();
    assert!(life(&platform, at(2)).is_ready());
    assert!(!ready(&platform, at(3)), "none is armed after that");
}

/// A robust mutex. For it, the C library uses the same field of a thread that arming uses.
mod robust {
    use std::{cell::UnsafeCell, mem};

    pub(super) struct Mutex(UnsafeCell<libc::pthread_mutex_t>);

    // SAFETY: a pthread mutex may be used by several threads.
    unsafe impl Sync for Mutex {}
    // SAFETY: as above; it is not moved while it is in use.
    unsafe impl Send for Mutex {}

    impl Mutex {
        pub(super) fn new() -> Box<Self> {
            // SAFETY: `zeroed` wants a type for which all zeros are a value: this one consists of integers, and its
            // initialiser overwrites it before any other use.
            let mutex: libc::pthread_mutex_t = unsafe { mem::zeroed() };
            // SAFETY: as above.
            let mut attributes: libc::pthread_mutexattr_t = unsafe { mem::zeroed() };
            let mutex = Box::new(Self(UnsafeCell::new(mutex)));
            let robust = libc::PTHREAD_MUTEX_ROBUST;
            // SAFETY: the call wants an object that is not in use.
            unsafe { libc::pthread_mutexattr_init(&raw mut attributes) };
            // SAFETY: the call wants an object that was initialised.
            unsafe { libc::pthread_mutexattr_setrobust(&raw mut attributes, robust) };
            // SAFETY: the call wants an object that is not in use, at an address that stays.
            unsafe { libc::pthread_mutex_init(mutex.0.get(), &raw const attributes) };
            mutex
        }

        pub(super) fn lock(&self) -> i32 {
            // SAFETY: it was initialised.
            unsafe { libc::pthread_mutex_lock(self.0.get()) }
        }

        pub(super) fn unlock(&self) {
            // SAFETY: as above.
            unsafe { libc::pthread_mutex_unlock(self.0.get()) };
        }
    }
}

/// A thread that ends and is not marked: the C library has used the field for a robust mutex, and left it empty. Then
/// there must be other proof of its death, and robust mutexes must work as usual.
#[test]
fn a_robust_mutex_used_later_works_and_there_is_other_proof_of_death() {
    let (_scratch, platform) = scene();
    let mutex: &'static robust::Mutex = Box::leak(robust::Mutex::new());
    let (tell, told) = std::sync::mpsc::channel();
    in_thread(&platform, move |platform| {
        assert!(ready(platform, at(1)));
        assert_eq!(mutex.lock(), 0);
        mutex.unlock();
        assert_eq!(mutex.lock(), 0);
        tell.send(crate::thread_id()).unwrap();
    });
    assert_eq!(mutex.lock(), libc::EOWNERDEAD, "the C library's own list still works");
    assert!(life(&platform, at(1)).is_ready(), "the kernel knew nothing of the word any more");
    let me = record(platform.identity(), Evidence::PROCESS);
    let tid = told.recv().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !platform.thread_has_ended(&me, tid) {
        assert!(Instant::now() < deadline);
    }
}

#[test]
fn a_thread_that_works_on_a_robust_mutex_of_its_own_can_be_armed_afterwards() {
    let (_scratch, platform) = scene();
    let mutex: &'static robust::Mutex = Box::leak(robust::Mutex::new());
    in_thread(&platform, move |platform| {
        assert_eq!(mutex.lock(), 0);
        assert!(ready(platform, at(1)), "the field is empty between operations");
    });
    until_dead(&platform, at(1));
    assert_eq!(mutex.lock(), libc::EOWNERDEAD);
}

#[test]
fn a_thread_in_two_spaces_is_armed_in_the_first_as_long_as_that_is_open() {
    let ((_one, first), (_two, second)) = (scene(), scene());
    let (other, another) = (Arc::clone(&first), Arc::clone(&second));
    let (armed, is_armed) = std::sync::mpsc::channel();
    let (go, goes) = std::sync::mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        armed.send((ready(&other, at(1)), ready(&another, at(1)))).unwrap();
        let _ = goes.recv();
        armed.send((false, ready(&another, at(2)))).unwrap();
    });
    assert_eq!(is_armed.recv().unwrap(), (true, false));
    first.disarm_all();
    go.send(()).unwrap();
    assert_eq!(is_armed.recv().unwrap(), (false, true), "the first is closed");
    thread.join().unwrap();
    until_dead(&second, at(2));
    assert!(life(&second, at(1)).is_ready(), "never armed, never marked");
    assert!(life(&first, at(1)).is_ready());
}

/// A false mark, prevented: a thread that ends long after its space was closed must not mark a word that lies at the
/// same address by then.
#[test]
fn addresses_of_closed_spaces_are_never_other_memory() {
    let (_scratch, first) = scene();
    let other = Arc::clone(&first);
    let (armed, is_armed) = std::sync::mpsc::channel();
    let (go, goes) = std::sync::mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        armed.send(ready(&other, at(1))).unwrap();
        drop(other);
        let _ = goes.recv();
        crate::thread_id()
    });
    assert!(is_armed.recv().unwrap());
    drop(first);
    // Try to map other memory where the window was.
    let pages: Vec<_> = (0..64).map(|_| vec![u64::MAX; 1024]).collect();
    // Another space may take the same addresses; its words belong to other threads.
    let (_again, second) = scene();
    assert!(ready(&second, at(0)));
    let word = second.mapped().window().word(at(1)).unwrap();
    let stranger = CLAIMED.claimed(u32::MAX).unwrap().armed();
    word.store(stranger.word(), Ordering::SeqCst);
    drop(go);
    thread.join().unwrap();
    assert_eq!(life(&second, at(1)), stranger);
    assert!(pages.iter().flatten().all(|word| *word == u64::MAX));
    second.disarm(at(0));
}

#[test]
fn spaces_opened_and_closed_again_and_again_use_up_no_addresses() {
    let (_scratch, keep) = scene();
    let (stay, stays) = std::sync::mpsc::channel::<()>();
    let path = keep.mapped().path().to_owned();
    // More rounds than there is room for addresses.
    let opened = thread::spawn(move || {
        for round in 0..1500 {
            let platform = LinuxPlatform::new(open(&path).unwrap()).unwrap();
            assert!(ready(&platform, at(1)), "round {round}");
        }
        drop(stays);
    });
    drop(stay);
    opened.join().unwrap();
}

pub(super) fn fork_armed(path: &Path) {
    let platform = platform(path);
    assert!(ready(&platform, at(1)));
    // SAFETY: `fork` in a program with one other thread, which is idle; the child only ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // The child of `fork` ends, and that must not count as its parent's end.
        // SAFETY: `_exit` has no requirement.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: `waitpid` wants room for the status: it is a local.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert!(life(&platform, at(1)).is_ready());
    say("forked");
    wait_for_the_end();
}

#[test]
fn the_end_of_a_forked_child_is_not_the_end_of_its_parents_thread() {
    let (_scratch, observer) = scene();
    let path = observer.mapped().path().to_owned();
    let mut actor = ScriptedProcess::play("fork-armed", &path);
    assert_eq!(actor.hear().as_deref(), Some("forked"));
    assert!(life(&observer, at(1)).is_ready());
    actor.kill();
    until_dead(&observer, at(1));
}
