//! A thread that calls a short function periodically, without disturbing the program.
//!
//! # What it owns
//! The thread. [`quiet`](HeartbeatThread::quiet) stops the calls, and dropping the [`HeartbeatThread`] ends the
//! thread; both wait until that is done.
//!
//! # Invariants
//! 1. The thread takes no signals: those of the process go to the threads of the program, which may be
//!    waiting for them.
//! 2. After the drop, nothing that the thread was given is in use any more.
//! 3. A forked child has no such thread, and does not wait for it.
//! 4. The thread keeps the evidence of its process in a descriptor table of its own, where that is possible: a program
//!    may close every descriptor that it does not know (`close_range`), which closes those of the process's table
//!    only. The thread keeps that table until it ends: also while it is quiet, since the peer is then still detaching.

use std::{
    convert::Infallible,
    io, mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use commonhold_layout::DeathFutex;
use commonhold_window::atomic::AtomicU64;

use super::{priority::Priority, process::thread_id, robust_list::RobustList};
use crate::{fork::ForkGuard, liveness::signal_mask::SignalMask};

/// Bytes of stack: enough to read `/proc`, and little to reserve.
const STACK: usize = 256 << 10;

/// A thread that calls a function periodically.
#[derive(Debug)]
pub struct HeartbeatThread {
    orders: Arc<Orders>,
    thread: Option<JoinHandle<()>>,
    guard: ForkGuard,
}

/// What the thread is told to do, and its answer.
#[derive(Debug, Default)]
struct Orders {
    be_quiet: AtomicBool,
    is_quiet: AtomicBool,
    end: AtomicBool,
}

/// What the thread does when it starts and when it ends, with the keeper `K` that it was given.
#[derive(Debug)]
pub struct Setup<K> {
    /// The word of the peer's death futex, which fires when the thread ends; `None` if there is none.
    pub death_futex: fn(&K) -> Option<&AtomicU64>,
    /// Moves the thread to a descriptor table of its own, in which it keeps the evidence of the process. Returns
    /// whether that worked.
    pub keep_evidence: fn(&K) -> bool,
    /// Closes that evidence, if the thread keeps it: the last thing that the thread does.
    pub let_go: fn(&K),
}

impl HeartbeatThread {
    /// Starts a thread that calls `beat` after the time `first.0`. Each call returns how long the thread then sleeps,
    /// and with which priority it goes on. Until the thread is quiet, the kernel marks its death futex if it ends.
    ///
    /// # Errors
    /// That of starting a thread, or of `pthread_atfork`.
    pub fn start<K: Send + 'static>(
        first: (Duration, Priority),
        keeper: K,
        setup: Setup<K>,
        beat: impl Fn(&K) -> (Duration, Priority) + Send + 'static,
    ) -> io::Result<Self> {
        let guard = ForkGuard::made_here()?;
        let orders = Arc::new(Orders::default());
        let ordered = Arc::clone(&orders);
        let (hangs, hung) = mpsc::channel::<Infallible>();
        let starter = thread::current();
        let body = move || {
            let death_futex = DeathFutex::of_thread(thread_id());
            let keeps = (setup.keep_evidence)(&keeper);
            let death_futex = if keeps { death_futex.keeping_evidence() } else { death_futex };
            // Without a death futex, waiters look for evidence from time to time.
            let hung = (setup.death_futex)(&keeper)
                .and_then(|word| RobustList::at(word, death_futex).ok());
            drop(hangs);
            let (mut pause, mut priority) = first;
            if priority == Priority::Idle {
                priority.take();
            }
            loop {
                thread::park_timeout(pause);
                // Acquire: pairs with the Release in `quiet`.
                if ordered.be_quiet.load(Ordering::Acquire) {
                    break;
                }
                let (next, wanted) = beat(&keeper);
                pause = next;
                if wanted != priority {
                    priority = wanted;
                    priority.take();
                }
            }
            drop(hung);
            // Release: pairs with the Acquire in `quiet`.
            ordered.is_quiet.store(true, Ordering::Release);
            starter.unpark();
            // Acquire: pairs with the Release in `drop`.
            while !ordered.end.load(Ordering::Acquire) {
                thread::park();
            }
            (setup.let_go)(&keeper);
        };
        let builder = thread::Builder::new().name("commonhold-heart".into()).stack_size(STACK);
        // The new thread inherits the mask, so it can take no signal at any time.
        let mask = SignalMask::block_all();
        let thread = builder.spawn(body);
        drop(mask);
        let thread = thread?;
        // Waits until the death futex is registered, so that no thread waits for this process before. Nothing is ever
        // sent: the thread drops its end of the channel.
        let _ = hung.recv();
        Ok(Self { orders, thread: Some(thread), guard })
    }

    /// Makes the thread take down its death futex and call nothing more. It goes on keeping the evidence of the
    /// process.
    pub fn quiet(&mut self) {
        let Some(thread) = self.thread.as_ref().filter(|_| !self.guard.is_forked_child()) else {
            return;
        };
        // Release: pairs with the Acquire in the thread's loop.
        self.orders.be_quiet.store(true, Ordering::Release);
        thread.thread().unpark();
        // The thread answers at once, unless it is at work. The pause has a limit, since the thread unparks the one
        // that started it, which need not be the caller. Acquire: pairs with the Release of `is_quiet`.
        while !self.orders.is_quiet.load(Ordering::Acquire) && !thread.is_finished() {
            thread::park_timeout(Duration::from_millis(1));
        }
    }
}

