//! A probe of device memory: whether locks work there, and what operations cost.
//!
//! # What it owns
//! The probe of a window in device memory, and the rules that judge its readings.
//!
//! # Invariants
//! 1. Locks are offered only if every reading allows it. No option overrides that: a lock that two threads can hold
//!    is worse than none.
//! 2. It writes only to the cache line of the header that is reserved for it. Others may probe at the same time: their
//!    additions fall between ours, and change no verdict.
//!
//! # What it does not do
//! It does not survive memory that ends the process; `trial_access.rs` has tried that before.

use std::{
    hint,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
    time::Instant,
};

use commonhold_layout::{Offset, header_word};
use commonhold_window::{Window, atomic::AtomicU64};

use super::emulation;
use crate::error::DeviceError;

/// Additions of each of the two threads.
const ADDITIONS: usize = 4096;
/// Operations that are timed together, so that reading the clock does not matter.
const BATCH: u32 = 128;
/// The number of batches, whose median counts.
const BATCHES: usize = 15;

/// Whether the processor caches the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cache {
    /// Memory of a file, which is always cached.
    PageCache,
    /// Cached: a lock costs the same as in any memory.
    WriteBack,
    /// Not cached: each access goes to the memory, and an atomic one stops all others.
    Uncached,
}

impl Cache {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PageCache => "page cache",
            Self::WriteBack => "write-back",
            Self::Uncached => "uncached",
        }
    }
}

/// What operations cost, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// An atomic addition without contention.
    pub atomic_ns: f64,
    /// A load.
    pub plain_ns: f64,
}

/// The result of probing the memory of a window.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Memory {
    /// Whether it is cached.
    pub cache: Cache,
    /// What operations cost there; `None` for a file, whose memory is ordinary and is not measured.
    pub cost: Option<Cost>,
}

/// The values of one word before and after an addition.
#[derive(Debug, Clone, Copy)]
struct Kept {
    before: u64,
    after: u64,
}

/// The measurements of a window.
#[derive(Debug)]
struct Readings {
    kept: Kept,
    /// The values that the additions of both threads found.
    found: Vec<u64>,
    /// The cost in the window.
    there: Cost,
    /// The cost in memory of this process.
    here: Cost,
}

/// Probes a window that is safe to touch, and whose probe word may be written.
pub(crate) fn probe(window: &Window) -> Result<Memory, DeviceError> {
    emulation::refuse()?;
    let at = Offset::new(8 * header_word::PROBE as u64);
    let word = at.and_then(|at| window.word(at).ok()).ok_or(DeviceError::KeepsNothing)?;
    judge(&read(word))
}

fn read(word: &AtomicU64) -> Readings {
    let before = word.fetch_add(1, Relaxed);
    let kept = Kept { before, after: word.load(Relaxed) };
    let found = add_from_two_threads(word);
    Readings { kept, found, there: cost(word), here: cost(&AtomicU64::new(0)) }
}

fn judge(readings: &Readings) -> Result<Memory, DeviceError> {
    let Kept { before, after } = readings.kept;
    if before == u64::MAX && after == u64::MAX {
        return Err(DeviceError::AllOnes);
    }
    if before == after {
        return Err(DeviceError::KeepsNothing);
    }
    let lost = duplicates(&readings.found);
    if lost > 0 {
        return Err(DeviceError::NotAtomic { lost, of: readings.found.len() });
    }
    let cache = cache(readings.there, readings.here);
    Ok(Memory { cache, cost: Some(readings.there) })
}

/// How many values occur twice: each stands for an addition whose result was overwritten.
fn duplicates(found: &[u64]) -> usize {
    let mut sorted = found.to_vec();
    sorted.sort_unstable();
    sorted.windows(2).filter(|pair| pair.first() == pair.last()).count()
}

/// Whether the memory is cached. A load from a cache takes a nanosecond or two, and one from memory a hundred.
/// Emulation slows both memories down alike.
fn cache(there: Cost, here: Cost) -> Cache {
    let far = |there: f64, here: f64, times: f64, more: f64| there > here * times + more;
    if far(there.plain_ns, here.plain_ns, 5.0, 25.0)
        || far(there.atomic_ns, here.atomic_ns, 8.0, 100.0)
    {
        Cache::Uncached
    } else {
        Cache::WriteBack
    }
}

