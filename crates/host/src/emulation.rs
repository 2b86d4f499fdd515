//! Whether this machine is emulated in such a way that its atomics are none.
//!
//! QEMU without hardware support (TCG) translates instructions. If it runs all processors of a guest in
//! one thread, no two ever run at once, and it translates an atomic addition to a load, an addition and
//! a store. That is right within the guest, and wrong towards everybody else who has the memory: updates
//! get lost. The probe word cannot show it, since within the guest nothing is ever lost.
//!
//! What shows it is whether two processors are ever seen to run at once: two threads on two of them hand a word to and
//! fro. If both run, that takes a microsecond each time. If the emulator runs one at a time, it takes a change from the
//! one to the other, which comes with an interrupt: some milliseconds. So some handovers within one millisecond
//! prove that both ran, and nothing else does. A busy host lets them run at once seldom, but not never: they try for
//! some seconds. Neither thread pauses (`spin_loop`), which the emulator takes for a wish to let others run.
//!
//! (The price of an atomic addition, which is a call out of translated code if it is one, was tried first. Between one
//! process and the next it changed by a factor of two, either way.)
//!
//! # What it owns
//! Telling such a machine from others: by its name, the number of its processors, and those handovers.
//!
//! # What it does not do
//! It knows the name of the emulator on x86 only. Whoever hides it (`tcg-cpuid=off`) is not found out.
//! Where the host, or the process, has one processor only, nothing is ever seen to run at once, and the machine is refused.

use std::{
    fs,
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};

use commonhold_window::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::refusal::DeviceError;

/// Handovers in a row that are timed together.
const HANDOVERS: u64 = 64;
/// They take less time than this only between processors that run at once.
const AT_ONCE: Duration = Duration::from_millis(1);
/// For so long they are tried.
const PATIENCE: Duration = Duration::from_secs(5);

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
    judge(&Machine { emulated: is_tcg(), online }, run_at_once)
}

fn judge(machine: &Machine, run_at_once: impl FnOnce() -> bool) -> Result<(), DeviceError> {
    match machine {
        Machine { emulated: false, .. } => Ok(()),
        Machine { online: 0 | 1, .. } => Err(DeviceError::EmulatedAlone),
        _ if run_at_once() => Ok(()),
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

/// Whether two processors are seen to run at once. The threads stay on two processors if that can be had.
fn run_at_once() -> bool {
    let allowed = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    let mut processors = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    let (here, there) = (processors.next(), processors.next());
    let (word, over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let there = || {
            stay_on(there);
            answer(&word, &over);
        };
        let here = || {
            stay_on(here);
            ask(&word)
        };
        let Ok(_answers) = thread::Builder::new().spawn_scoped(scope, there) else { return false };
        let asks = thread::Builder::new().spawn_scoped(scope, here);
        let seen = asks.is_ok_and(|asks| asks.join().unwrap_or(false));
        over.store(true, Relaxed);
        seen
    })
}

fn stay_on(processor: Option<usize>) {
    let Some(processor) = processor else { return };
    let mut only = CpuSet::new();
    only.set(processor);
    // If it cannot be had, the kernel will part two busy threads by itself.
    let _ = sched_setaffinity(None, &only);
}

/// Hands the word over, waits until it comes back, and again, until that went as fast as it only does between
/// processors that run at once.
fn ask(word: &AtomicU64) -> bool {
    /// Looks between two at the clock, which may be slow.
    const LOOKS: u32 = 1 << 14;
    let began = Instant::now();
    let mut since = began;
    let mut turn = 0_u64;
    loop {
        let mut looks = 0_u32;
        while word.load(Acquire) != turn {
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(LOOKS) && began.elapsed() > PATIENCE {
                return false;
            }
        }
        if turn.is_multiple_of(HANDOVERS) && turn != 0 {
            let now = Instant::now();
            if now.duration_since(since) < AT_ONCE {
                return true;
            }
            if now.duration_since(began) > PATIENCE {
                return false;
            }
            since = now;
        }
        word.store(turn + 1, Release);
        turn += 2;
    }
}

/// Hands the word back whenever it comes.
fn answer(word: &AtomicU64, over: &AtomicBool) {
    while !over.load(Relaxed) {
        let turn = word.load(Acquire);
        if !turn.is_multiple_of(2) {
            word.store(turn.wrapping_add(1), Release);
        }
    }
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
    fn an_emulated_machine_needs_two_processors_that_are_seen_to_run_at_once() {
        let alone = judge(&machine(true, 1), || true);
        assert!(matches!(alone, Err(DeviceError::EmulatedAlone)), "{alone:?}");
        let in_turn = judge(&machine(true, 2), || false);
        assert!(matches!(in_turn, Err(DeviceError::EmulatedInTurn)), "{in_turn:?}");
        assert!(judge(&machine(true, 2), || true).is_ok());
    }

    #[test]
    fn real_processors_are_seen_to_run_at_once_unless_there_is_one() {
        let allowed = sched_getaffinity(None).unwrap();
        assert_eq!(run_at_once(), allowed.count() > 1);
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
