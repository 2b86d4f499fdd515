//! Whether this machine is emulated in such a way that its atomics are none.
//!
//! QEMU without hardware support (TCG) translates instructions. If it runs all processors of a guest in
//! one thread, no two ever run at once, and it translates an atomic addition to a load, an addition and
//! a store. That is right within the guest, and wrong towards everybody else who has the memory: updates
//! get lost. The probe word cannot show it, since within the guest nothing is ever lost.
//!
//! What shows it is the price. A real atomic is a call out of the translated code, and costs at least
//! twice a load and a store; one that is none costs no more than they do.
//! The fastest of many short runs is compared, so that a busy host does not matter: whether two
//! processors are *seen* to run at once would depend on it. The runs are long enough that the clock does
//! not matter, which may be emulated as well: then reading it takes a microsecond, or, where several
//! want it, tens of them. Runs of both kinds take turns, so that both find the host in the same state.
//!
//! # What it owns
//! Telling such a machine from others: by its name, the number of its processors, and that price.
//!
//! # What it does not do
//! It knows the name of the emulator on x86 only. Whoever hides it (`tcg-cpuid=off`) is not found out.

use std::{array, fs, hint::black_box, time::Instant};

use commonhold_window::atomic::{AtomicU64, Ordering::Relaxed};

use crate::refusal::DeviceError;

/// Times its own load and store that an atomic addition costs at least, if it is one.
const PRICE: f64 = 1.5;
/// Operations timed together.
const BATCH: u32 = 65_536;
/// Batches of each kind, of which the fastest counts: each is over long before a host takes its processor
/// away.
const BATCHES: u32 = 12;

/// What is known of the machine.
#[derive(Debug)]
struct Machine {
    emulated: bool,
    /// Processors that run.
    online: usize,
}

/// Refuses a machine whose atomics are none.
pub(crate) fn refuse() -> Result<(), DeviceError> {
    let online = online(&fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default());
    judge(&Machine { emulated: is_tcg(), online }, price)
}

fn judge(machine: &Machine, price: impl FnOnce() -> f64) -> Result<(), DeviceError> {
    match machine {
        Machine { emulated: false, .. } => Ok(()),
        Machine { online: 0 | 1, .. } => Err(DeviceError::EmulatedAlone),
        _ if price() >= PRICE => Ok(()),
        _ => Err(DeviceError::EmulatedInTurn),
    }
}

#[cfg(target_arch = "x86_64")]
fn is_tcg() -> bool {
    // The leaf of hypervisors; without one, something else, which is not this name.
    #[allow(unused_unsafe, reason = "it is a safe function from Rust 1.94 on")]
    // SAFETY: `__cpuid` wants a processor that has the instruction: every one of 64 bits does.
    let leaf = unsafe { std::arch::x86_64::__cpuid(0x4000_0000) };
    let name = [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes);
    name.as_flattened() == b"TCGTCGTCGTCG"
}

#[cfg(not(target_arch = "x86_64"))]
const fn is_tcg() -> bool {
    false
}

/// How many processors a list such as `0-3,5` names.
fn online(list: &str) -> usize {
    let ranges = list.trim().split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        last.parse::<usize>().ok()?.checked_sub(first.parse().ok()?)?.checked_add(1)
    });
    ranges.fold(0, usize::saturating_add)
}

/// What an atomic addition costs, as a multiple of a load and a store: the median of several measurements, since
/// one that the emulator translates anew in its midst says anything.
fn price() -> f64 {
    let mut prices: [f64; 5] = array::from_fn(|_| price_once());
    prices.sort_by(f64::total_cmp);
    prices[prices.len() / 2]
}

fn price_once() -> f64 {
    let word = AtomicU64::new(0);
    // Seen by others, as far as the compiler knows.
    let word = black_box(&word);
    let (mut atomic, mut plain) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..BATCHES {
        atomic = atomic.min(seconds(|| {
            word.fetch_add(1, Relaxed);
        }));
        plain = plain.min(seconds(|| {
            word.store(word.load(Relaxed).wrapping_add(1), Relaxed);
        }));
    }
    // Not 0, whatever the clock says.
    atomic / plain.max(f64::MIN_POSITIVE)
}

/// Seconds of one batch.
#[inline(never)]
fn seconds(operation: impl Fn()) -> f64 {
    let began = Instant::now();
    for _ in 0..BATCH {
        operation();
    }
    began.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(emulated: bool, online: usize) -> Machine {
        Machine { emulated, online }
    }

    #[test]
    fn a_machine_that_is_not_emulated_is_not_measured() {
        for online in [0, 1, 8] {
            let unasked = || panic!("measured");
            assert!(judge(&machine(false, online), unasked).is_ok());
        }
    }

    #[test]
    fn an_emulated_machine_needs_two_processors_and_atomics_that_have_their_price() {
        let alone = judge(&machine(true, 1), || 2.0);
        assert!(matches!(alone, Err(DeviceError::EmulatedAlone)), "{alone:?}");
        // The worst medians measured in guests with `thread=single` and `thread=multi`.
        let in_turn = judge(&machine(true, 2), || 1.02);
        assert!(matches!(in_turn, Err(DeviceError::EmulatedInTurn)), "{in_turn:?}");
        assert!(judge(&machine(true, 2), || 2.2).is_ok());
    }

    #[test]
    fn processors_are_counted_as_the_kernel_lists_them() {
        assert_eq!(online("0-3,5\n"), 5);
        assert_eq!(online("0"), 1);
        assert_eq!(online(""), 0);
        assert_eq!(online("x,1-y,7,9-8"), 1);
        assert_eq!(online("0-18446744073709551615,1"), 1);
    }
}