/// The values that the additions of two threads at the same time found.
fn add_from_two_threads(word: &AtomicU64) -> Vec<u64> {
    let ready = AtomicU32::new(0);
    let add = || {
        // Both begin at the same time, or one would be done before the other begins. The wait is bounded: on one
        // processor the other thread may not run until this one is done.
        ready.fetch_add(1, Relaxed);
        for _ in 0..1 << 14 {
            if ready.load(Relaxed) == 2 {
                break;
            }
            thread::yield_now();
        }
        (0..ADDITIONS).map(|_| word.fetch_add(1, Relaxed)).collect::<Vec<u64>>()
    };
    thread::scope(|scope| {
        // If a second thread cannot be started, one alone still finds some faults.
        let other = thread::Builder::new().spawn_scoped(scope, add);
        let mut found = add();
        if let Ok(Ok(others)) = other.map(thread::ScopedJoinHandle::join) {
            found.extend(others);
        }
        found
    })
}

fn cost(word: &AtomicU64) -> Cost {
    Cost {
        atomic_ns: median(|| word.fetch_add(1, Relaxed)),
        plain_ns: median(|| word.load(Relaxed)),
    }
}

/// The nanoseconds of one operation: the median of several batches.
fn median(operation: impl Fn() -> u64) -> f64 {
    let mut batches = [0.0; BATCHES];
    for batch in &mut batches {
        let began = Instant::now();
        for _ in 0..BATCH {
            hint::black_box(operation());
        }
        *batch = began.elapsed().as_secs_f64() * 1e9 / f64::from(BATCH);
    }
    batches.sort_unstable_by(f64::total_cmp);
    batches.get(BATCHES / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Cost = Cost { atomic_ns: 5.0, plain_ns: 0.4 };
    const SLOW: Cost = Cost { atomic_ns: 900.0, plain_ns: 130.0 };

    fn good() -> Readings {
        let kept = Kept { before: 7, after: 8 };
        Readings { kept, found: (8..100).collect(), there: FAST, here: FAST }
    }

    #[test]
    fn ordinary_memory_passes_and_is_write_back() {
        let word = AtomicU64::new(u64::MAX - 100);
        let readings = read(&word);
        assert_eq!(readings.found.len(), 2 * ADDITIONS);
        // The measured cost is left out: it depends on the load of the machine.
        let same = Readings { there: FAST, here: FAST, ..readings };
        assert_eq!(judge(&same).unwrap(), Memory { cache: Cache::WriteBack, cost: Some(FAST) });
    }

    #[test]
    fn a_lost_addition_is_noticed_even_if_others_add_too() {
        let mut readings = good();
        // Additions of others leave gaps, and gaps are fine.
        readings.found.retain(|value| value % 3 != 0);
        assert!(judge(&readings).is_ok());
        readings.found.push(50);
        let refused = judge(&readings);
        assert!(matches!(refused, Err(DeviceError::NotAtomic { lost: 1, .. })), "{refused:?}");
    }

    #[test]
    fn additions_that_are_not_atomic_are_noticed_for_real() {
        // A load and a store instead of one addition, with another thread's additions in between.
        let word = AtomicU64::new(0);
        let stale = word.load(Relaxed);
        let mut found = add_from_two_threads(&word);
        word.store(stale, Relaxed);
        found.extend(add_from_two_threads(&word));
        assert!(duplicates(&found) > 0);
    }

    #[test]
    fn memory_that_keeps_nothing_is_refused() {
        for (before, after) in [(0, 0), (77, 77)] {
            let readings = Readings { kept: Kept { before, after }, ..good() };
            assert!(matches!(judge(&readings), Err(DeviceError::KeepsNothing)));
        }
        let kept = Kept { before: u64::MAX, after: u64::MAX };
        assert!(matches!(judge(&Readings { kept, ..good() }), Err(DeviceError::AllOnes)));
        let wraps = Kept { before: u64::MAX, after: 0 };
        assert!(judge(&Readings { kept: wraps, ..good() }).is_ok());
    }

    #[test]
    fn memory_is_uncached_if_it_is_far_slower_than_that_of_the_process() {
        assert_eq!(cache(FAST, FAST), Cache::WriteBack);
        assert_eq!(cache(SLOW, FAST), Cache::Uncached);
        // Either alone tells.
        assert_eq!(cache(Cost { atomic_ns: 900.0, ..FAST }, FAST), Cache::Uncached);
        assert_eq!(cache(Cost { plain_ns: 130.0, ..FAST }, FAST), Cache::Uncached);
        // Emulation makes everything slow; a busy neighbour makes costs uneven.
        let emulated = Cost { atomic_ns: 60.0, plain_ns: 25.0 };
        assert_eq!(cache(emulated, emulated), Cache::WriteBack);
        let uneven = Cost { atomic_ns: 20.0, plain_ns: 2.0 };
        assert_eq!(cache(uneven, FAST), Cache::WriteBack);
    }
}
