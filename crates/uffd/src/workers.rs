//! The threads of the machine: how they start, who they are, and how they end.
//!
//! # What it owns
//! The list of the running threads with the kernel's number of each, and the signal that ends the clock.
//!
//! # Invariants
//! 1. A thread is on the list of numbers before it does any work. So a fault of one of them is known as such.
//! 2. A thread takes no signals: it inherits the mask of the thread that starts it, which blocks all of them.
//! 3. After [`join`](Workers::join) no thread of the list runs, and none is started.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use commonhold_host::SignalMask;
use parking_lot::{Condvar, Mutex};

/// The threads.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    state: Mutex<State>,
    stopped: Condvar,
}

#[derive(Debug, Default)]
struct State {
    running: Vec<JoinHandle<()>>,
    /// The kernel's number of each thread, and its name.
    known: Vec<(u32, &'static str)>,
    stopped: bool,
}

impl Workers {
    /// Starts a thread.
    pub(crate) fn start(
        self: &Arc<Self>,
        name: &'static str,
        run: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let thread = thread::Builder::new().name(name.to_owned());
        let workers = Arc::clone(self);
        let mask = SignalMask::block_all();
        let thread = thread.spawn(move || {
            let number = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
            workers.state.lock().known.push((number, name));
            run();
        });
        drop(mask);
        self.state.lock().running.push(thread?);
        Ok(())
    }

    /// The name of the thread with this number, if it is one of these.
    pub(crate) fn name(&self, number: u32) -> Option<&'static str> {
        let state = self.state.lock();
        let known = state.known.iter().find(|(known, _)| *known == number)?;
        Some(known.1)
    }

    /// Waits for `pause`; `false` if the threads are to end.
    pub(crate) fn pause(&self, pause: Duration) -> bool {
        let mut state = self.state.lock();
        self.stopped.wait_while_for(&mut state, |state| !state.stopped, pause);
        !state.stopped
    }

    /// Ends the pauses.
    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.stopped.notify_all();
    }

    /// Waits until all threads have ended. Each may start others until it ends itself.
    pub(crate) fn join(&self) {
        while let Some(thread) = self.pop() {
            // A thread that panicked has printed its message.
            let _ = thread.join();
        }
    }

    /// Forgets the threads: a forked child has none of them.
    pub(crate) fn forget(&self) {
        while let Some(thread) = self.pop() {
            std::mem::forget(thread);
        }
    }

    fn pop(&self) -> Option<JoinHandle<()>> {
        self.state.lock().running.pop()
    }
}
