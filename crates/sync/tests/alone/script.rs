//! A world without time: each sleep does the next thing of a script, or lasts until its end.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering},
};

use commonhold_layout::{
    Bias, Offset, Owner, PeerId, Pending, PendingKind, ThreadId, ThreadLife, thread_word,
};
use commonhold_sync::{
    DeathNotice, Liveness, Park, Shares, Taken, Thread, Verdict, Wake, is_inside,
};

const PEERS: usize = 4;
const WORDS: usize = 8;
const LIVE: u64 = 1;
const LIFE: ThreadLife = ThreadLife::from_word(1 << 32).armed();

/// What happens while somebody sleeps.
type Line = Box<dyn FnOnce(&World)>;

#[derive(Default)]
pub(crate) struct World {
    pub(crate) words: [AtomicU64; WORDS],
    states: [AtomicU64; PEERS],
    pub(crate) slots: [[AtomicU64; thread_word::COUNT]; PEERS],
    /// Peers that are dead, though nobody has fenced them.
    silent: RefCell<Vec<Owner>>,
    /// What is known of the death futex of each peer, if it has one.
    death_futexes: RefCell<[Option<DeathNotice>; PEERS]>,
    /// By whose death futexes somebody slept, in order.
    pub(crate) heard: RefCell<Vec<Vec<usize>>>,
    script: RefCell<VecDeque<Line>>,
    /// What happens when somebody is woken next.
    at_wake: RefCell<Option<Line>>,
    clock: Cell<u64>,
    /// How often somebody looked for evidence.
    pub(crate) looks: Cell<u32>,
    /// Who was woken, in order.
    pub(crate) woken: RefCell<Vec<Wake>>,
    /// What each peer had announced when somebody was woken last.
    pub(crate) announced: RefCell<[Option<PendingKind>; PEERS]>,
    /// How often somebody slept.
    pub(crate) slept: Cell<u32>,
    /// How long each of those would have slept if nothing had happened.
    pub(crate) naps: RefCell<Vec<u64>>,
    /// No mutex may be biased.
    pub(crate) leased: Cell<bool>,
}

impl World {
    pub(crate) fn new() -> Self {
        let world = Self::default();
        world.states.iter().for_each(|state| state.store(LIVE, Ordering::Relaxed));
        let lives = world.slots.iter().map(|slot| &slot[thread_word::LIFE]);
        lives.for_each(|life| life.store(LIFE.word(), Ordering::Relaxed));
        world.clock.set(1);
        world
    }

    pub(crate) fn at(word: usize) -> Offset {
        Offset::new(word as u64 * 8).unwrap()
    }

    pub(crate) fn me(&self, peer: usize) -> Thread<'_> {
        Thread::new(owner(peer), &self.slots[peer], &self.states[peer], LIVE, LIFE)
    }

    /// How much time has passed, in nanoseconds.
    pub(crate) fn passed(&self) -> u64 {
        self.clock.get() - 1
    }

    /// The peer is dead, and whoever looks for evidence finds out.
    pub(crate) fn kill(&self, peer: usize) {
        self.silent.borrow_mut().push(owner(peer));
    }

    /// The peer has a death futex from now on, which is silent or has rung.
    pub(crate) fn hang(&self, peer: usize, death_futex: DeathNotice) {
        self.death_futexes.borrow_mut()[peer] = Some(death_futex);
    }

    /// The peer has been declared dead.
    pub(crate) fn fence(&self, peer: usize) {
        self.states[peer].store(0, Ordering::Relaxed);
        self.slots[peer][thread_word::LIFE].store(LIFE.dead().word(), Ordering::Relaxed);
    }

    /// What happens in the next sleep that has no line yet.
    pub(crate) fn then(&self, line: impl FnOnce(&World) + 'static) {
        self.script.borrow_mut().push_back(Box::new(line));
    }

    /// What happens when somebody is woken next.
    pub(crate) fn at_next_wake(&self, line: impl FnOnce(&World) + 'static) {
        *self.at_wake.borrow_mut() = Some(Box::new(line));
    }

    pub(crate) fn is_nothing_pending(&self) -> bool {
        self.slots.iter().all(|slot| slot[thread_word::PENDING].load(Ordering::Relaxed) == 0)
    }
}

