//! Work that the thread that reads faults does after a delay.
//!
//! # What it owns
//! A list of pages of spaces with the work for each, and the descriptor that interrupts that thread while it waits
//! for faults.
//!
//! The kernel reports a fault once, however long its thread sleeps. But a thread that is *woken* tries its access
//! again, and the kernel reports that as a new fault. So putting a fault off means waking its thread later, and
//! nothing of the fault itself has to be kept.

use std::{
    os::fd::BorrowedFd,
    sync::{
        Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use commonhold_host::{ForkGuard, OwnFd};
use commonhold_mm::VirtualPage;
use parking_lot::Mutex;
use rustix::{
    event::{EventfdFlags, eventfd},
    io::Errno,
};

use crate::reservation::Reservation;

/// How long a fault is put off.
const PAUSE: Duration = Duration::from_millis(1);
/// How long a page that could not be served gives SIGBUS. After that, an access tries again.
pub(crate) const FAILURE_LASTS: Duration = Duration::from_millis(100);

/// The work for a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Wakes the threads that wait there: they try again.
    Wake,
    /// Makes a poisoned page a missing one again.
    Heal,
}

#[derive(Debug)]
struct Entry {
    due: Instant,
    /// Weak: pages of a space that has gone need no work.
    reservation: Weak<Reservation>,
    at: VirtualPage,
    duty: Duty,
}

#[derive(Debug)]
pub(crate) struct Later {
    entries: Mutex<Vec<Entry>>,
    nudge: OwnFd,
    stopped: AtomicBool,
}

impl Later {
    pub(crate) fn new(guard: ForkGuard) -> Result<Self, Errno> {
        let nudge = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let nudge = OwnFd::new(nudge, guard)?;
        Ok(Self { entries: Mutex::new(Vec::new()), nudge, stopped: AtomicBool::new(false) })
    }

    pub(crate) fn add(&self, reservation: Weak<Reservation>, at: VirtualPage, duty: Duty) {
        let pause = if duty == Duty::Wake { PAUSE } else { FAILURE_LASTS };
        let entry = Entry { due: Instant::now() + pause, reservation, at, duty };
        self.push(entry);
        self.interrupt();
    }

    fn push(&self, entry: Entry) {
        self.entries.lock().push(entry);
    }

    /// Ends the thread that reads faults.
    pub(crate) fn stop(&self) {
        // Release: pairs with the Acquire in `is_stopped`; the write to the descriptor orders them as well.
        self.stopped.store(true, Ordering::Release);
        self.interrupt();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        // Acquire: pairs with the Release in `stop`.
        self.stopped.load(Ordering::Acquire)
    }

    /// Becomes readable when work was added; an error in a forked child, and if the program has closed it.
    pub(crate) fn descriptor(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.nudge.checked().ok_or(Errno::BADF)
    }

    /// Does the work that is due, and returns the time until the next work is due.
    pub(crate) fn work(&self) -> Option<Duration> {
        let _ = self.descriptor().and_then(|nudge| rustix::io::read(nudge, &mut [0; 8]));
        let now = Instant::now();
        let due: Vec<Entry> =
            self.entries.lock().extract_if(.., |entry| entry.due <= now).collect();
        for entry in due {
            let Some(reservation) = entry.reservation.upgrade() else { continue };
            match entry.duty {
                Duty::Wake => reservation.wake(entry.at),
                Duty::Heal if reservation.heal(entry.at) => {}
                // The table was locked.
                Duty::Heal => self.push(Entry { due: now + PAUSE, ..entry }),
            }
        }
        let next = self.entries.lock().iter().map(|entry| entry.due).min();
        next.map(|next| next.saturating_duration_since(now))
    }

    fn interrupt(&self) {
        // The write fails only after 2^64 - 2 writes without a read. If the program has closed the descriptor, the thread
        // that reads faults has ended, or ends.
        let nudge = self.descriptor();
        let _ = nudge.and_then(|nudge| rustix::io::write(nudge, &1_u64.to_le_bytes()));
    }
}
