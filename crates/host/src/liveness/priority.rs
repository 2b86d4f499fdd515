//! The scheduling class of the heartbeat thread.
//!
//! When a process is killed, its threads end side by side, and the last of them frees the memory of the process. That
//! takes tens of milliseconds for half a gigabyte. If the last one is the heartbeat thread, a waiter that was just
//! woken by the owner's death may queue behind it for a processor. A heartbeat thread that runs only when no other
//! thread wants the processor (`SCHED_IDLE`) does not delay the waiter.
//!
//! # Invariants
//! 1. A thread becomes idle only if it can become usual again. That needs a right (`CAP_SYS_NICE`, or `RLIMIT_NICE`).
//!    Whether this process has it is tried first, in a thread that ends afterwards.
//! 2. The class changes between usual (`SCHED_OTHER`) and idle only. If the thread has any other class, such as
//!    `SCHED_FIFO`, the program chose it, and it stays.
//! 3. No thread waits for another's trial, since a forked child may not have that other thread: both may try.

use std::{
    sync::atomic::{AtomicU8, Ordering},
    thread,
};

const UNKNOWN: u8 = 0;
const YES: u8 = 1;
const NO: u8 = 2;

/// The scheduling class of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// As threads of programs usually run (`SCHED_OTHER`).
    Usual,
    /// Only when no other thread wants the processor (`SCHED_IDLE`).
    Idle,
}

impl Priority {
    /// Gives this priority to the calling thread, if invariants 1 and 2 allow it.
    pub(crate) fn take(self) {
        // A thread of another class (`SCHED_FIFO`, say) stays in it: the heartbeat thread has it from its program,
        // which chose it.
        let changes = match self {
            Self::Usual => policy() == libc::SCHED_IDLE,
            Self::Idle => policy() == libc::SCHED_OTHER && may_return(),
        };
        if changes {
            set(self);
        }
    }
}

/// The class of the calling thread. A direct system call, here and in [`set_policy`]: musl's functions of these names
/// only fail.
fn policy() -> libc::c_int {
    // SAFETY: the call wants a thread (0: this one).
    let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) };
    libc::c_int::try_from(policy).unwrap_or(-1)
}

fn set_policy(policy: libc::c_int) -> bool {
    // The kernel's `struct sched_param` is this one number; musl's has more fields.
    let priority: libc::c_int = 0;
    // SAFETY: the call wants a thread (0: this one) and parameters to read.
    unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const priority) == 0 }
}

fn set(priority: Priority) -> bool {
    set_policy(match priority {
        Priority::Usual => libc::SCHED_OTHER,
        Priority::Idle => libc::SCHED_IDLE,
    })
}

/// Whether a thread of this process that has become idle may become usual again.
fn may_return() -> bool {
    static MAY: AtomicU8 = AtomicU8::new(UNKNOWN);
    // Relaxed, here and below: the value says nothing about other memory.
    match MAY.load(Ordering::Relaxed) {
        YES => return true,
        NO => return false,
        _ => {}
    }
    let tried = thread::Builder::new()
        .name("commonhold-try".into())
        .spawn(|| set(Priority::Idle) && set(Priority::Usual));
    let may = tried.is_ok_and(|tried| tried.join().unwrap_or(false));
    MAY.store(if may { YES } else { NO }, Ordering::Relaxed);
    may
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_becomes_idle_can_become_usual_again() {
        thread::spawn(|| {
            let before = policy();
            Priority::Idle.take();
            let idle = policy() == libc::SCHED_IDLE;
            assert_eq!(idle, may_return());
            Priority::Usual.take();
            assert_eq!(policy(), if idle { libc::SCHED_OTHER } else { before });
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_thread_of_another_class_stays_in_it() {
        thread::spawn(|| {
            assert!(set_policy(libc::SCHED_BATCH));
            for priority in [Priority::Idle, Priority::Usual] {
                priority.take();
                assert_eq!(policy(), libc::SCHED_BATCH);
            }
        })
        .join()
        .unwrap();
    }
}
