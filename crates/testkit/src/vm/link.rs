//! The serial line to the agent in a guest.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use crate::vm::wire::{Event, Order, Report};

#[derive(Debug, Default)]
struct State {
    /// The boot id of the guest's kernel, once it has booted.
    boot: Option<String>,
    /// Whether the line has ended, and with it the guest.
    gone: bool,
    jobs: HashMap<u64, Sender<Event>>,
    next: u64,
}

#[derive(Debug)]
pub(crate) struct Link {
    socket: UnixStream,
    writing: Mutex<()>,
    state: Mutex<State>,
    changed: Condvar,
}

impl Link {
    pub(crate) fn new(socket: UnixStream) -> Self {
        let (writing, state, changed) = Default::default();
        Self { socket, writing, state, changed }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Receives reports until the line ends. Everything that is not a report is passed to `noise`.
    pub(crate) fn follow(&self, noise: impl Fn(&[u8])) {
        for line in BufReader::new(&self.socket).split(b'\n').map_while(Result::ok) {
            match serde_json::from_slice(&line) {
                Ok(Report::Ready { boot }) => {
                    self.state().boot = Some(boot);
                    self.changed.notify_all();
                }
                Ok(Report::Job { job, event }) => {
                    if let Some(sender) = self.state().jobs.get(&job) {
                        let _ = sender.send(event);
                    }
                }
                Err(_) => noise(&line),
            }
        }
        let mut state = self.state();
        state.gone = true;
        // Closes the channels, so that waits for jobs end.
        state.jobs.clear();
        self.changed.notify_all();
    }

    /// Waits until the guest has booted. Returns its boot id; `None` if it does not boot in time.
    pub(crate) fn boot(&self, patience: Duration) -> Option<String> {
        let waits = |state: &mut State| state.boot.is_none() && !state.gone;
        let waited = self.changed.wait_timeout_while(self.state(), patience, waits);
        waited.unwrap_or_else(PoisonError::into_inner).0.boot.clone()
    }

    /// A number for a new job, and the channel of its events.
    pub(crate) fn open(&self) -> (u64, Receiver<Event>) {
        let (sender, events) = channel();
        let mut state = self.state();
        state.next += 1;
        let job = state.next;
        if !state.gone {
            state.jobs.insert(job, sender);
        }
        (job, events)
    }

    /// Sends an order to the agent. If the guest is dead, the wait for an answer will fail.
    pub(crate) fn send(&self, order: &Order) {
        let Ok(mut text) = serde_json::to_string(order) else { return };
        text.push('\n');
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = (&self.socket).write_all(text.as_bytes());
    }
}
