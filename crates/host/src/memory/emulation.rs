//! Whether this machine is emulated in such a way that its atomic operations are not atomic for other machines.
//!
//! QEMU without hardware support (TCG) translates instructions. If one thread runs all processors of a guest, no two
//! of them run at once, and QEMU translates an atomic addition to a load, an addition and a store. That is
//! correct within the guest, and wrong for all others that share the memory: updates get lost. The probe word
//! cannot show it, since within the guest nothing is ever lost.
//!
//! The test is how fast two threads on two processors hand a word to and fro. If both processors run, a handover
//! takes a microsecond. If they run in turn, QEMU must first switch from one to the other, which happens at an
//! interrupt or at the host's next time slice: that takes milliseconds. So many handovers within one millisecond prove
//! that both ran.
//!
//! But a busy host may keep two processors of a guest on one of its own for long, and handovers are slow as well.
//! Then the threads try again, and pause while they wait. The emulator takes a pause as a request to run the next
//! processor; if one thread emulates all processors, it switches at once, and handovers become fast. On no other
//! machine does a pause help. So if handovers are fast with pauses and slow without, several times in a row, one
//! thread emulates the machine.
//!
//! (The time of an atomic addition, which is a call out of translated code if it is atomic, was tried first. It varied
//! by a factor of two between processes.)
//!
//! # What it owns
//! Recognising such a machine: by its name, the number of its processors, and those handovers.
//!
//! # What it does not do
//! It does not recognise every emulator. On x86 it misses one whose name is hidden (`tcg-cpuid=off`). On arm64 there is
//! no name: it recognises the processor that only QEMU has (`-cpu max`), and QEMU's board with the counter of older
//! versions; it misses a named processor under QEMU 9 and later. On other architectures it recognises none.
//! If the process may use only one processor, the test is impossible, and an emulated machine is refused.

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

use crate::error::DeviceError;

/// Handovers in a row that are timed together.
const HANDOVERS: u64 = 64;
/// They take less time than this only between processors that run at once.
const AT_ONCE: Duration = Duration::from_millis(1);
/// How long a round tries handovers, with pauses or without.
const ROUND: Duration = Duration::from_millis(20);
/// How often in a row handovers must be fast with pauses, and slow without, to prove that processors run in turn.
const IN_TURN: u32 = 5;
/// If handovers of both kinds stay slow for this time, the processors do not run in turn: a pause would have helped.
const PATIENCE: Duration = Duration::from_secs(3);

/// The facts that decide.
#[derive(Debug)]
struct Machine {
    emulated: bool,
    /// How many processors are online.
    online: usize,
}

/// Refuses a machine whose atomic operations are not atomic for others.
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
    // The leaf of hypervisors. Without a hypervisor it has other contents, which are not this name.
    #[allow(unused_unsafe, reason = "it is a safe function from Rust 1.94 on")]
    // SAFETY: `__cpuid` wants a processor that has the instruction: every one of 64 bits does.
    let leaf = unsafe { std::arch::x86_64::__cpuid(0x4000_0000) };
    let name = [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes);
    name.as_flattened() == b"TCGTCGTCGTCG"
}

#[cfg(target_arch = "aarch64")]
fn is_tcg() -> bool {
    /// The counter's frequency in QEMU without hardware support, up to QEMU 8. With KVM it is the host's own.
    const COUNTER_HZ: u64 = 62_500_000;
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let counter_hz: u64;
    // SAFETY: `mrs` wants a register that a program may read: Linux lets all of them read this one.
    unsafe { std::arch::asm!("mrs {}, cntfrq_el0", out(reg) counter_hz, options(nomem, nostack)) };
    let is_qemu = read("/sys/firmware/devicetree/base/compatible").contains("linux,dummy-virt")
        || read("/sys/class/dmi/id/sys_vendor").trim() == "QEMU";
    has_qemus_processor(&read("/proc/cpuinfo")) || (is_qemu && counter_hz == COUNTER_HZ)
}

