//! What is done a little later, by the thread that reads faults.
//!
//! # What it owns
//! A list of faulted pages of spaces, with what is to be done for each, and the descriptor by which that
//! thread is interrupted while it waits for faults.
//!
//! A fault that cannot be served now is never told again by the kernel while its thread sleeps in it. But a
//! thread that is *woken* tries its access again, and that is told anew. So to put a fault off means to wake
//! its thread later, and nothing of the fault itself has to be kept.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use commonhold_mm::VirtualPage;
use parking_lot::Mutex;
use rustix::{
    event::{EventfdFlags, eventfd},
    io::Errno,
};

use crate::reservation::Reservation;

/// A fault that was put off is told again after this time.
const PAUSE: Duration = Duration::from_millis(1);
/// For so long a page that could not be served gives SIGBUS. Then the next access tries again.
pub(crate) const FAILURE_LASTS: Duration = Duration::from_millis(100);

/// What is to be done for a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Who waits there tries again.
    Wake,
    /// A poisoned page is only missing again.
    Heal,
}

#[derive(Debug)]
struct Entry {
    due: Instant,
    /// Pages of a space that has gone need nothing.
    reservation: Weak<Reservation>,
    at: VirtualPage,
    duty: Duty,
}

#[derive(Debug)]
pub(crate) struct Later {
    entries: Mutex<Vec<Entry>>,
    nudge: OwnedFd,
    stopped: AtomicBool,
}

impl Later {
    pub(crate) fn new() -> Result<Self, Errno> {
        let nudge = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { entries: Mutex::new(Vec::new()), nudge, stopped: AtomicBool::new(false) })
    }

    pub(crate) fn add(&self, reservation: Weak<Reservation>, at: VirtualPage, duty: Duty) {
        let pause = if duty == Duty::Wake { PAUSE } else { FAILURE_LASTS };
        let entry = Entry { due: Instant::now() + pause, reservation, at, duty };
        self.entries.lock().push(entry);
        self.interrupt();
    }

    /// The thread that reads faults is to end.
    pub(crate) fn stop(&self) {
        // Release: pairs with the load in `is_stopped`; the write to the descriptor orders them as well.
        self.stopped.store(true, Ordering::Release);
        self.interrupt();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Readable when there is something new.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.nudge.as_fd()
    }

    /// Does what is due, and says how long it is until something else is.
    pub(crate) fn work(&self) -> Option<Duration> {
        let _ = rustix::io::read(&self.nudge, &mut [0; 8]);
        let now = Instant::now();
        let due: Vec<Entry> =
            self.entries.lock().extract_if(.., |entry| entry.due <= now).collect();
        for entry in due {
            let Some(reservation) = entry.reservation.upgrade() else { continue };
            match entry.duty {
                Duty::Wake => reservation.wake(entry.at),
                Duty::Heal => reservation.heal(entry.at),
            }
        }
        let next = self.entries.lock().iter().map(|entry| entry.due).min();
        next.map(|next| next.saturating_duration_since(now))
    }

    fn interrupt(&self) {
        // It fails only if it was written to 2^64 - 2 times unlock_read.
        let _ = rustix::io::write(&self.nudge, &1_u64.to_le_bytes());
    }
}