/// What whoever takes a lock after `peer`, which died or left it in the middle of a change, is told.
pub(crate) fn told_of(peer: usize) -> Taken {
    Taken::OwnerDied(Some(owner(peer)))
}

fn owner(peer: usize) -> Owner {
    Owner::new(PeerId::new(u16::try_from(peer).unwrap()), 1, ThreadId::FIRST).unwrap()
}

impl Park for World {
    fn now(&self) -> u64 {
        self.clock.get()
    }

    fn wait(&self, word: &AtomicU64, expected: u64, until: u64) {
        assert_eq!(word.load(Ordering::Relaxed), expected, "it sleeps on what it has not seen");
        assert_ne!(until, u64::MAX, "it sleeps for ever");
        self.slept.set(self.slept.get() + 1);
        assert!(self.slept.get() < 1000, "nothing will ever happen");
        self.naps.borrow_mut().push(until.saturating_sub(self.clock.get()));
        let line = self.script.borrow_mut().pop_front();
        match line {
            Some(line) => line(self),
            None => self.clock.set(self.clock.get().max(until)),
        }
    }

    fn wait_for(&self, owners: &[Owner], word: &AtomicU64, expected: u64, until: u64) {
        let peers = owners.iter().map(|owner| usize::from(owner.peer().get())).collect();
        self.heard.borrow_mut().push(peers);
        self.wait(word, expected, until);
    }

    fn wake(&self, _word: &AtomicU64, who: Wake) {
        self.woken.borrow_mut().push(who);
        let pending = |slot: &[AtomicU64; thread_word::COUNT]| {
            Pending::read(slot[thread_word::PENDING].load(Ordering::Relaxed))
        };
        *self.announced.borrow_mut() =
            self.slots.each_ref().map(|slot| pending(slot).map(|pending| pending.kind));
        let line = self.at_wake.borrow_mut().take();
        if let Some(line) = line {
            line(self);
        }
    }

    fn spin(&self, _word: &AtomicU64, _turn: u32) -> bool {
        false
    }
}

impl Liveness for World {
    fn is_current(&self, owner: Owner) -> bool {
        let state = self.states.get(usize::from(owner.peer().get()));
        state.is_some_and(|state| state.load(Ordering::Relaxed) == LIVE)
    }

    fn death_notice(&self, owner: Owner) -> DeathNotice {
        let known =
            self.death_futexes.borrow().get(usize::from(owner.peer().get())).copied().flatten();
        known.unwrap_or(DeathNotice::Unavailable)
    }

    fn inside(&self, bias: Bias, at: Offset) -> Option<Owner> {
        let peer = usize::from(bias.peer.get());
        let slot = self.slots.get(peer).filter(|_| bias.thread == ThreadId::FIRST)?;
        is_inside(slot, bias, at).then(|| owner(peer))
    }

    fn may_bias(&self) -> bool {
        !self.leased.get()
    }

    fn verdict(&self, owner: Owner) -> Verdict {
        self.looks.set(self.looks.get() + 1);
        if self.silent.borrow().contains(&owner) {
            self.fence(usize::from(owner.peer().get()));
        }
        if self.is_current(owner) { Verdict::Alive } else { Verdict::Dead }
    }
}

/// Readers are known by the words of their threads.
impl Shares for &World {
    fn peers(&self) -> u16 {
        PEERS as u16
    }

    fn generation(&self, peer: PeerId) -> u32 {
        u32::from(self.is_current(owner(usize::from(peer.get()))))
    }

    fn owner(&self, peer: PeerId, _: ThreadId) -> Option<Owner> {
        let owner = owner(usize::from(peer.get()));
        self.is_current(owner).then_some(owner)
    }

    fn share(&self, _: PeerId) -> Option<&AtomicU64> {
        None
    }

    fn threads(&self, _: PeerId) -> u16 {
        1
    }

    fn thread(&self, peer: PeerId, _: ThreadId) -> Option<&[AtomicU64; thread_word::COUNT]> {
        self.slots.get(usize::from(peer.get()))
    }
}
