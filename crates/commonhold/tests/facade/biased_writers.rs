//! Biased reader/writer locks, of a region and in its bytes: other threads see them behave like any such lock.

use std::{
    fmt::Debug,
    mem::forget,
    os::unix::fs::FileExt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    thread,
    time::Duration,
};

use commonhold::{
    Access, FormatOptions, LockError, LockKind, LockPlace, LockResult, Mapping, RegionLock, RwLock,
    Space,
};
use commonhold_layout::{BIAS_AFTER, LockWord, RegionId, region_word};

use crate::{
    fork::{DOORS, in_child},
    support::{
        DEADLINE, Role, SHORT, Scratch, ScriptedProcess, at_once, busy, fails, geometry,
        owner_died, say, stay, until_waiters,
    },
};

pub(crate) const ROLES: &[Role] = &[("writer-hold", hold), ("writer-fork", forks)];

/// How many turns it takes until a lock is biased, and has been held by the bias.
const ALONE: u64 = BIAS_AFTER + 2;
/// Where the lock in the bytes lies.
const AT: u64 = 64;

/// One of the two kinds of locks.
enum Lock {
    Region(RegionLock),
    Record(RwLock<u64>),
}

const KINDS: [&str; 2] = ["region", "record"];

type Held<'a> = Box<dyn Debug + 'a>;

fn boxed<'a>(guard: impl Debug + 'a) -> Held<'a> {
    Box::new(guard)
}

impl Lock {
    fn new(mapping: &Mapping, kind: &str) -> Self {
        match kind {
            "region" => Self::Region(mapping.region_lock().unwrap()),
            _ => Self::Record(mapping.open(AT).unwrap()),
        }
    }

    fn write(&self) -> LockResult<Held<'_>> {
        match self {
            Self::Region(lock) => lock.lock().map(boxed),
            Self::Record(lock) => lock.write().map(boxed),
        }
    }

    fn unlock(&self) {
        match self {
            Self::Region(lock) => lock.lock().unwrap().unlock().unwrap(),
            Self::Record(lock) => lock.write().unwrap().unlock().unwrap(),
        }
    }

    fn try_write(&self) -> LockResult<Option<Held<'_>>> {
        match self {
            Self::Region(lock) => lock.try_lock().map(|guard| guard.map(boxed)),
            Self::Record(lock) => lock.try_write().map(|guard| guard.map(boxed)),
        }
    }

    fn write_for(&self, time: Duration) -> LockResult<Held<'_>> {
        match self {
            Self::Region(lock) => lock.lock_for(time).map(boxed),
            Self::Record(lock) => lock.write_for(time).map(boxed),
        }
    }

    fn read(&self) -> LockResult<Held<'_>> {
        match self {
            Self::Region(lock) => lock.read_lock().map(boxed),
            Self::Record(lock) => lock.read().map(boxed),
        }
    }

    fn try_read(&self) -> LockResult<Option<Held<'_>>> {
        match self {
            Self::Region(lock) => lock.try_read_lock().map(|guard| guard.map(boxed)),
            Self::Record(lock) => lock.try_read().map(|guard| guard.map(boxed)),
        }
    }

    fn read_for(&self, time: Duration) -> LockResult<Held<'_>> {
        match self {
            Self::Region(lock) => lock.read_lock_for(time).map(boxed),
            Self::Record(lock) => lock.read_for(time).map(boxed),
        }
    }

    fn try_upgradable(&self) -> LockResult<Option<Held<'_>>> {
        match self {
            Self::Region(lock) => lock.try_upgradable_read().map(|guard| guard.map(boxed)),
            Self::Record(lock) => lock.try_upgradable_read().map(|guard| guard.map(boxed)),
        }
    }

    /// Takes it to write, and leaves it inconsistent.
    fn leave(&self) {
        match self {
            Self::Region(lock) => lock.lock().unwrap().leave_inconsistent().unwrap(),
            Self::Record(lock) => lock.write().unwrap().leave_inconsistent().unwrap(),
        }
    }

    fn repair(&self) {
        match self {
            Self::Region(lock) => drop(lock.lock_repairing(|_| Ok(())).unwrap()),
            Self::Record(lock) => drop(lock.write_repairing(|_| Ok(())).unwrap()),
        }
    }

    fn reset(&self) -> LockResult<()> {
        match self {
            Self::Region(lock) => lock.reset(),
            Self::Record(lock) => lock.reset(),
        }
    }
}

struct Existing {
    scratch: Scratch,
    space: Space,
    mapping: Mapping,
    kind: &'static str,
}

impl Existing {
    fn with(options: &FormatOptions, kind: &'static str) -> Self {
        let scratch = Scratch::with(options);
        let space = scratch.open();
        space.create("a", 4096).unwrap();
        let mapping = space.map("a", Access::ReadWrite).unwrap();
        Self { scratch, space, mapping, kind }
    }

