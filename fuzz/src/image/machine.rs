//! A simulated machine, which the program of steps controls completely: its memory, its clock, and which processes are
//! alive.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::scribble::Words;
use commonhold_layout::{Evidence, Extent, PeerId};
use commonhold_space::{
    BackingMemory, BackingMemoryError, EvidenceLock, LivenessEvidence, PeerRecord, Platform, Touch,
};
use commonhold_sync::{Park, Verdict, Wake};
use commonhold_window::Window;

use super::poison;

pub(crate) const PAGE: u64 = 4096;
const PAGE_WORDS: usize = 512;
/// How many pages the window has: the tables of the largest shape, and some data.
pub(crate) const PAGES: usize = 48;
/// The size of the window in bytes.
pub(crate) const BYTES: u64 = PAGE * PAGES as u64;

/// How often an operation may call the machine. An operation waits for less than [`WAIT_MOST_NS`], and its loops are
/// bounded by the sizes of tables.
const QUESTIONS_MOST: u32 = 100_000;
/// Longer than any operation waits, including what it then does for others.
const WAIT_MOST_NS: u64 = 60_000_000_000;
/// The simulated time of reading the clock.
const LOOK_NS: u64 = 20_000;

/// Called whenever an operation calls the machine: then other peers act.
pub(crate) type Interrupt = fn();

#[derive(Debug)]
pub(crate) struct World {
    words: &'static [AtomicU64],
    backed: RefCell<[bool; PAGES]>,
    /// How many pages are free.
    pub(crate) free_pages: Cell<u32>,
    living: Cell<u128>,
    suspects: Cell<u128>,
    ended: Cell<u64>,
    clock: Cell<u64>,
    begun: Cell<u64>,
    questions: Cell<u32>,
    interrupt: Interrupt,
}

thread_local! {
    /// One window for all runs, so that a run does not have to allocate one.
    static WORDS: &'static [AtomicU64] = {
        let words: Vec<AtomicU64> = (0..PAGES * PAGE_WORDS).map(|_| AtomicU64::new(0)).collect();
        Box::leak(words.into_boxed_slice())
    };
}

impl World {
    pub(crate) fn new(free_pages: u32, interrupt: Interrupt) -> Rc<Self> {
        let words = WORDS.with(|words| *words);
        poison::forbid(words);
        Rc::new(Self {
            words,
            backed: RefCell::new([false; PAGES]),
            free_pages: Cell::new(free_pages),
            living: Cell::new(0),
            suspects: Cell::new(0),
            ended: Cell::new(0),
            clock: Cell::new(1),
            begun: Cell::new(1),
            questions: Cell::new(0),
            interrupt,
        })
    }

    pub(crate) fn machine(self: &Rc<Self>) -> Machine {
        Machine { world: Rc::clone(self), window: Window::from_words(self.words) }
    }

    /// Begins an operation: its waiting time counts from now on.
    pub(crate) fn begin(&self) -> (u64, u32) {
        (self.begun.replace(self.clock.get()), self.questions.replace(0))
    }

    /// Ends an operation; the one that it interrupted goes on.
    pub(crate) fn end(&self, (begun, questions): (u64, u32)) {
        // The time of the inner operation does not count for the outer one.
        let took = self.clock.get() - self.begun.get();
        self.begun.set(begun.saturating_add(took));
        self.questions.set(questions);
    }

    /// Moves the clock forward, while no peer does anything.
    pub(crate) fn pass(&self, ns: u64) {
        self.clock.set(self.clock.get().saturating_add(ns));
    }

    pub(crate) fn kill(&self, peer: PeerId) {
        self.living.set(self.living.get() & !bit(peer));
    }

    pub(crate) fn suspect(&self, peer: PeerId) {
        self.suspects.set(self.suspects.get() ^ bit(peer));
    }

    pub(crate) fn end_thread(&self, tid: u32) {
        self.ended.set(self.ended.get() | 1 << (tid & 63));
    }

    /// Takes memory for the page of a word, as a first touch does; false if there is none left.
    pub(crate) fn touch(&self, at: u64) -> bool {
        usize::try_from(at / PAGE).is_ok_and(|page| self.back(page))
    }

    fn back(&self, page: usize) -> bool {
        let mut backed = self.backed.borrow_mut();
        let Some(has) = backed.get_mut(page) else { return false };
        if !*has {
            let Some(left) = self.free_pages.get().checked_sub(1) else { return false };
            self.free_pages.set(left);
            *has = true;
            poison::allow(self.page(page));
            self.clear(page);
        }
        true
    }

    fn give_back(&self, page: usize) {
        let mut backed = self.backed.borrow_mut();
        let Some(has) = backed.get_mut(page) else { return };
        if std::mem::take(has) {
            self.free_pages.set(self.free_pages.get().saturating_add(1));
            poison::forbid(self.page(page));
        }
    }

    fn clear(&self, page: usize) {
        for word in self.page(page) {
            word.store(0, Ordering::Relaxed);
        }
    }

