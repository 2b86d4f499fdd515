//! Time: nanoseconds since the start, and Unix time.
//!
//! The processor counts ticks, but does not say at which rate. A hypervisor may say it (CPUID). Otherwise the rate is
//! measured with the timer chip of the PC, whose own rate is fixed.

use crate::{
    calendar,
    cpu::{in8, out8, ticks, ticks_per_ms},
    failure::Failure,
};

/// A clock that never goes back.
#[derive(Debug)]
pub(crate) struct Clock {
    start: u64,
    /// Nanoseconds per tick, times 2^32.
    rate: u64,
    unix_ms_at_start: u64,
}

impl Clock {
    /// Starts the clock; measures the rate, unless the hypervisor says it.
    ///
    /// # Errors
    /// [`Failure::NoTimer`].
    pub(crate) fn start() -> Result<Self, Failure> {
        let per_ms = match ticks_per_ms() {
            Some(known) => known,
            None => measure()?,
        };
        let rate = (1_000_000_u64 << 32).checked_div(per_ms).ok_or(Failure::NoTimer)?;
        Ok(Self { start: ticks(), rate, unix_ms_at_start: calendar::unix_ms() })
    }

    /// Nanoseconds since the start.
    pub(crate) fn now(&self) -> u64 {
        let passed = u128::from(ticks().saturating_sub(self.start));
        u64::try_from((passed * u128::from(self.rate)) >> 32).unwrap_or(u64::MAX)
    }

    /// Milliseconds of Unix time.
    pub(crate) fn unix_ms(&self) -> u64 {
        self.unix_ms_at_start.saturating_add(self.now() / 1_000_000)
    }
}

/// Ticks per millisecond: the median of some measurements, since the host may deschedule this processor in the middle
/// of one.
fn measure() -> Result<u64, Failure> {
    let mut found = [0; 5];
    for ticks in &mut found {
        *ticks = measure_once()?;
    }
    found.sort_unstable();
    let [_, _, median, _, _] = found;
    Ok(median / MEASURE_MS)
}

const MEASURE_MS: u64 = 10;

/// Lets channel 2 of the timer (8254), which once drove the loudspeaker, count down once. Returns how many ticks this
/// took.
fn measure_once() -> Result<u64, Failure> {
    /// The timer's rate, in Hz.
    const RATE: u64 = 1_193_182;
    const CHANNEL_2: u16 = 0x42;
    const MODE: u16 = 0x43;
    /// Channel 2, both bytes of the count, mode 0: the output goes high at the end.
    const ONCE: u8 = 0b1011_0000;
    const GATE: u16 = 0x61;
    const GO: u8 = 1;
    const SOUND: u8 = 2;
    const OUTPUT: u8 = 1 << 5;
    /// Far more ticks than any processor counts in that time.
    const PATIENCE: u64 = 1 << 36;

    let gate = in8(GATE) & !(GO | SOUND);
    out8(GATE, gate);
    out8(MODE, ONCE);
    let [low, high, ..] = (RATE * MEASURE_MS / 1000).to_le_bytes();
    out8(CHANNEL_2, low);
    out8(CHANNEL_2, high);
    out8(GATE, gate | GO);
    let start = ticks();
    loop {
        let passed = ticks().wrapping_sub(start);
        if in8(GATE) & OUTPUT != 0 {
            return Ok(passed);
        }
        if passed > PATIENCE {
            return Err(Failure::NoTimer);
        }
    }
}