/// Whether the first processor that the kernel lists is the one that QEMU invented: without a manufacturer, and with
/// the part number `Q`.
#[cfg(any(test, target_arch = "aarch64"))]
fn has_qemus_processor(cpuinfo: &str) -> bool {
    let value = |name: &str| {
        let mut lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
    };
    value("CPU implementer") == Some("0x00") && value("CPU part") == Some("0x051")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
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

/// Whether two processors run at once, or could: no single thread emulates both in turn.
fn run_at_once() -> bool {
    let allowed = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    let mut processors = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    let (Some(here), Some(there)) = (processors.next(), processors.next()) else { return false };
    let ball = Ball::default();
    thread::scope(|scope| {
        let answer = || stay_on(there) && ball.answer();
        let judge = || stay_on(here) && ball.judge();
        let Ok(_answers) = thread::Builder::new().spawn_scoped(scope, answer) else { return false };
        let judges = thread::Builder::new().spawn_scoped(scope, judge);
        let at_once = judges.is_ok_and(|judges| judges.join().unwrap_or(false));
        ball.over.store(true, Relaxed);
        at_once
    })
}

/// Tells the processor, and the emulator, that this thread only waits.
fn pause() {
    // On arm64 `spin_loop` becomes another instruction, which the emulator does not take as a request to switch.
    #[cfg(target_arch = "aarch64")]
    // SAFETY: `yield` has no requirement, and changes nothing.
    unsafe {
        std::arch::asm!("yield", options(nomem, nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "aarch64"))]
    std::hint::spin_loop();
}

fn stay_on(processor: usize) -> bool {
    let mut only = CpuSet::new();
    only.set(processor);
    sched_setaffinity(None, &only).is_ok()
}

/// The word that two threads hand to and fro.
#[derive(Default)]
struct Ball {
    /// How often it was handed over: odd while the answering thread has it.
    turn: AtomicU64,
    /// Whether the waiting thread pauses.
    pauses: AtomicBool,
    over: AtomicBool,
}

impl Ball {
    fn judge(&self) -> bool {
        let began = Instant::now();
        let mut in_turn = 0;
        while began.elapsed() < PATIENCE {
            if self.is_fast(false) {
                return true;
            }
            in_turn = if self.is_fast(true) { in_turn + 1 } else { 0 };
            if in_turn == IN_TURN {
                return false;
            }
        }
        true
    }

    /// Whether [`HANDOVERS`] handovers in a row take less than [`AT_ONCE`], at least once in a round.
    fn is_fast(&self, pauses: bool) -> bool {
        /// How often the word is read before the clock is, which may be slow.
        const LOOKS: u32 = 1 << 12;
        self.pauses.store(pauses, Relaxed);
        let began = Instant::now();
        let (mut since, mut handovers) = (began, 0);
        let mut turn = self.turn.load(Relaxed);
        loop {
            let mut looks = 0_u32;
            // The other thread may still have it from the last round.
            while !turn.is_multiple_of(2) {
                looks = looks.wrapping_add(1);
                if looks.is_multiple_of(LOOKS) && began.elapsed() > ROUND {
                    return false;
                }
                if pauses {
                    pause();
                }
                // Acquire: pairs with the Release in `answer`.
                turn = self.turn.load(Acquire);
            }
            if handovers == HANDOVERS {
                let now = Instant::now();
                if now.duration_since(since) < AT_ONCE {
                    return true;
                }
                if now.duration_since(began) > ROUND {
                    return false;
                }
                (since, handovers) = (now, 0);
            }
            turn = turn.wrapping_add(1);
            // Release: pairs with the Acquire in `answer`.
            self.turn.store(turn, Release);
            handovers += 2;
        }
    }

    /// Hands the word back whenever it comes.
    fn answer(&self) -> bool {
        while !self.over.load(Relaxed) {
            // Acquire, and Release below: pair with those in `is_fast`.
            let turn = self.turn.load(Acquire);
            if !turn.is_multiple_of(2) {
                self.turn.store(turn.wrapping_add(1), Release);
            } else if self.pauses.load(Relaxed) {
                pause();
            }
        }
        true
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
    fn the_arm64_processor_that_only_qemu_has_is_known_and_others_are_not() {
        let listed = |implementer: &str, part: &str| {
            format!("processor\t: 0\nCPU implementer\t: {implementer}\nCPU part\t: {part}\n")
        };
        assert!(has_qemus_processor(&listed("0x00", "0x051")));
        assert!(!has_qemus_processor(&listed("0x41", "0xd08")));
        assert!(!has_qemus_processor(&listed("0x41", "0x051")));
        assert!(!has_qemus_processor("processor\t: 0\nmodel name\t: other\n"));
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
