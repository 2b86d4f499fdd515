//! Simulated memories of a limited size, each with its own policy of eviction.
//!
//! `ours`, `vms` and `sieve` learn of a use by a fault only: they see no access to a mapped page, like a real pager.
//! `lru` and `optimum` see every access, which no real pager can.

use std::collections::{BTreeMap, VecDeque};

use commonhold_mm::{Answer, Residents, Step, Trace};

/// How many faults a trace has caused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// Faults that fill a page.
    pub(super) major: u64,
    /// Faults on a page that is in memory, but not mapped.
    pub(super) minor: u64,
}

/// Runs a trace of references to `pages` different pages, in a memory of `memory` pages.
pub(super) type Memory = fn(trace: &[u32], pages: usize, memory: usize) -> Faults;

/// The state of a page in `ours`.
#[derive(Debug, Clone, Copy)]
enum State {
    Absent(Option<Trace>),
    Resident { mapped: bool, referenced: bool },
}

/// The policy of the memory manager, called as the memory manager calls it.
pub(super) fn ours(trace: &[u32], pages: usize, memory: usize) -> Faults {
    let mut states = vec![State::Absent(None); pages];
    let mut residents = Residents::new();
    let mut faults = Faults::default();
    for &page in trace {
        let Some(state) = states.get_mut(at(page)) else { continue };
        match state {
            State::Resident { mapped: true, .. } => {}
            State::Resident { mapped, referenced, .. } => {
                faults.minor += 1;
                (*mapped, *referenced) = (true, true);
            }
            State::Absent(left) => {
                faults.major += 1;
                let left = *left;
                while residents.len() >= memory {
                    page_out(&mut residents, &mut states);
                }
                let inserted = residents.insert(page, left);
                if let (Ok(_), Some(state)) = (inserted, states.get_mut(at(page))) {
                    *state = State::Resident { mapped: true, referenced: false };
                }
            }
        }
    }
    faults
}

/// One round of reclaim: until a page is evicted.
fn page_out(residents: &mut Residents<u32>, states: &mut [State]) {
    let mut round = residents.round();
    while let Some(page) = residents.candidate(&mut round) {
        let Some(state) = states.get_mut(at(page.key)) else { return };
        let State::Resident { mapped, referenced } = state else { return };
        match page.step {
            Step::Probation => {
                (*mapped, *referenced) = (false, false);
                residents.answer(page.slot, Answer::Unmapped);
            }
            Step::Evict if *referenced => {
                *referenced = false;
                residents.answer(page.slot, Answer::Referenced);
            }
            Step::Evict => {
                *state = State::Absent(Some(residents.evicted(page.slot)));
                return;
            }
        }
    }
}

/// Evicts the page that was filled first.
pub(super) fn fifo(trace: &[u32], pages: usize, memory: usize) -> Faults {
    let (mut queue, mut resident) = (VecDeque::new(), vec![false; pages]);
    let mut faults = Faults::default();
    for &page in trace {
        if !set(&mut resident, page, true) {
            faults.major += 1;
            queue.push_back(page);
            if queue.len() > memory
                && let Some(gone) = queue.pop_front()
            {
                set(&mut resident, gone, false);
            }
        }
    }
    faults
}

/// Evicts the page that was not used for the longest time.
pub(super) fn lru(trace: &[u32], pages: usize, memory: usize) -> Faults {
    ordered(trace, pages, memory, |now, _| now, BTreeMap::pop_first)
}

/// Evicts the page that will not be used for the longest time (Belady, "A study of replacement algorithms for a
/// virtual-storage computer", 1966). No policy can do better.
pub(super) fn optimum(trace: &[u32], pages: usize, memory: usize) -> Faults {
    let mut next_use = vec![0; trace.len()];
    let mut seen = vec![None; pages];
    for (now, &page) in trace.iter().enumerate().rev() {
        // Pages that are never used again are equally good victims, but need different keys.
        let next = seen.get_mut(at(page)).and_then(|seen| seen.replace(now));
        if let Some(place) = next_use.get_mut(now) {
            *place = next.unwrap_or(trace.len() + now);
        }
    }
    let next = |now, _| next_use.get(now).copied().unwrap_or(usize::MAX);
    ordered(trace, pages, memory, next, BTreeMap::pop_last)
}