    fn new(kind: &'static str) -> Self {
        Self::with(&Scratch::tiny(), kind)
    }

    fn lock(&self) -> Lock {
        Lock::new(&self.mapping, self.kind)
    }

    /// The writer's word. The region is the first of its space.
    fn word(&self) -> LockWord {
        if self.kind == "record" {
            return LockWord::from_word(self.mapping.get(AT).unwrap());
        }
        let (file, geometry) = geometry(&self.scratch);
        let entry = geometry.region(RegionId::new(0)).unwrap().get();
        let mut word = [0; 8];
        file.read_exact_at(&mut word, entry + 8 * region_word::LOCK as u64).unwrap();
        LockWord::from_word(u64::from_le_bytes(word))
    }

    /// The lock, biased to this thread.
    #[track_caller]
    fn biased(&self) -> Lock {
        let lock = self.lock();
        (0..ALONE).for_each(|_| lock.unlock());
        assert!(self.word().is_biased(), "{:?}", self.word());
        lock
    }

    fn holder(&self, place: &str) -> ScriptedProcess {
        let args = [self.scratch.url.as_str(), self.kind, place];
        let actor = ScriptedProcess::start("writer-hold", &args);
        actor.says("there");
        assert!(self.word().is_biased());
        actor
    }

    fn theirs(&self) -> Mapping {
        mapped(&self.scratch.url)
    }
}

fn mapped(url: &str) -> Mapping {
    Space::open(url).unwrap().map("a", Access::ReadWrite).unwrap()
}

/// Stays inside the lock by a bias, or outside.
fn hold(args: &[&str]) {
    let mapping = mapped(args[0]);
    let lock = Lock::new(&mapping, args[1]);
    (0..ALONE).for_each(|_| lock.unlock());
    let guard = (args[2] == "inside").then(|| lock.write().unwrap());
    say("there");
    stay();
    drop(guard);
}

/// The place in the error of a lock that was not taken in time.
#[track_caller]
fn timed_out<T: Debug>(result: LockResult<T>) -> LockPlace {
    match result {
        Err(LockError::TimedOut(place)) => *place,
        other => panic!("not TimedOut: {other:?}"),
    }
}

/// Every attempt reports the death until a thread repairs the data, and none after that.
#[track_caller]
fn told_until_repaired(lock: &Lock) {
    for _ in 0..2 {
        owner_died(lock.try_read());
        owner_died(lock.try_write());
        owner_died(lock.read());
        owner_died(lock.write());
        owner_died(lock.try_upgradable());
    }
    lock.repair();
    drop(at_once(lock.try_read()));
    lock.unlock();
}

#[test]
fn a_lock_is_biased_to_a_thread_that_writes_alone_until_the_first_reader_and_never_with_a_lease() {
    for kind in KINDS {
        let ground = Existing::new(kind);
        let lock = ground.lock();
        for _ in 0..BIAS_AFTER {
            lock.unlock();
            assert_eq!(ground.word(), LockWord::FREE);
        }
        lock.unlock();
        assert!(ground.word().is_biased());
        drop(lock.read().unwrap());
        for _ in 0..3 * ALONE {
            assert_eq!(ground.word(), LockWord::FREE);
            lock.unlock();
        }
        let lease = FormatOptions { lease: Some(Duration::from_secs(60)), ..Scratch::tiny() };
        let ground = Existing::with(&lease, kind);
        let lock = ground.lock();
        for _ in 0..3 * ALONE {
            lock.unlock();
            assert_eq!(ground.word(), LockWord::FREE);
        }
    }
}

#[test]
fn a_lock_that_two_peers_write_in_turn_goes_from_one_bias_to_the_other() {
    for kind in KINDS {
        let ground = Existing::new(kind);
        let mapping = ground.theirs();
        let theirs = Lock::new(&mapping, kind);
        let mut last = None;
        for _ in 0..3 {
            let ours = ground.biased();
            let word = ground.word();
            assert_ne!(last.replace(word), Some(word));
            theirs.unlock();
            assert_eq!(ground.word(), LockWord::FREE);
            (0..ALONE).for_each(|_| theirs.unlock());
            let word = ground.word();
            assert!(word.is_biased() && last.replace(word) != Some(word));
            ours.unlock();
        }
    }
}

