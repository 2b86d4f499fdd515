//! What the scenarios of the family share: peers, words with a bed each, and a register of the dead.
//!
//! A sleep ends by a wake-up only, so that a lost one is a deadlock that loom reports. Where a scenario
//! is about what a waiter sees at the end of a slice, it says so ([`World::end_slices`]).

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::atomic::{AtomicU64 as Tally, Ordering::Relaxed},
};

use commonhold_layout::{Offset, Owner, PeerId, Pending, ThreadId, thread_word};
use commonhold_sync::{Liveness, Park, Shares, Thread, Verdict, Wake};
use commonhold_window::atomic::{AtomicU64, Ordering};
use loom::{
    cell::UnsafeCell,
    sync::{Arc, Condvar, Mutex},
    thread,
};

pub(crate) const PEERS: usize = 3;
const WORDS: usize = 5;
const LIVE: u64 = 1;

/// Three peers with a thread each, five words to build locks of, and data that a lock protects.
pub(crate) struct World {
    pub(crate) words: [AtomicU64; WORDS],
    pub(crate) states: [AtomicU64; PEERS],
    pub(crate) slots: [[AtomicU64; thread_word::COUNT]; PEERS],
    shares: [AtomicU64; PEERS],
    beds: [(Mutex<()>, Condvar); WORDS],
    slices_end: AtomicU64,
    /// Not loom's: it says only how often somebody has overslept, and decides nothing else.
    clock: Tally,
    data: UnsafeCell<u64>,
}

// SAFETY: the whole point: loom checks that the locks under test keep accesses to `data` apart.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl World {
    pub(crate) fn new() -> Arc<Self> {
        let word = |_| AtomicU64::new(0);
        Arc::new(Self {
            words: std::array::from_fn(word),
            states: std::array::from_fn(|_| AtomicU64::new(LIVE)),
            slots: std::array::from_fn(|_| std::array::from_fn(word)),
            shares: std::array::from_fn(word),
            beds: std::array::from_fn(|_| (Mutex::new(()), Condvar::new())),
            slices_end: AtomicU64::new(0),
            clock: Tally::new(1),
            data: UnsafeCell::new(0),
        })
    }

    pub(crate) fn at(word: usize) -> Offset {
        Offset::new(word as u64 * 8).unwrap()
    }

    fn owner(peer: usize) -> Owner {
        Owner::new(PeerId::new(peer as u16), 1, ThreadId::FIRST).unwrap()
    }

    pub(crate) fn me(&self, peer: usize) -> Thread<'_> {
        Thread::new(Self::owner(peer), &self.slots[peer], &self.states[peer], LIVE)
    }

    /// What a reaper does about a peer that has stopped: it fences it, and wakes those whom it would
    /// have woken.
    pub(crate) fn bury(&self, peer: usize) {
        self.states[peer].store(0, Ordering::SeqCst);
        let pending = self.slots[peer][thread_word::PENDING].load(Ordering::SeqCst);
        if let Some(pending) = Pending::read(pending) {
            self.wake(&self.words[pending.lock.get() as usize / 8], Wake::All);
        }
    }

    /// Every sleep ends at the end of its slice from now on, and so do those that have begun.
    pub(crate) fn end_slices(&self) {
        for (bed, woken) in &self.beds {
            let _guard = bed.lock().unwrap();
            self.slices_end.store(1, Ordering::SeqCst);
            woken.notify_all();
        }
    }

    pub(crate) fn write_data(&self) {
        // SAFETY: exclusive by the lock under test, which loom verifies.
        self.data.with_mut(|data| unsafe { *data += 1 });
    }

    pub(crate) fn read_data(&self) -> u64 {
        // SAFETY: shared by the lock under test, which loom verifies.
        self.data.with(|data| unsafe { *data })
    }

    fn bed(&self, word: &AtomicU64) -> &(Mutex<()>, Condvar) {
        let index = self.words.iter().position(|candidate| std::ptr::eq(word, candidate)).unwrap();
        &self.beds[index]
    }
}

impl Park for World {
    fn now(&self) -> u64 {
        self.clock.load(Relaxed)
    }

