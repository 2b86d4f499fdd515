//! Warns when the space in use is removed or replaced: other processes that open its URL then get another space, and
//! never meet this process.
//!
//! Invariants: 1. the watching thread ends with its guard, so that the peer detaches when the command has ended.
//! 2. It warns once.
//!
//! The heartbeat thread of the attachment finds out whether the space has lost its name; this thread only asks it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use commonhold::Space;

/// The warning: what has happened, and what to do.
pub(crate) const WARNING: &str = "orphaned: the space was removed or replaced, so a process that opens its URL now does \
                                  not meet this one; end all processes that use the old space";

/// Time between two checks.
const PAUSE: Duration = Duration::from_millis(250);

/// Watches the space until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts the thread. If it cannot be started, there is no warning, and everything else works.
    pub(crate) fn start(space: &Space) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, space) = (Arc::clone(&stop), space.clone());
        let watch = move || {
            // Acquire: pairs with the Release in `drop`.
            while !stopped.load(Ordering::Acquire) {
                if space.is_orphaned() {
                    tracing::warn!("{WARNING}");
                    break;
                }
                thread::park_timeout(PAUSE);
            }
        };
        let thread = thread::Builder::new().name("orphan-watch".to_owned()).spawn(watch).ok();
        Self { stop, thread }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Release: pairs with the Acquire in the thread.
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread does not panic.
            let _ = thread.join();
        }
    }
}
