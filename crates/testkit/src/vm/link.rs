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
    /// The boot id of the guest's kernel, once it is up.
    boot: Option<String>,
    /// The line is dead, and so is the guest.
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

    /// Receives until the line is dead. What is no report is given to `noise`.
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
        // Whoever waits for a job hears that there is nothing to wait for.
        state.jobs.clear();
        self.changed.notify_all();
    }

    /// The boot id, once the guest is up; `None` if that does not happen, or not in time.
    pub(crate) fn boot(&self, patience: Duration) -> Option<String> {
        let waits = |state: &mut State| state.boot.is_none() && !state.gone;
        let waited = self.changed.wait_timeout_while(self.state(), patience, waits);
        waited.unwrap_or_else(PoisonError::into_inner).0.boot.clone()
    }

    /// A new job's number, and what will happen to it.
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

    /// Tells the agent. A guest that is dead will be heard of by its silence.
    pub(crate) fn send(&self, order: &Order) {
        let Ok(mut text) = serde_json::to_string(order) else { return };
        text.push('\n');
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = (&self.socket).write_all(text.as_bytes());
    }
}