#[test]
fn a_writer_killed_inside_by_its_bias_is_a_dead_owner_and_one_killed_outside_is_not() {
    for kind in KINDS {
        let ground = Existing::new(kind);
        let lock = ground.lock();
        ground.holder("outside").kill();
        drop(at_once(lock.try_write()));
        for revoked in [true, false] {
            let actor = ground.holder("inside");
            let pid = Some(actor.pid());
            if revoked {
                busy(lock.try_write());
                fails!(lock.reset(), LockError::TimedOut(_));
                assert_eq!(timed_out(lock.write_for(SHORT)).owner.unwrap().pid, pid);
            }
            actor.kill();
            let place = owner_died(lock.try_write());
            assert_eq!(place.owner.unwrap().pid, pid);
            lock.repair();
            lock.unlock();
        }
        ground.holder("outside").kill();
        lock.reset().unwrap();
        assert_eq!(ground.word(), LockWord::FREE);
        // Now a reader is the first to find it.
        ground.holder("outside").kill();
        drop(at_once(lock.try_read()));
        assert_eq!(ground.word(), LockWord::FREE);
        let ground = Existing::new(kind);
        ground.holder("inside").kill();
        told_until_repaired(&ground.lock());
    }
}

#[test]
fn readers_wait_for_a_biased_writer_that_is_inside_and_know_who_it_is() {
    for kind in KINDS {
        let ground = Existing::new(kind);
        let lock = ground.lock();
        let actor = ground.holder("inside");
        busy(lock.try_read());
        busy(lock.try_upgradable());
        assert_eq!(timed_out(lock.read_for(SHORT)).owner.unwrap().pid, Some(actor.pid()));
        let locks = ground.space.locks().unwrap();
        let listed: Vec<_> = locks
            .iter()
            .map(|lock| (lock.kind, lock.holder.as_ref().map(|holder| holder.pid)))
            .collect();
        assert_eq!(listed, [(LockKind::Exclusive, Some(actor.pid()))]);
        assert_eq!(ground.space.region_locks().unwrap().len(), usize::from(kind == "region"));
        actor.kill();
        told_until_repaired(&lock);
        assert!(ground.space.locks().unwrap().is_empty());
    }
}

#[test]
fn a_lock_whose_biased_writer_is_outside_is_listed_as_held_by_nobody() {
    for kind in KINDS {
        let ground = Existing::new(kind);
        let actor = ground.holder("outside");
        assert!(ground.space.locks().unwrap().is_empty());
        assert!(ground.word().is_biased());
        actor.succeed();
    }
}

#[test]
fn a_stopped_writer_holds_the_lock_if_it_is_inside_and_costs_nothing_if_it_is_outside() {
    for kind in KINDS {
        let ground = Existing::new(kind);
        let lock = ground.lock();
        for place in ["outside", "inside"] {
            let actor = ground.holder(place);
            // SAFETY: `kill` has no requirement; the process is a child of this one, and has not been waited for.
            let signal = |signal| unsafe { libc::kill(actor.pid().cast_signed(), signal) };
            assert_eq!(signal(libc::SIGSTOP), 0);
            if place == "inside" {
                busy(lock.try_write());
                timed_out(lock.write_for(SHORT));
            } else {
                drop(at_once(lock.try_write()));
            }
            assert_eq!(signal(libc::SIGCONT), 0);
            actor.succeed();
            drop(lock.write_for(DEADLINE).unwrap());
        }
        let actor = ground.holder("outside");
        // SAFETY: as above.
        assert_eq!(unsafe { libc::kill(actor.pid().cast_signed(), libc::SIGSTOP) }, 0);
        drop(at_once(lock.try_read()));
    }
}

/// The word of a region's own lock lies in the tables, not in a region.
#[test]
fn the_lock_of_a_dead_writer_is_inconsistent_after_its_slot_is_reused_or_reaped() {
    for (kind, reaped) in KINDS.into_iter().flat_map(|kind| [(kind, true), (kind, false)]) {
        let options = FormatOptions { peers: Some(2), ..Scratch::tiny() };
        let ground = Existing::with(&options, kind);
        let lock = ground.lock();
        for place in ["outside", "inside"] {
            ground.holder(place).kill();
            if reaped {
                ground.space.reap().unwrap();
                assert_eq!(ground.space.peers().unwrap().len(), 1);
            }
            // There is no other slot.
            let heir = ground.theirs();
            assert_eq!(ground.space.peers().unwrap().len(), 2);
            drop(heir);
            if place == "inside" {
                assert!(!ground.word().is_biased() && ground.word().left_by().is_some());
                told_until_repaired(&lock);
            } else {
                drop(at_once(lock.try_write()));
            }
        }
    }
}

#[test]
fn a_thread_that_ends_inside_a_biased_lock_is_a_dead_owner_of_a_living_process() {
    for kind in KINDS {
        let ground = Existing::new(kind);
        thread::scope(|scope| {
            let ends = scope.spawn(|| forget(ground.biased().write().unwrap()));
            ends.join().unwrap();
        });
        told_until_repaired(&ground.lock());
    }
}