impl Drop for HeartbeatThread {
    fn drop(&mut self) {
        self.quiet();
        let Some(thread) = self.thread.take() else { return };
        if self.guard.is_forked_child() {
            // The thread is the parent's: the child can neither join nor detach it.
            mem::forget(thread);
            return;
        }
        // Release: pairs with the Acquire at the end of the thread.
        self.orders.end.store(true, Ordering::Release);
        thread.thread().unpark();
        // An error would be a panic of the thread, which has been reported.
        let _ = thread.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr;

    const HOUR: (Duration, Priority) = (Duration::from_secs(3600), Priority::Usual);
    const SETUP: Setup<()> =
        Setup { death_futex: |()| None, keep_evidence: |()| false, let_go: |()| () };

    #[test]
    fn it_beats_until_it_is_dropped_and_takes_no_signal() {
        let (sender, beats) = mpsc::channel();
        let heartbeat =
            HeartbeatThread::start((Duration::ZERO, Priority::Usual), (), SETUP, move |()| {
                // SAFETY: `zeroed` wants a type for which zeros are a value: a set of signals is bits.
                let mut mask: libc::sigset_t = unsafe { mem::zeroed() };
                // SAFETY: `pthread_sigmask` wants two sets, or null; with nothing to set, it only reports.
                unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &raw mut mask) };
                // SAFETY: `sigismember` wants an initialised set.
                let blocked = unsafe { libc::sigismember(&raw const mask, libc::SIGTERM) };
                sender.send(blocked).unwrap();
                (Duration::from_millis(1), Priority::Idle)
            })
            .unwrap();
        for _ in 0..3 {
            assert_eq!(beats.recv().unwrap(), 1);
        }
        drop(heartbeat);
        // The sender is gone with the thread.
        while beats.try_recv().is_ok() {}
        assert_eq!(beats.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }

    #[test]
    fn starting_one_does_not_change_the_signal_mask_of_the_caller() {
        let heartbeat = HeartbeatThread::start(HOUR, (), SETUP, |()| HOUR).unwrap();
        // SAFETY: `zeroed` wants a type for which zeros are a value: a set of signals is bits.
        let mut mask: libc::sigset_t = unsafe { mem::zeroed() };
        // SAFETY: `pthread_sigmask` wants two sets, or null; with nothing to set, it only reports.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &raw mut mask) };
        // SAFETY: `sigismember` wants an initialised set.
        assert_eq!(unsafe { libc::sigismember(&raw const mask, libc::SIGTERM) }, 0);
        // The drop does not wait for the hour.
        drop(heartbeat);
    }
}
