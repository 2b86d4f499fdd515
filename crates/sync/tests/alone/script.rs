//! A world whose clock moves only in sleeps: each sleep runs the next line of a script, or lasts until its end.

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

/// What happens during one sleep.
type Line = Box<dyn FnOnce(&World)>;

#[derive(Default)]
pub(crate) struct World {
    pub(crate) words: [AtomicU64; WORDS],
    states: [AtomicU64; PEERS],
    pub(crate) slots: [[AtomicU64; thread_word::COUNT]; PEERS],
    /// Peers that are dead, but not fenced yet.
    silent: RefCell<Vec<Owner>>,
    /// What the death futex of each peer says, if it has one.
    notices: RefCell<[Option<DeathNotice>; PEERS]>,
    /// For each sleep that was for death futexes: the peers that they belong to.
    pub(crate) waited_for: RefCell<Vec<Vec<usize>>>,
    script: RefCell<VecDeque<Line>>,
    /// What happens at the next wake-up.
    at_wake: RefCell<Option<Line>>,
    clock: Cell<u64>,
    /// Number of looks for evidence.
    pub(crate) looks: Cell<u32>,
    /// All wake-ups, in order.
    pub(crate) woken: RefCell<Vec<Wake>>,
    /// What each peer had announced at the last wake-up.
    pub(crate) announced: RefCell<[Option<PendingKind>; PEERS]>,
    /// Number of sleeps.
    pub(crate) slept: Cell<u32>,
    /// How long each sleep would have lasted without a line of the script.
    pub(crate) naps: RefCell<Vec<u64>>,
    /// If set, no mutex may be biased.
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

    /// The peer is dead: the next look for evidence finds that, and fences it.
    pub(crate) fn kill(&self, peer: usize) {
        self.silent.borrow_mut().push(owner(peer));
    }

    /// The peer has a death futex from now on, which says this.
    pub(crate) fn set_notice(&self, peer: usize, notice: DeathNotice) {
        self.notices.borrow_mut()[peer] = Some(notice);
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

    /// What happens at the next wake-up.
    pub(crate) fn at_next_wake(&self, line: impl FnOnce(&World) + 'static) {
        *self.at_wake.borrow_mut() = Some(Box::new(line));
    }

    pub(crate) fn is_nothing_pending(&self) -> bool {
        self.slots.iter().all(|slot| slot[thread_word::PENDING].load(Ordering::Relaxed) == 0)
    }
}

/// What the next owner of a lock is told after `peer` has died or left it in the middle of a change.
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
        self.waited_for.borrow_mut().push(peers);
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
        let known = self.notices.borrow().get(usize::from(owner.peer().get())).copied().flatten();
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

/// All readers are known by words of their thread slots: there are no share words.
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