    fn wait(&self, word: &AtomicU64, expected: u64, until: u64) {
        let (bed, woken) = self.bed(word);
        let guard = bed.lock().unwrap();
        if word.load(Ordering::SeqCst) as u32 != expected as u32 {
            return;
        }
        if self.slices_end.load(Ordering::SeqCst) == 0 {
            drop(woken.wait(guard).unwrap());
        } else {
            drop(guard);
            thread::yield_now();
        }
        if self.slices_end.load(Ordering::SeqCst) != 0 {
            self.clock.fetch_max(until, Relaxed);
        }
    }

    fn wake(&self, word: &AtomicU64, who: Wake) {
        let (bed, woken) = self.bed(word);
        let _guard = bed.lock().unwrap();
        match who {
            Wake::One => woken.notify_one(),
            Wake::All => woken.notify_all(),
        }
    }

    fn spin(&self, _turn: u32) -> bool {
        false
    }
}

impl Liveness for World {
    fn is_current(&self, owner: Owner) -> bool {
        self.states[usize::from(owner.peer().get())].load(Ordering::SeqCst) == LIVE
    }

    fn verdict(&self, owner: Owner) -> Verdict {
        if self.is_current(owner) { Verdict::Alive } else { Verdict::Dead }
    }
}

impl Shares for &World {
    fn peers(&self) -> u16 {
        PEERS as u16
    }

    fn generation(&self, peer: PeerId) -> u32 {
        u32::from(self.is_current(World::owner(usize::from(peer.get()))))
    }

    fn share(&self, peer: PeerId) -> Option<&AtomicU64> {
        self.shares.get(usize::from(peer.get()))
    }

    fn threads(&self, _peer: PeerId) -> u16 {
        1
    }

    fn thread(&self, peer: PeerId, _thread: ThreadId) -> Option<&[AtomicU64; thread_word::COUNT]> {
        self.slots.get(usize::from(peer.get()))
    }
}

/// The world as seen by a thread that stops when it asks it for the `steps`-th time for anything: to
/// wake somebody, to sleep, to read the clock, to look for evidence.
pub(crate) struct Mortal<'a> {
    world: &'a World,
    steps: Cell<u32>,
}

struct Died;

impl Mortal<'_> {
    /// Lets `peer` do `work` until it dies or has finished, and then buries it if it died.
    /// Returns whether it finished.
    pub(crate) fn live(
        world: &World,
        peer: usize,
        steps: u32,
        work: impl FnOnce(&Mortal<'_>),
    ) -> bool {
        let mortal = Mortal { world, steps: Cell::new(steps) };
        match catch_unwind(AssertUnwindSafe(|| work(&mortal))) {
            Ok(()) => true,
            Err(death) if death.is::<Died>() => {
                world.bury(peer);
                false
            }
            Err(other) => resume_unwind(other),
        }
    }

    /// A death at this very place, if that is the step at which it dies.
    pub(crate) fn step(&self) {
        match self.steps.get() {
            0 => resume_unwind(Box::new(Died)),
            left => self.steps.set(left - 1),
        }
    }
}

impl Park for Mortal<'_> {
    fn now(&self) -> u64 {
        self.step();
        self.world.now()
    }

    fn wait(&self, word: &AtomicU64, expected: u64, until: u64) {
        self.step();
        self.world.wait(word, expected, until);
        self.step();
    }

    fn wake(&self, word: &AtomicU64, who: Wake) {
        self.step();
        self.world.wake(word, who);
        self.step();
    }

    fn spin(&self, turn: u32) -> bool {
        self.world.spin(turn)
    }
}

impl Liveness for Mortal<'_> {
    fn is_current(&self, owner: Owner) -> bool {
        self.world.is_current(owner)
    }

    fn verdict(&self, owner: Owner) -> Verdict {
        self.step();
        self.world.verdict(owner)
    }
}

/// Loom's full search, bounded in context switches so that it ends in minutes. Prints how many
/// interleavings it went through (`--nocapture` shows it).
pub(crate) fn check(preemptions: usize, scenario: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    if model.preemption_bound.is_none() {
        model.preemption_bound = Some(preemptions);
    }
    model.max_branches = 10_000;
    let ways = std::sync::Arc::new(Tally::new(0));
    let counted = std::sync::Arc::clone(&ways);
    model.check(move || {
        counted.fetch_add(1, Relaxed);
        scenario();
    });
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    println!("{name}: {} interleavings", ways.load(Relaxed));
}
