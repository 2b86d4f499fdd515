//! Whether atomic operations are atomic here.
//!
//! If a guest has one processor, QEMU without hardware help (TCG) translates its atomic instructions into a plain read
//! and a plain write. Inside the guest this makes no difference. For host processes and other guests it does: two of
//! them get the same lock. So with one processor this guest refuses to attach.
//!
//! `-accel tcg,thread=single` does the same with any number of processors. It can be detected by time: a real atomic
//! addition is a call out of the translated code, and takes twice as long as a load and a store; a fake one takes no
//! longer than these.

use core::{
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::{
    cpu::{hypervisor, in8, out16, ticks},
    failure::Failure,
};

/// How many operations are timed together: so many that reading the clock, which is emulated too, does not matter.
const BATCH: u32 = 4096;
/// How many batches of each kind are timed. The fastest counts, so that a busy host does not matter.
const BATCHES: u32 = 100;

/// "TCGTCGTCGTCG", as three little-endian words.
const TCG: [u32; 3] = [0x5447_4354, 0x4354_4743, 0x4743_5447];

// QEMU's channel for the firmware: a selector and a port of bytes (docs/specs/fw_cfg in its sources).
const SELECTOR: u16 = 0x510;
const DATA: u16 = 0x511;
const PROCESSORS: u16 = 5;

/// Refuses to go on if atomic operations are not atomic.
///
/// # Errors
/// [`Failure::NotAtomic`].
pub(crate) fn check() -> Result<(), Failure> {
    let emulated = hypervisor().is_some_and(|(name, _)| name == TCG);
    if emulated && (count() < 2 || !additions_are_atomic()) {
        Err(Failure::NotAtomic)
    } else {
        Ok(())
    }
}

/// Whether an atomic addition takes at least 1.5 times as long as a load and a store. Batches of both kinds
/// alternate, so that both find the host in the same state.
fn additions_are_atomic() -> bool {
    let word = AtomicU64::new(0);
    let (mut atomic, mut plain) = (u64::MAX, u64::MAX);
    for _ in 0..BATCHES {
        atomic = atomic.min(ticks_of(|| {
            black_box(word.fetch_add(1, Relaxed));
        }));
        plain = plain.min(ticks_of(|| {
            let value = black_box(word.load(Relaxed));
            word.store(value.wrapping_add(1), Relaxed);
        }));
    }
    atomic.saturating_mul(2) >= plain.saturating_mul(3)
}

fn ticks_of(operation: impl Fn()) -> u64 {
    let began = ticks();
    for _ in 0..BATCH {
        operation();
    }
    ticks().saturating_sub(began)
}

/// How many processors the QEMU machine has.
fn count() -> u16 {
    out16(SELECTOR, PROCESSORS);
    u16::from(in8(DATA)) | u16::from(in8(DATA)) << 8
}
