//! Signals, whose handlers may touch memory of a space.

use super::{
    scripted_process::{ScriptedProcess, say},
    *,
};
use std::sync::atomic::AtomicPtr;

/// How often each page is touched.
const ROUNDS: usize = 50;
const PAGES: u64 = 16;

/// The word that the handler touches next.
static WORD: AtomicPtr<u64> = AtomicPtr::new(std::ptr::null_mut());
static HANDLED: AtomicU64 = AtomicU64::new(0);

/// A handler that ran in the thread that reads faults touched a page that was not in memory, and waited for that
/// thread: itself. All other threads that faulted waited too.
#[test]
fn a_handler_that_touches_managed_memory_never_runs_in_a_thread_of_the_machine() {
    let Some(_) = start(budget(100)) else { return };
    let mut child = ScriptedProcess::play("signals");
    let said = child.hear();
    assert!(child.wait().success(), "a handler ran in a thread of the machine");
    assert_eq!(said.as_deref(), Some("all handled"));
}

extern "C" fn touch(_: i32) {
    let mut name = [0_u8; 16];
    // SAFETY: `PR_GET_NAME` wants room for 16 bytes.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    if name.starts_with(b"commonhold-") {
        // SAFETY: `_exit` has no requirement, and may be called in a handler.
        unsafe { libc::_exit(3) };
    }
    let word = WORD.load(Ordering::Relaxed);
    if !word.is_null() {
        // SAFETY: `from_ptr` wants a pointer to an aligned word that lives and is used as an atomic only: it is a word
        // of the window, which lives until no more signals are sent.
        unsafe { AtomicU64::from_ptr(word) }.fetch_add(1, Ordering::Relaxed);
    }
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

/// The threads of the machine: their ids, and the sets of signals that they block.
fn machine_threads() -> Vec<(i32, u64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc/self/task").unwrap() {
        let path = entry.unwrap().path();
        if !std::fs::read_to_string(path.join("comm")).unwrap().starts_with("commonhold-") {
            continue;
        }
        let status = std::fs::read_to_string(path.join("status")).unwrap();
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
        let id = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        found.push((id, u64::from_str_radix(blocked.trim(), 16).unwrap()));
    }
    found
}

/// Sends signals to the threads of the machine, and many to the process.
pub(super) fn touch_in_handlers() {
    let paging = start(budget(100)).unwrap();
    let manager = paging.manager();
    let object = manager.object(Kind::Anonymous, Pages(PAGES), pager_of(&file_in_memory()));
    let object = object.unwrap();
    let space = paging.space(Pages(PAGES)).unwrap();
    space.map(&object, fixed(0, PAGES)).unwrap();
    // SAFETY: `signal` wants a handler that does only what is safe in one: atomics and system calls.
    unsafe { libc::signal(libc::SIGUSR1, touch as *const () as libc::sighandler_t) };

    let process = std::process::id().cast_signed();
    // A thread sets its name itself, so the six may take a moment.
    let threads = loop {
        let threads = machine_threads();
        if threads.len() == 6 {
            break threads;
        }
        std::thread::yield_now();
    };
    for (thread, blocked) in threads {
        // SAFETY: `syscall` wants the arguments of the call: of `tgkill`, three numbers.
        unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGUSR1) };
        assert_ne!(blocked & (1 << (libc::SIGUSR1 - 1)), 0, "thread {thread}: {blocked:x}");
    }
    let mut sent = 0;
    for _ in 0..ROUNDS {
        // A page whose fault is still being finished stays.
        manager.page_out(Pages(PAGES));
        for page in 0..PAGES {
            WORD.store(word(&space, page, 1).as_ptr(), Ordering::Relaxed);
            // SAFETY: `kill` has no requirement.
            unsafe { libc::kill(process, libc::SIGUSR1) };
            sent += 1;
            while HANDLED.load(Ordering::Relaxed) < sent {
                std::thread::yield_now();
            }
        }
    }
    for page in 0..PAGES {
        assert_eq!(get(&space, page), ROUNDS as u64);
    }
    say("all handled");
}
