//! Records the signals that ask a command to end, and forwards them to its child.
//!
//! Invariants: 1. after [`Signals::watch`], SIGINT, SIGTERM, SIGHUP and SIGQUIT no longer end this process by
//! themselves: the command releases its locks and mappings first. 2. A signal that a terminal sends to the whole
//! foreground group is not forwarded: the child has received it already. 3. A signal is sent through a pidfd, so it
//! never reaches another process that has got the child's process id.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use rustix::process::{Signal, pidfd_send_signal};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM},
    iterator::{SignalsInfo, exfiltrator::WithOrigin},
    low_level::siginfo::{Cause, Origin},
};

use crate::failure::{Doing, Failure};

#[derive(Debug, Default)]
struct Seen {
    last: Option<i32>,
    child: Option<OwnedFd>,
}

/// The signals that were received since [`Signals::watch`]. Watching goes on until the process ends.
#[derive(Debug, Clone)]
pub struct Signals(Arc<Mutex<Seen>>);

impl Signals {
    /// Starts to watch for signals.
    ///
    /// # Errors
    /// The handlers or the thread cannot be made.
    pub fn watch() -> Result<Self, Failure> {
        let this = Self(Arc::default());
        let mut signals = SignalsInfo::<WithOrigin>::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])
            .doing(|| "watch signals".to_owned())?;
        let watcher = this.clone();
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                for origin in signals.forever() {
                    watcher.note(&origin);
                }
            })
            .doing(|| "watch signals".to_owned())?;
        Ok(this)
    }

    /// The last signal that asked this process to end.
    #[must_use]
    pub fn last(&self) -> Option<i32> {
        self.seen().last
    }

    /// Forwards signals to this child from now on. A signal that came while the child was being started is forwarded
    /// at once. The caller has checked [`Signals::last`] just before it started the child.
    pub fn forward_to(&self, child: OwnedFd) {
        let mut seen = self.seen();
        if let Some(signal) = seen.last {
            send(&child, signal);
        }
        seen.child = Some(child);
    }

    /// Stops forwarding: the child is gone.
    pub fn forward_to_nobody(&self) {
        self.seen().child = None;
    }

    fn note(&self, origin: &Origin) {
        let by_terminal = matches!(origin.cause, Cause::Kernel);
        tracing::info!(signal = origin.signal, by_terminal, "asked to end");
        let mut seen = self.seen();
        seen.last = Some(origin.signal);
        if let Some(child) = &seen.child
            && !by_terminal
        {
            send(child, origin.signal);
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn send(child: &OwnedFd, signal: i32) {
    let Some(signal) = Signal::from_named_raw(signal) else { return };
    // A child that has just ended needs no signal.
    if let Err(error) = pidfd_send_signal(child, signal).map_err(io::Error::from) {
        tracing::debug!(%error, "the child did not get the signal");
    }
}