/// Keeps resident pages ordered by a key that each use changes; `leave` chooses the one to evict.
fn ordered(
    trace: &[u32],
    pages: usize,
    memory: usize,
    key: impl Fn(usize, u32) -> usize,
    leave: impl Fn(&mut BTreeMap<usize, u32>) -> Option<(usize, u32)>,
) -> Faults {
    let (mut order, mut keys) = (BTreeMap::new(), vec![None; pages]);
    let mut faults = Faults::default();
    for (now, &page) in trace.iter().enumerate() {
        let key = key(now, page);
        match keys.get_mut(at(page)).and_then(|old| old.replace(key)) {
            Some(old) => drop(order.remove(&old)),
            None => {
                faults.major += 1;
                let full = order.len() >= memory;
                if full && let Some((_, gone)) = leave(&mut order) {
                    set(&mut keys, gone, None);
                }
            }
        }
        order.insert(key, page);
    }
    faults
}

/// The state of a page in `vms`, and since when it waits.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Place {
    #[default]
    Absent,
    Mapped,
    Waiting(usize),
}

/// Two queues: mapped pages, and a quarter of all pages that are unmapped and wait to be used again or evicted (Turner
/// and Levy, "Segmented FIFO page replacement", 1981).
pub(super) fn vms(trace: &[u32], pages: usize, memory: usize) -> Faults {
    let (mut mapped, mut waiting) = (VecDeque::new(), VecDeque::new());
    let (mut places, mut count) = (vec![Place::Absent; pages], 0);
    let mut faults = Faults::default();
    for (now, &page) in trace.iter().enumerate() {
        match set(&mut places, page, Place::Mapped) {
            Place::Mapped => continue,
            Place::Waiting(_) => {
                faults.minor += 1;
                count -= 1;
            }
            Place::Absent => faults.major += 1,
        }
        mapped.push_back(page);
        if mapped.len() > memory - memory / 4
            && let Some(unmapped) = mapped.pop_front()
        {
            set(&mut places, unmapped, Place::Waiting(now));
            waiting.push_back((unmapped, now));
            count += 1;
        }
        while mapped.len() + count > memory
            && let Some((gone, since)) = waiting.pop_front()
        {
            // A page that was used meanwhile and waits again has another entry, further back in the queue.
            if places.get(at(gone)) == Some(&Place::Waiting(since)) {
                set(&mut places, gone, Place::Absent);
                count -= 1;
            }
        }
    }
    faults
}

/// A queue with a hand that moves through it: the hand unmaps pages that were used, and evicts the first page that was
/// not (Zhang et al., "SIEVE is simpler than LRU", 2024). To see the first use after the fill, the simulation unmaps
/// each page at once. In a real pager the rest of the same access would count as a use.
pub(super) fn sieve(trace: &[u32], pages: usize, memory: usize) -> Faults {
    // The newest page is last. `None` stands for an evicted page, until there are too many of these.
    let (mut queue, mut hand): (Vec<Option<u32>>, usize) = (Vec::new(), 0);
    let mut used = vec![None; pages];
    let (mut faults, mut count) = (Faults::default(), 0);
    for &page in trace {
        match used.get(at(page)).copied().flatten() {
            Some(true) => continue,
            Some(false) => {
                faults.minor += 1;
                set(&mut used, page, Some(true));
                continue;
            }
            None => faults.major += 1,
        }
        while count >= memory {
            let place = hand % queue.len().max(1);
            hand = place + 1;
            let Some(there) = queue.get_mut(place) else { break };
            let Some(old) = *there else { continue };
            let was_used = set(&mut used, old, Some(false)) == Some(true);
            if !was_used {
                set(&mut used, old, None);
                *there = None;
                count -= 1;
            }
        }
        if queue.len() > 2 * memory {
            hand = queue.iter().take(hand).flatten().count();
            queue.retain(Option::is_some);
        }
        queue.push(Some(page));
        set(&mut used, page, Some(false));
        count += 1;
    }
    faults
}

/// Sets the state of a page, and returns the old one.
fn set<T: Default>(all: &mut [T], page: u32, value: T) -> T {
    all.get_mut(at(page)).map_or_else(T::default, |old| std::mem::replace(old, value))
}

const fn at(page: u32) -> usize {
    page as usize
}
