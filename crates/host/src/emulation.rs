//! Whether this machine is emulated in such a way that its atomics are none.
//!
//! QEMU without hardware support (TCG) translates instructions. If it runs all processors of a guest in
//! one thread, no two ever run at once, and it takes a load and a store for an atomic addition. That is
//! right within the guest, and wrong towards everybody else who has the memory: updates get lost. The
//! probe word cannot show it, since within the guest nothing is ever lost.
//!
//! # What it owns
//! Telling such a machine from others: by its name, the number of its processors, and by whether two of
//! them run at once.
//!
//! # What it does not do
//! It knows the name of the emulator on x86 only. Whoever hides it (`tcg-cpuid=off`) is not found out.

use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::error::DeviceError;

/// A message to another processor and its answer, if both run.
const AT_ONCE: Duration = Duration::from_micros(200);
/// So many in a row are no accident: one thread that runs two processors in turn changes over when a
/// timer interrupts it, a few times in a millisecond at most.
const IN_A_ROW: usize = 16;
/// On a host with more to do than it has processors, two of a guest's run at once now and then only.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is known of the machine.
#[derive(Debug)]
struct Machine {
    emulated: bool,
    /// Processors that run.
    online: usize,
}

/// Refuses a machine whose atomics may be none.
pub(crate) fn refuse() -> Result<(), DeviceError> {
    let online = online(&fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default());
    judge(&Machine { emulated: is_tcg(), online: online.len() }, || run_at_once(&online))
}

fn judge(machine: &Machine, at_once: impl FnOnce() -> bool) -> Result<(), DeviceError> {
    match machine {
        Machine { emulated: false, .. } => Ok(()),
        Machine { online: 0 | 1, .. } => Err(DeviceError::EmulatedAlone),
        _ if at_once() => Ok(()),
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

/// The processors of a list such as `0-3,5`.
fn online(list: &str) -> Vec<usize> {
    /// More than any machine has; a list that says otherwise is not believed.
    const MOST: usize = 1 << 16;
    let parts = list.trim().split(',');
    let ranges = parts.filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?.min(MOST))
    });
    ranges.flatten().collect()
}

/// Whether a row of round trips is one that only two processors at once can do.
fn is_proof(trips: &[Duration]) -> bool {
    trips.windows(IN_A_ROW).any(|row| row.iter().all(|trip| *trip < AT_ONCE))
}

/// Whether the first two processors are seen to run at once.
fn run_at_once(processors: &[usize]) -> bool {
    let &[first, second, ..] = processors else { return false };
    let ball = &Ball::default();
    thread::scope(|scope| {
        let answerer = thread::Builder::new().spawn_scoped(scope, move || ball.answer(second));
        let there = answerer.is_ok();
        // In a thread of its own, which can be pinned.
        let asker = thread::Builder::new()
            .spawn_scoped(scope, move || there && ball.ask(first))
            .map(thread::ScopedJoinHandle::join);
        ball.over.store(true, Ordering::Relaxed);
        matches!(asker, Ok(Ok(true)))
    })
}

/// A word that two threads hand each other. They wait for it without a pause instruction: the emulator
/// takes that as a wish to let another processor run.
#[derive(Debug, Default)]
struct Ball {
    turn: AtomicU32,
    over: AtomicBool,
}

impl Ball {
    /// Answers until it is over.
    fn answer(&self, processor: usize) {
        if !pin(processor) {
            return;
        }
        while !self.over.load(Ordering::Relaxed) {
            let turn = self.turn.load(Ordering::Acquire);
            if turn % 2 == 1 {
                self.turn.store(turn.wrapping_add(1), Ordering::Release);
            }
        }
    }

    /// Asks until it is proved, or time is up.
    fn ask(&self, processor: usize) -> bool {
        if !pin(processor) {
            return false;
        }
        let began = Instant::now();
        let mut trips = Vec::new();
        while began.elapsed() < PATIENCE {
            let sent = Instant::now();
            let turn = self.turn.fetch_add(1, Ordering::Release).wrapping_add(1);
            while self.turn.load(Ordering::Acquire) == turn {
                // Whoever does not answer at all is not waited for.
                if began.elapsed() >= PATIENCE {
                    return false;
                }
            }
            trips.push(sent.elapsed());
            let from = trips.len().saturating_sub(IN_A_ROW);
            if is_proof(trips.get(from..).unwrap_or(&[])) {
                return true;
            }
        }
        false
    }
}

/// Has the calling thread run on one processor only, as long as it lives.
fn pin(processor: usize) -> bool {
    let mut only = CpuSet::new();
    if processor >= CpuSet::MAX_CPU {
        return false;
    }
    only.set(processor);
    sched_setaffinity(None, &only).is_ok()
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
    fn an_emulated_machine_needs_two_processors_that_run_at_once() {
        let alone = judge(&machine(true, 1), || true);
        assert!(matches!(alone, Err(DeviceError::EmulatedAlone)), "{alone:?}");
        let in_turn = judge(&machine(true, 2), || false);
        assert!(matches!(in_turn, Err(DeviceError::EmulatedInTurn)), "{in_turn:?}");
        assert!(judge(&machine(true, 2), || true).is_ok());
    }

    #[test]
    fn a_few_quick_round_trips_prove_nothing_and_a_row_of_them_does() {
        let (quick, slow) = (Duration::from_micros(3), Duration::from_millis(4));
        let mut trips = vec![slow];
        trips.extend([quick; IN_A_ROW - 1]);
        trips.push(slow);
        trips.extend([quick; IN_A_ROW - 1]);
        assert!(!is_proof(&trips));
        trips.push(quick);
        assert!(is_proof(&trips));
        assert!(!is_proof(&[]));
    }

    #[test]
    fn processors_are_read_as_the_kernel_lists_them() {
        assert_eq!(online("0-3,5\n"), [0, 1, 2, 3, 5]);
        assert_eq!(online("0"), [0]);
        assert_eq!(online(""), [0_usize; 0]);
        assert_eq!(online("x,1-y,7"), [7]);
    }
}
