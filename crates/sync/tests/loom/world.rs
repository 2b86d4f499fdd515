//! What the scenarios share: peers with their state words, and words that threads can sleep on.
//!
//! A sleep ends by a wake-up only, so that a lost one is a deadlock that loom reports. A scenario
//! about what a waiter sees at the end of a slice calls [`World::end_slices`].

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::atomic::{AtomicU64 as Tally, Ordering::Relaxed},
};

use commonhold_layout::{Bias, Offset, Owner, PeerId, Pending, ThreadId, ThreadLife, thread_word};
use commonhold_sync::{
    Liveness, Park, Shares, Taken, Thread, ThreadSlot, Verdict, Wake, inside_of, is_inside,
    settle_bias,
};
use commonhold_window::{
    Point, at_each_point,
    atomic::{AtomicU64, Ordering},
};
use loom::{
    cell::UnsafeCell,
    sync::{Arc, Condvar, Mutex},
    thread,
};

pub(crate) const PEERS: usize = 3;
const WORDS: usize = 5;
const LIVE: u64 = 1;
/// The life word of every thread: its first incarnation, ready.
const LIFE: ThreadLife = ThreadLife::from_word(1 << 32).armed();

/// Three peers with a thread each, five words to build locks of, and data that a lock protects.
pub(crate) struct World {
    pub(crate) words: [AtomicU64; WORDS],
    pub(crate) states: [AtomicU64; PEERS],
    pub(crate) slots: [[AtomicU64; thread_word::COUNT]; PEERS],
    shares: [AtomicU64; PEERS],
    beds: [(Mutex<()>, Condvar); WORDS],
    slices_end: AtomicU64,
    /// Not one of loom's atomics: it only tells waiters that their slices are over.
    clock: Tally,
    data: UnsafeCell<u64>,
}

