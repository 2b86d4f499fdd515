//! The signal by which workers learn that pulses wait.

use parking_lot::{Condvar, Mutex};

#[derive(Debug, Default)]
struct State {
    /// Pulses for which no worker has been woken yet. It may exceed the number of pulses that wait.
    waiting: u64,
    stopped: bool,
}

/// Counts pulses, and lets workers sleep while there are none.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

impl Signal {
    /// Counts one more pulse, and wakes a worker.
    pub(crate) fn raise(&self) {
        self.state.lock().waiting += 1;
        self.changed.notify_one();
    }

    /// Ends all workers.
    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Whether the workers are to end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    /// Sleeps until a pulse waits; `false` if the worker is to end.
    pub(crate) fn wait(&self) -> bool {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |state| !state.stopped && state.waiting == 0);
        state.waiting = state.waiting.saturating_sub(1);
        !state.stopped
    }
}
