//! Whether atomic operations are atomic here.
//!
//! QEMU without hardware help (TCG) translates an atomic instruction of a guest that has one processor
//! into a plain read and a plain write: within the guest nobody could tell. Host processes and other
//! guests can: two of them get the same lock. So with one processor this guest does not take part.
//!
//! `-accel tcg,thread=single` does the same with any number of processors. What shows it is the price: a
//! real atomic addition is a call out of the translated code, and costs twice a load and a store; one
//! that is none costs no more than they do.

use core::{
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::{
    cpu::{hypervisor, in8, out16, ticks},
    failure::Failure,
};

/// Operations timed together, and how often: the fastest counts, so a busy host does not matter.
const BATCH: u32 = 256;
const BATCHES: u32 = 400;

/// "TCGTCGTCGTCG", as three little-endian words.
const TCG: [u32; 3] = [0x5447_4354, 0x4354_4743, 0x4743_5447];

// QEMU's channel for the firmware: a selector and a port of bytes (docs/specs/fw_cfg in its sources).
const SELECTOR: u16 = 0x510;
const DATA: u16 = 0x511;
const PROCESSORS: u16 = 5;

/// Refuses where atomic operations are not.
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

/// Whether an atomic addition costs at least 1.4 times a load and a store.
fn additions_are_atomic() -> bool {
    let atomic = fastest(|word| {
        black_box(word.fetch_add(1, Relaxed));
    });
    let plain = fastest(|word| {
        let value = black_box(word.load(Relaxed));
        word.store(value.wrapping_add(1), Relaxed);
    });
    atomic.saturating_mul(10) >= plain.saturating_mul(14)
}

/// Clock ticks of the fastest batch.
fn fastest(operation: impl Fn(&AtomicU64)) -> u64 {
    let word = AtomicU64::new(0);
    let batch = |_| {
        let began = ticks();
        for _ in 0..BATCH {
            operation(&word);
        }
        ticks().saturating_sub(began)
    };
    (0..BATCHES).map(batch).min().unwrap_or(0)
}

/// Processors of a QEMU machine.
fn count() -> u16 {
    out16(SELECTOR, PROCESSORS);
    u16::from(in8(DATA)) | u16::from(in8(DATA)) << 8
}