    fn page(&self, page: usize) -> &'static [AtomicU64] {
        let from = page.saturating_mul(PAGE_WORDS);
        self.words.get(from..from.saturating_add(PAGE_WORDS)).unwrap_or(&[])
    }

    /// Counts a call of an operation.
    fn asked(&self) {
        (self.interrupt)();
        let questions = self.questions.get() + 1;
        self.questions.set(questions);
        assert!(questions < QUESTIONS_MOST, "an operation goes round in circles");
        let waited = self.clock.get().saturating_sub(self.begun.get());
        assert!(waited < WAIT_MOST_NS, "an operation waits without end");
    }
}

/// The attacker's mapping of the window: touching a page takes memory for it, if there is any left.
impl Words for World {
    fn get(&self, at: u64) -> Option<u64> {
        let word = usize::try_from(at / 8).ok()?;
        self.touch(at)
            .then(|| self.words.get(word))
            .flatten()
            .map(|word| word.load(Ordering::Relaxed))
    }

    fn set(&self, at: u64, word: u64) {
        let index = usize::try_from(at / 8).unwrap_or(usize::MAX);
        if self.touch(at)
            && let Some(to) = self.words.get(index)
        {
            to.store(word, Ordering::Relaxed);
        }
    }

    fn punch(&self, at: u64) {
        let page = usize::try_from(at / PAGE).unwrap_or(usize::MAX);
        if self.backed.borrow().get(page) == Some(&true) {
            self.clear(page);
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        poison::allow(self.words);
    }
}

const fn bit(peer: PeerId) -> u128 {
    1 << (peer.get() & 127)
}

/// The machine as one peer sees it.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) world: Rc<World>,
    window: Window,
}

fn pages(extent: Extent) -> impl Iterator<Item = usize> {
    let end = if extent.is_empty() { 0 } else { extent.end().div_ceil(PAGE) };
    (extent.start().get() / PAGE..end).map_while(|page| usize::try_from(page).ok())
}

impl BackingMemory for Machine {
    fn commit(&self, extent: Extent) -> Result<(), BackingMemoryError> {
        self.world.asked();
        assert!(extent.end() <= BYTES, "memory outside the window is committed: {extent:?}");
        for page in pages(extent) {
            if !self.world.back(page) {
                return Err(BackingMemoryError::Full { errno: 28 });
            }
        }
        Ok(())
    }

    fn back(&self, extent: Extent, touch: Touch) -> Result<(), BackingMemoryError> {
        if touch == Touch::Use {
            return self.commit(extent);
        }
        self.world.asked();
        let backed = self.world.backed.borrow();
        let has = pages(extent).all(|page| backed.get(page) == Some(&true));
        if has { Ok(()) } else { Err(BackingMemoryError::Hole) }
    }

    fn resident(&self, extent: Extent) -> u64 {
        let backed = self.world.backed.borrow();
        pages(extent).filter(|page| backed.get(*page) == Some(&true)).count() as u64 * PAGE
    }

    fn release(&self, extent: Extent) -> Result<(), BackingMemoryError> {
        self.world.asked();
        assert!(extent.end() <= BYTES, "memory outside the window is released: {extent:?}");
        pages(extent).for_each(|page| self.world.give_back(page));
        Ok(())
    }
}

impl LivenessEvidence for Machine {
    fn publish(
        &self,
        peer: PeerId,
        _hold: EvidenceLock,
    ) -> Result<Option<Evidence>, BackingMemoryError> {
        self.world.asked();
        let living = self.world.living.get();
        self.world.living.set(living | bit(peer));
        Ok((living & bit(peer) == 0).then_some(Evidence::OFD_LOCK))
    }

    fn withdraw(&self, peer: PeerId) {
        self.world.kill(peer);
    }

    fn verdict(&self, record: &PeerRecord, _attaching: bool, _lease_ms: u64) -> Verdict {
        self.world.asked();
        if self.world.living.get() & bit(record.peer) == 0 {
            Verdict::Dead
        } else if self.world.suspects.get() & bit(record.peer) == 0 {
            Verdict::Alive
        } else {
            Verdict::Suspect
        }
    }

    fn thread_has_ended(&self, _record: &PeerRecord, tid: u32) -> bool {
        self.world.asked();
        self.world.ended.get() & 1 << (tid & 63) != 0
    }

    fn unix_ms(&self) -> u64 {
        self.world.clock.get() / 1_000_000
    }
}

impl Park for Machine {
    fn now(&self) -> u64 {
        self.world.pass(LOOK_NS);
        self.world.asked();
        self.world.clock.get()
    }

    fn wait(&self, word: &AtomicU64, expected: u64, until: u64) {
        let same = (word.load(Ordering::Relaxed) ^ expected).trailing_zeros() >= 32;
        let now = self.world.clock.get();
        // Nothing wakes a sleeper here: it always sleeps until its deadline. An operation that relies on a wake
        // waits too long, which `asked` detects.
        self.world.clock.set(if same { until.max(now) } else { now + 1_000 });
        self.world.asked();
    }

    fn wake(&self, _word: &AtomicU64, _who: Wake) {
        self.world.asked();
    }

    fn spin(&self, _word: &AtomicU64, _turn: u32) -> bool {
        false
    }
}

impl Platform for Machine {
    fn window(&self) -> &Window {
        &self.window
    }

    fn wait_among_kernels(&self, word: &AtomicU64, expected: u64, until: u64) {
        self.wait(word, expected, until);
    }
}
