//! Warning those who use a space that nobody finds any more.
//!
//! Invariants: 1. the thread here keeps the space no longer than its guard: the peer detaches when the command
//! is done with it. 2. It warns once.
//!
//! Does not cover: looking; the heart of the attachment does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use commonhold::Space;

/// What it means, and what to do.
pub(crate) const WARNING: &str = "orphaned: the space was removed or replaced, so others who open its name do \
                                  not meet this process; end all who use the old one";

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(250);

/// Watches as long as it lives.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Without the thread nobody is warned, and all else works.
    pub(crate) fn start(space: &Space) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, space) = (Arc::clone(&stop), space.clone());
        let watch = move || {
            // Acquire: pairs with the Release of the drop.
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
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It does not panic.
            let _ = thread.join();
        }
    }
}