#[test]
fn a_peer_that_detaches_with_a_forgotten_guard_is_a_dead_owner() {
    for kind in KINDS {
        let ground = Existing::new(kind);
        let theirs = ground.theirs();
        let lock = Lock::new(&theirs, kind);
        (0..ALONE).for_each(|_| lock.unlock());
        assert!(ground.word().is_biased());
        forget(lock.write().unwrap());
        drop((lock, theirs));
        assert_eq!(ground.space.peers().unwrap().len(), 1);
        told_until_repaired(&ground.lock());
    }
}

#[test]
fn a_panic_or_a_change_given_up_by_a_biased_writer_leaves_the_lock_inconsistent() {
    for kind in KINDS {
        for left in [false, true] {
            let ground = Existing::new(kind);
            let lock = ground.biased();
            if left {
                lock.leave();
            } else {
                let panicked = catch_unwind(AssertUnwindSafe(|| {
                    let _guard = lock.write().unwrap();
                    assert!(ground.word().is_biased());
                    resume_unwind(Box::new(()));
                }));
                assert!(panicked.is_err());
            }
            let theirs = ground.theirs();
            told_until_repaired(&Lock::new(&theirs, kind));
        }
    }
}

#[test]
fn a_thread_inside_by_its_bias_deadlocks_with_itself_in_every_way() {
    for kind in KINDS {
        let ground = Existing::new(kind);
        let theirs = ground.theirs();
        let other = Lock::new(&theirs, kind);
        let lock = ground.biased();
        let guard = lock.write().unwrap();
        for _ in 0..2 {
            fails!(lock.write(), LockError::Deadlock(_));
            fails!(lock.try_write(), LockError::Deadlock(_));
            fails!(lock.read(), LockError::Deadlock(_));
            fails!(lock.try_upgradable(), LockError::Deadlock(_));
            // The bias is revoked now. The thread would wait for itself.
            fails!(other.write_for(SHORT), LockError::Deadlock(_));
            fails!(other.read_for(SHORT), LockError::Deadlock(_));
        }
        drop(guard);
        drop(at_once(other.try_write()));
        // It reads, and then wants to write.
        let guard = lock.read().unwrap();
        fails!(lock.write(), LockError::Deadlock(_));
        drop(guard);
        lock.unlock();
    }
}

#[test]
fn waiting_readers_and_writers_are_woken_by_a_biased_writer_that_leaves() {
    for kind in KINDS {
        for reads in [false, true] {
            let ground = Existing::new(kind);
            let theirs = ground.theirs();
            let lock = ground.biased();
            let guard = lock.write().unwrap();
            thread::scope(|scope| {
                let waiter = scope.spawn(|| {
                    let lock = Lock::new(&theirs, kind);
                    if reads {
                        drop(lock.read_for(DEADLINE).unwrap());
                    } else {
                        drop(lock.write_for(DEADLINE).unwrap());
                    }
                });
                until_waiters(&ground.space, "a", 1);
                let graph = ground.space.wait_graph().unwrap();
                let owner = graph.locks[graph.waits[0].lock.unwrap()].owner.unwrap();
                assert_eq!(graph.threads[owner].slot, ground.space.peer().0);
                drop(guard);
                waiter.join().unwrap();
            });
            assert_eq!(ground.word(), LockWord::FREE);
        }
    }
}

#[test]
fn a_forked_child_frees_no_lock_that_its_parent_holds_by_a_bias() {
    for kind in KINDS {
        let scratch = Scratch::with(&Scratch::tiny());
        scratch.open().create("a", 4096).unwrap();
        ScriptedProcess::start("writer-fork", &[&scratch.url, kind]).succeed();
    }
}

fn forks(args: &[&str]) {
    let mapping = mapped(args[0]);
    let lock = Lock::new(&mapping, args[1]);
    let theirs = mapped(args[0]);
    let other = Lock::new(&theirs, args[1]);
    for door in DOORS {
        (0..ALONE).for_each(|_| lock.unlock());
        let guard = lock.write().unwrap();
        in_child!(door, {
            fails!(lock.write(), LockError::Forked);
            fails!(lock.read(), LockError::Forked);
            fails!(lock.try_upgradable(), LockError::Forked);
        });
        in_child!(door, drop(guard));
        busy(other.try_write());
        // Now the bias is revoked.
        in_child!(door, drop(guard));
        busy(other.try_write());
        drop(guard);
        drop(at_once(other.try_write()));
        (0..ALONE).for_each(|_| lock.unlock());
        in_child!(door, fails!(lock.write(), LockError::Forked));
        drop(at_once(other.try_write()));
    }
    drop(at_once(other.try_read()));
}