// SAFETY: `data` is all that is not `Sync`; loom checks that the locks under test keep accesses to it apart.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl World {
    pub(crate) fn new() -> Arc<Self> {
        let word = |_| AtomicU64::new(0);
        Arc::new(Self {
            words: std::array::from_fn(word),
            states: std::array::from_fn(|_| AtomicU64::new(LIVE)),
            slots: std::array::from_fn(|_| {
                std::array::from_fn(|word| {
                    AtomicU64::new(if word == thread_word::LIFE { LIFE.word() } else { 0 })
                })
            }),
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

    pub(crate) fn bias(peer: usize, number: u32) -> Bias {
        Bias { peer: PeerId::new(peer as u16), thread: ThreadId::FIRST, number }
    }

    fn owner(peer: usize) -> Owner {
        Owner::new(PeerId::new(peer as u16), 1, ThreadId::FIRST).unwrap()
    }

    /// What the next owner of a lock is told after `peer` has died or left it in the middle of a change.
    pub(crate) fn told_of(peer: usize) -> Taken {
        Taken::OwnerDied(Some(Self::owner(peer)))
    }

    pub(crate) fn me(&self, peer: usize) -> Thread<'_> {
        Thread::new(Self::owner(peer), &self.slots[peer], &self.states[peer], LIVE, LIFE)
    }

    /// Reaps a peer that has stopped: fences it, and settles its slot.
    pub(crate) fn bury(&self, peer: usize) {
        self.fence(peer);
        self.settle(peer);
    }

    /// Declares a peer dead, and wakes the threads that it would have woken. From now on, locks that the peer owns
    /// have a dead owner.
    pub(crate) fn fence(&self, peer: usize) {
        self.states[peer].store(0, Ordering::SeqCst);
        self.wake_for(peer);
    }

    /// Does what must be done before another peer gets the slot of a fenced peer.
    pub(crate) fn settle(&self, peer: usize) {
        // First of all: if the fenced thread still runs, it must find that the slot is no longer its own.
        let slot = ThreadSlot::new(&self.slots[peer]);
        let _ = slot.mark_dead(slot.life());
        let named = |number| Self::bias(peer, number);
        for (at, bias) in inside_of(&self.slots[peer], named) {
            settle_bias(&self.words[at.get() as usize / 8], bias, Some(Self::owner(peer)), self);
        }
        self.wake_for(peer);
    }

    fn wake_for(&self, peer: usize) {
        let pending = self.slots[peer][thread_word::PENDING].load(Ordering::SeqCst);
        if let Some(pending) = Pending::read(pending) {
            self.wake(&self.words[pending.lock.get() as usize / 8], Wake::All);
        }
    }

    /// From now on, every sleep ends at the end of its slice, also a sleep that has begun.
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

    fn spin(&self, _word: &AtomicU64, _turn: u32) -> bool {
        false
    }
}

impl Liveness for World {
    fn is_current(&self, owner: Owner) -> bool {
        self.states[usize::from(owner.peer().get())].load(Ordering::SeqCst) == LIVE
    }

    fn inside(&self, bias: Bias, at: Offset) -> Option<Owner> {
        let peer = usize::from(bias.peer.get());
        // Also if the peer is fenced: here, no other peer gets its slot.
        is_inside(&self.slots[peer], bias, at).then(|| Self::owner(peer))
    }

    fn may_bias(&self) -> bool {
        true
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

    fn owner(&self, peer: PeerId, _thread: ThreadId) -> Option<Owner> {
        let owner = World::owner(usize::from(peer.get()));
        self.is_current(owner).then_some(owner)
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

/// The world as seen by a thread that dies after `steps` calls of it: to
/// wake a thread, to sleep, to read the clock, to look for evidence.
pub(crate) struct Mortal<'a> {
    world: &'a World,
    steps: Cell<u32>,
}

/// The crash point at which a thread died, if it was at one.
struct Died(Option<Point>);

/// How the life of a [`Mortal`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Finished,
    /// At a crash point, or between two of them.
    Ended(Option<Point>),
}

std::thread_local! {
    /// Which thread of the model dies at a crash point, and after how many of them. (Loom runs all threads
    /// of a model in one of the system's.)
    static DOOMED: Cell<Option<(thread::ThreadId, u32)>> = const { Cell::new(None) };
}

fn at_point(point: Option<Point>) {
    let Some((doomed, left)) = DOOMED.get() else { return };
    if thread::current().id() != doomed {
        return;
    }
    let Some(left) = left.checked_sub(1) else {
        DOOMED.set(None);
        resume_unwind(Box::new(Died(point)));
    };
    DOOMED.set(Some((doomed, left)));
}

impl Mortal<'_> {
    /// Lets `peer` do `work` until it dies or has finished, and reaps it if it died.
    /// Returns whether it finished.
    pub(crate) fn live(
        world: &World,
        peer: usize,
        steps: u32,
        work: impl FnOnce(&Mortal<'_>),
    ) -> bool {
        let finished = Mortal { world, steps: Cell::new(steps) }.lives(work) == Life::Finished;
        if !finished {
            world.bury(peer);
        }
        finished
    }

    /// Lets a thread do `work`, pass `points` crash points, and die at the next one. It is not reaped.
    pub(crate) fn live_to_point(
        world: &World,
        points: u32,
        work: impl FnOnce(&Mortal<'_>),
    ) -> Life {
        at_each_point(|point| at_point(Some(point)));
        DOOMED.set(Some((thread::current().id(), points)));
        let life = Mortal { world, steps: Cell::new(u32::MAX) }.lives(work);
        DOOMED.set(None);
        life
    }

    fn lives(&self, work: impl FnOnce(&Self)) -> Life {
        match catch_unwind(AssertUnwindSafe(|| work(self))) {
            Ok(()) => Life::Finished,
            Err(death) => match death.downcast::<Died>() {
                Ok(died) => Life::Ended(died.0),
                Err(other) => resume_unwind(other),
            },
        }
    }

    /// A crash point of the scenario's own, for [`live_to_point`](Self::live_to_point).
    pub(crate) fn point(&self) {
        at_point(None);
    }

    /// A step of the scenario's own, for [`live`](Self::live): the thread dies here if no steps are left.
    pub(crate) fn step(&self) {
        match self.steps.get() {
            0 => resume_unwind(Box::new(Died(None))),
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

    fn spin(&self, word: &AtomicU64, turn: u32) -> bool {
        self.world.spin(word, turn)
    }
}

impl Liveness for Mortal<'_> {
    fn is_current(&self, owner: Owner) -> bool {
        self.world.is_current(owner)
    }

    fn inside(&self, bias: Bias, at: Offset) -> Option<Owner> {
        self.world.inside(bias, at)
    }

    fn may_bias(&self) -> bool {
        self.world.may_bias()
    }

    fn verdict(&self, owner: Owner) -> Verdict {
        self.step();
        self.world.verdict(owner)
    }
}

/// Runs loom's full search, with a bound on preemptions so that it ends in minutes. Prints the number of
/// interleavings (`--nocapture` shows it).
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
