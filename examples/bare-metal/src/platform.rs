//! The ports of `commonhold-sync` and `commonhold-space`, implemented without an operating system.
//!
//! To port the core means to write this file. An RTOS would do more: let other tasks run in [`wait`](Park::wait), beat
//! from a timer task, and publish a proof of life for others.
//!
//! # Invariants
//! 1. No wait lasts longer than its caller asks, and none relies on a wake. The core writes this guest's heartbeat
//!    before each wait; in between, `work.rs` does.
//! 2. Other peers are judged by their heartbeats: nothing else of them is visible from here.
//! 3. All memory exists: QEMU maps the whole window, and the host's file grows at the first touch.

use core::{
    hint,
    sync::atomic::{AtomicU64, Ordering},
};

use commonhold_layout::{Evidence, Extent, PeerId};
use commonhold_space::{
    BackingMemory, BackingMemoryError, EvidenceLock, LivenessEvidence, PeerRecord, Platform,
};
use commonhold_sync::{Park, Verdict, Wake};
use commonhold_window::Window;

use crate::{clock::Clock, silence::Silence};

/// How many turns the short spin before a wait has.
const SPIN_TURNS: u32 = 60;
/// The fewest and most pauses between two reads of a word.
const PAUSES_LEAST: u32 = 16;
const PAUSES_MOST: u32 = 2048;

/// One guest.
#[derive(Debug)]
pub(crate) struct BareMetal {
    window: Window,
    clock: Clock,
    silence: Silence,
}

impl BareMetal {
    /// A guest with this window and this clock.
    pub(crate) fn new(window: Window, clock: Clock) -> Self {
        Self { window, clock, silence: Silence::new() }
    }
}

impl Park for BareMetal {
    fn now(&self) -> u64 {
        self.clock.now()
    }

    /// Polls the word at growing intervals. There is no other task to run meanwhile, and without interrupts nothing
    /// would end a sleep. Between two reads it leaves the memory alone.
    fn wait(&self, word: &AtomicU64, expected: u64, until: u64) {
        const LOW_HALF: u64 = 0xffff_ffff;
        let mut pauses = PAUSES_LEAST;
        // Relaxed: the caller reads the word again, with the ordering it needs.
        while (word.load(Ordering::Relaxed) ^ expected) & LOW_HALF == 0 && self.now() < until {
            for _ in 0..pauses {
                hint::spin_loop();
            }
            pauses = (pauses * 2).min(PAUSES_MOST);
        }
    }

    /// Does nothing: this guest can wake no sleeper, so all waiters poll.
    fn wake(&self, _word: &AtomicU64, _who: Wake) {}

    fn spin(&self, _word: &AtomicU64, turn: u32) -> bool {
        for _ in 0..=turn / 8 {
            hint::spin_loop();
        }
        turn < SPIN_TURNS
    }
}

impl BackingMemory for BareMetal {
    fn commit(&self, _extent: Extent) -> Result<(), BackingMemoryError> {
        Ok(())
    }

    /// Writes zeros: the host's memory cannot be given back from here, and the next user of the bytes relies only on
    /// their being zero.
    fn release(&self, extent: Extent) -> Result<(), BackingMemoryError> {
        let failed = |_| BackingMemoryError::Failed { call: "zeroing", errno: 0 };
        self.window.zero(extent).map_err(failed)
    }
}

impl LivenessEvidence for BareMetal {
    fn publish(
        &self,
        _peer: PeerId,
        _hold: EvidenceLock,
    ) -> Result<Option<Evidence>, BackingMemoryError> {
        Ok(Some(Evidence::HEARTBEAT))
    }

    fn withdraw(&self, _peer: PeerId) {}

    fn verdict(&self, record: &PeerRecord, _attaching: bool, lease_ms: u64) -> Verdict {
        if record.evidence.contains(Evidence::HEARTBEAT) {
            self.silence.judge(record, lease_ms, self.now() / 1_000_000)
        } else {
            Verdict::Suspect
        }
    }

    fn unix_ms(&self) -> u64 {
        self.clock.unix_ms()
    }
}

impl Platform for BareMetal {
    fn window(&self) -> &Window {
        &self.window
    }

    /// The same as `wait`: there is no other way of waiting here.
    fn wait_among_kernels(&self, word: &AtomicU64, expected: u64, until: u64) {
        self.wait(word, expected, until);
    }
}
