//! What a space needs from the world, without an operating system: the ports of `commonhold-sync` and
//! `commonhold-space`.
//!
//! This file is what porting the core comes to. An RTOS would do more: let other tasks run in
//! [`wait`](Park::wait), beat from a timer task, put a proof of life where others can see it.
//!
//! # Invariants
//! 1. The heart beats wherever this guest may spend time: in every wait, and in every loop of
//!    `work.rs`, by [`keep_alive`](BareMetal::keep_alive).
//! 2. Others are judged by their heartbeats, as nothing else of them can be seen from here. Processes
//!    of a host that leave none are `Suspect`: they may well live, so what they hold is waited for.
//! 3. All memory is there: QEMU has the whole window, and the host's file grows at the first touch.

use core::{
    cell::Cell,
    hint,
    sync::atomic::{AtomicU64, Ordering},
};

use commonhold_layout::{Evidence, Extent, PeerId};
use commonhold_space::{Heart, Medium, MediumError, PeerRecord, Platform, Witness};
use commonhold_sync::{Park, Verdict, Wake};
use commonhold_window::Window;

use crate::{clock::Clock, silence::Silence};

/// How often the heart beats. Others find a peer suspect after a second of silence.
const BEAT_NS: u64 = 250_000_000;
/// Turns of the short spin before a wait.
const SPIN_TURNS: u32 = 60;
/// Fewest and most pauses between two looks at a word.
const PAUSES_LEAST: u32 = 16;
const PAUSES_MOST: u32 = 2048;

/// One guest.
#[derive(Debug)]
pub(crate) struct BareMetal {
    window: Window,
    clock: Clock,
    silence: Silence,
    /// `None` until it has attached.
    heart: Cell<Option<Heart>>,
    next_beat: Cell<u64>,
}

impl BareMetal {
    /// A guest with this window and this clock.
    pub(crate) fn new(window: Window, clock: Clock) -> Self {
        let (silence, heart, next_beat) = (Silence::new(), Cell::new(None), Cell::new(0));
        Self { window, clock, silence, heart, next_beat }
    }

    /// From now on this heart beats: that of the peer which this guest has become.
    pub(crate) fn live(&self, heart: Heart) {
        self.heart.set(Some(heart));
        self.keep_alive();
    }

    /// Beats, if it is time to.
    pub(crate) fn keep_alive(&self) {
        let now = self.now();
        if now >= self.next_beat.get()
            && let Some(heart) = self.heart.get()
        {
            heart.beat(&self.window);
            self.next_beat.set(now.saturating_add(BEAT_NS));
        }
    }
}

impl Park for BareMetal {
    fn now(&self) -> u64 {
        self.clock.now()
    }

    /// Looks again and again, at growing intervals: there is nobody to let run meanwhile, and without
    /// interrupts nothing would end a sleep. But between two looks the memory is left alone.
    fn wait(&self, word: &AtomicU64, expected: u64, until: u64) {
        const LOW_HALF: u64 = 0xffff_ffff;
        let mut pauses = PAUSES_LEAST;
        // Relaxed: the caller looks again, with the ordering it needs.
        while (word.load(Ordering::Relaxed) ^ expected) & LOW_HALF == 0 && self.now() < until {
            self.keep_alive();
            for _ in 0..pauses {
                hint::spin_loop();
            }
            pauses = (pauses * 2).min(PAUSES_MOST);
        }
    }

    /// Nobody sleeps where this guest could wake them: everybody looks again in time.
    fn wake(&self, _word: &AtomicU64, _who: Wake) {}

    fn spin(&self, turn: u32) -> bool {
        for _ in 0..=turn / 8 {
            hint::spin_loop();
        }
        turn < SPIN_TURNS
    }
}

impl Medium for BareMetal {
    fn commit(&self, _extent: Extent) -> Result<(), MediumError> {
        Ok(())
    }

    /// The host's memory cannot be given back from here; the promise that matters to whoever has the
    /// bytes next is that they are zero.
    fn release(&self, extent: Extent) -> Result<(), MediumError> {
        const AT_ONCE: u64 = 1 << 20;
        let failed = MediumError::Failed { call: "zeroing", errno: 0 };
        let mut at = 0;
        while at < extent.len() {
            let len = AT_ONCE.min(extent.len() - at);
            let part = extent.part(at, len).ok_or(failed)?;
            self.window.zero(part).map_err(|_| failed)?;
            self.keep_alive();
            at += len;
        }
        Ok(())
    }
}

impl Witness for BareMetal {
    fn deposit(&self, _peer: PeerId) -> Result<Option<Evidence>, MediumError> {
        Ok(Some(Evidence::HEARTBEAT))
    }

    fn withdraw(&self, _peer: PeerId) {
        self.heart.set(None);
    }

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
}
