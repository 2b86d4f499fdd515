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

/// Makes the slot at `at` ready for the calling thread, as `ThreadSlot` does. Returns whether its word is armed.
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
fn a_disarmed_word_is_not_marked() {
    let (_scratch, platform) = scene();
    in_thread(&platform, |platform| {
        assert!(ready(platform, at(1)));
        platform.disarm(at(1));
    });
    assert!(life(&platform, at(1)).is_ready());
    // Nor is one after `disarm_all`, which another thread may call.
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
    assert!(!ready(&platform, at(3)), "no word can be armed after that");
}

/// A robust mutex: the C library uses the same field for it as we do.
mod robust {
    use std::{cell::UnsafeCell, mem};

    pub(super) struct Mutex(UnsafeCell<libc::pthread_mutex_t>);

    // SAFETY: a pthread mutex is made to be used by several threads.
    unsafe impl Sync for Mutex {}
    // SAFETY: as above; it is not moved while it is in use.
    unsafe impl Send for Mutex {}

    impl Mutex {
        pub(super) fn new() -> Box<Self> {
            // SAFETY: `zeroed` wants a type for which all zeros are a value: it is integers, and overwritten by its
            // initialiser before any other use.
            let mutex: libc::pthread_mutex_t = unsafe { mem::zeroed() };
            // SAFETY: as above.
            let mut attributes: libc::pthread_mutexattr_t = unsafe { mem::zeroed() };
            let mutex = Box::new(Self(UnsafeCell::new(mutex)));
            let robust = libc::PTHREAD_MUTEX_ROBUST;
            // SAFETY: the call wants an object of its own.
            unsafe { libc::pthread_mutexattr_init(&raw mut attributes) };
            // SAFETY: the call wants an object that was initialised.
            unsafe { libc::pthread_mutexattr_setrobust(&raw mut attributes, robust) };
            // SAFETY: the call wants an object of its own, at an address that stays.
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

/// If the thread uses a robust mutex later, the C library overwrites the field and leaves it null. So the word of a
/// dead thread may be unmarked: there must be other proof, and robust mutexes must work as usual.
#[test]
fn a_thread_that_uses_a_robust_mutex_later_ends_unmarked_but_with_other_proof() {
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
    assert!(life(&platform, at(1)).is_ready(), "the field no longer pointed to the word");
    let me = record(platform.identity(), Evidence::PROCESS);
    let tid = told.recv().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !platform.thread_has_ended(&me, tid) {
        assert!(Instant::now() < deadline);
    }
}

#[test]
fn a_thread_that_holds_a_robust_mutex_can_be_armed() {
    let (_scratch, platform) = scene();
    let mutex: &'static robust::Mutex = Box::leak(robust::Mutex::new());
    in_thread(&platform, move |platform| {
        assert_eq!(mutex.lock(), 0);
        assert!(ready(platform, at(1)), "the field is null between operations");
    });
    until_dead(&platform, at(1));
    assert_eq!(mutex.lock(), libc::EOWNERDEAD);
}

#[test]
fn a_thread_in_two_spaces_is_armed_in_the_first_while_that_is_open() {
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

/// A thread that ends long after its space was closed must not mark a word at the same address, neither in other
/// memory nor in the row of another space: that would mark a living thread as dead.
#[test]
fn addresses_of_closed_spaces_are_never_used_for_other_memory() {
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
    // Other memory, which the allocator would put where the alias was, if it could.
    let pages: Vec<_> = (0..64).map(|_| vec![u64::MAX; 1024]).collect();
    // Another space reuses the addresses as an alias; the words there belong to other threads.
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
fn opening_and_closing_spaces_repeatedly_does_not_use_up_addresses() {
    let (_scratch, keep) = scene();
    let (stay, stays) = std::sync::mpsc::channel::<()>();
    let path = keep.mapped().path().to_owned();
    // More often than there are ranges for aliases.
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
        // The end of the child must not be taken for the end of its parent's thread.
        // SAFETY: `_exit` has no requirements.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: `waitpid` wants a status that it may write.
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
