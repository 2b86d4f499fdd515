//! The region's lock and mutexes, when owners die, panic, give up, or come twice.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    time::Instant,
};

use commonhold::{Access, LockError, LockKind, LockResult, Mapping, Space};

use crate::support::{
    DEADLINE, Role, SHORT, Scratch, ScriptedProcess, at_once, busy, fails, inconsistent,
    owner_died, say, stay, until_waiters,
};

pub(crate) const ROLES: &[Role] =
    &[("lock-hold", hold), ("lock-write-pairs", write_pairs), ("lock-read-pairs", read_pairs)];

/// Takes the lock named by the third argument, says the result, and keeps the lock.
fn hold(args: &[&str]) {
    let space = Space::open(args[0]).unwrap();
    let mapping = space.map(args[1], Access::ReadWrite).unwrap();
    match args[2] {
        "write" => {
            let result = mapping.lock();
            said_and_stayed(&result);
        }
        "recover" => {
            let guard = inconsistent(mapping.lock_recover());
            say("owner died");
            stay();
            drop(guard);
        }
        "read" => {
            let result = mapping.read_lock();
            said_and_stayed(&result);
        }
        "read-deep" => {
            let results: Vec<_> = (0..10).map(|_| mapping.read_lock().unwrap()).collect();
            said_and_stayed(&Ok(results));
        }
        "mutex" => {
            let mutex = mapping.mutex(8).unwrap();
            let result = mutex.lock();
            said_and_stayed(&result);
        }
        other => panic!("{other}"),
    }
}

fn said_and_stayed<G>(result: &LockResult<G>) {
    match result {
        Ok(_) => say("clean"),
        Err(LockError::OwnerDied(_)) => say("owner died"),
        Err(error) => say(error),
    }
    stay();
}

fn holder(scratch: &Scratch, what: &str) -> ScriptedProcess {
    ScriptedProcess::start("lock-hold", &[&scratch.url, "a", what])
}

/// A space with a region `a`, and a mapping of it.
fn ground() -> (Scratch, Space, Mapping) {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    space.create("a", 4096).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    (scratch, space, mapping)
}

#[test]
fn every_thread_learns_of_a_killed_owner_of_the_regions_lock_until_one_repairs() {
    let (scratch, space, mapping) = ground();
    let actor = holder(&scratch, "write");
    actor.says("clean");
    busy(mapping.try_lock());
    let held = space.stat("a").unwrap().lock.unwrap();
    assert_eq!((held.kind, held.holder.unwrap().pid), (LockKind::Exclusive, actor.pid()));
    let pid = actor.pid();
    actor.kill();
    // Every thread that asks learns which owner it was.
    let place = owner_died(mapping.lock());
    assert_eq!((place.region.as_str(), place.offset), ("a", None));
    assert_eq!(place.owner.as_ref().unwrap().pid, Some(pid));
    assert_eq!(space.stat("a").unwrap().lock.unwrap().kind, LockKind::Inconsistent);
    assert_eq!(owner_died(mapping.try_lock()), place);
    // A thread that takes it and repairs nothing leaves it inconsistent, and is named as the last owner.
    drop(inconsistent(mapping.lock_recover()));
    assert_eq!(space.stat("a").unwrap().lock.unwrap().kind, LockKind::Inconsistent);
    // A thread that dies in the middle of the repair leaves it inconsistent.
    let actor = holder(&scratch, "recover");
    actor.says("owner died");
    let pid = actor.pid();
    actor.kill();
    assert_eq!(owner_died(mapping.lock_for(DEADLINE)).owner.unwrap().pid, Some(pid));
    let guard = inconsistent(mapping.lock_recover_for(DEADLINE));
    assert_eq!(guard.place().owner.as_ref().unwrap().pid, Some(pid));
    guard.mark_consistent().unwrap().unlock().unwrap();
    mapping.lock().unwrap().unlock().unwrap();
}

#[test]
fn a_killed_owner_leaves_its_mutex_inconsistent_and_the_neighbouring_ones_alone() {
    let (scratch, _space, mapping) = ground();
    let actor = holder(&scratch, "mutex");
    actor.says("clean");
    let mutex = mapping.mutex(8).unwrap();
    busy(mutex.try_lock());
    fails!(mutex.reset(), LockError::TimedOut(_));
    drop(at_once(mapping.mutex(0).unwrap().try_lock()));
    drop(at_once(mapping.try_lock()));
    let pid = actor.pid();
    actor.kill();
    let place = owner_died(mutex.try_lock());
    assert_eq!((place.region.as_str(), place.offset), ("a", Some(8)));
    assert_eq!(place.owner.unwrap().pid, Some(pid));
    drop(inconsistent(mutex.lock_recover()).mark_consistent().unwrap());
    mutex.lock().unwrap().unlock().unwrap();
}

#[test]
fn a_waiter_is_freed_by_the_death_of_the_owner() {
    for what in ["write", "mutex"] {
        let (scratch, space, mapping) = ground();
        let owner = holder(&scratch, what);
        owner.says("clean");
        let waiter = holder(&scratch, what);
        until_waiters(&space, "a", 1);
        let pid = owner.pid();
        owner.kill();
        waiter.says("owner died");
        waiter.kill();
        // The waiter has not taken it, so the error still names the first owner.
        let place = match what {
            "write" => owner_died(mapping.lock()),
            _ => owner_died(mapping.mutex(8).unwrap().lock()),
        };
        assert_eq!(place.owner.unwrap().pid, Some(pid));
    }
}

#[test]
fn a_killed_waiter_does_not_block_others() {
    let (scratch, space, mapping) = ground();
    let guard = mapping.lock().unwrap();
    let killed = holder(&scratch, "write");
    until_waiters(&space, "a", 1);
    let waiter = holder(&scratch, "write");
    until_waiters(&space, "a", 2);
    killed.kill();
    drop(guard);
    waiter.says("clean");
    waiter.succeed();
    drop(mapping.lock_for(DEADLINE).unwrap());
}

#[test]
fn a_lock_that_is_given_up_is_unrecoverable_until_it_is_reset_and_one_dropped_unrepaired_is_not() {
    let (scratch, space, mapping) = ground();
    for what in ["write", "mutex"] {
        let actor = holder(&scratch, what);
        actor.says("clean");
        actor.kill();
    }
    let mutex = mapping.mutex(8).unwrap();
    for _ in 0..2 {
        drop(inconsistent(mapping.lock_recover()));
        drop(inconsistent(mutex.lock_recover()));
        owner_died(mapping.lock());
        owner_died(mutex.lock());
    }
    inconsistent(mapping.lock_recover()).give_up().unwrap();
    inconsistent(mutex.lock_recover()).give_up().unwrap();
    for _ in 0..2 {
        fails!(mapping.lock(), LockError::Unrecoverable(_));
        fails!(mapping.try_lock(), LockError::Unrecoverable(_));
        fails!(mapping.lock_for(SHORT), LockError::Unrecoverable(_));
        fails!(mapping.read_lock(), LockError::Unrecoverable(_));
        fails!(mapping.try_read_lock(), LockError::Unrecoverable(_));
        fails!(mutex.lock(), LockError::Unrecoverable(_));
        fails!(mutex.try_lock(), LockError::Unrecoverable(_));
        fails!(mapping.lock_recover(), LockError::Unrecoverable(_));
        fails!(mutex.lock_recover_for(SHORT), LockError::Unrecoverable(_));
        fails!(mapping.lock_repairing(|_| Ok(())), LockError::Unrecoverable(_));
        fails!(mutex.lock_repairing(|_| Ok(())), LockError::Unrecoverable(_));
    }
    assert_eq!(space.stat("a").unwrap().lock.unwrap().kind, LockKind::Unrecoverable);
    mapping.reset_lock().unwrap();
    mutex.reset().unwrap();
    drop(mapping.read_lock().unwrap());
    drop(mapping.lock().unwrap());
    drop(mutex.lock().unwrap());
    assert!(space.locks().unwrap().is_empty());
}

#[test]
fn a_lock_that_is_held_cannot_be_reset() {
    let (_scratch, _space, mapping) = ground();
    let guard = mapping.lock().unwrap();
    fails!(mapping.reset_lock(), LockError::TimedOut(place)
        if (place.region.as_str(), place.offset) == ("a", None));
    drop(guard);
    mapping.reset_lock().unwrap();
}

#[test]
fn the_lock_of_a_dead_owner_can_be_reset_before_any_thread_takes_it_over() {
    for what in ["write", "mutex"] {
        let (scratch, _space, mapping) = ground();
        let mutex = mapping.mutex(8).unwrap();
        let dead = holder(&scratch, what);
        dead.says("clean");
        let reset = || if what == "write" { mapping.reset_lock() } else { mutex.reset() };
        fails!(reset(), LockError::TimedOut(_));
        dead.kill();
        reset().unwrap();
        drop(mapping.lock().unwrap());
        drop(mutex.lock().unwrap());
    }
}

#[test]
fn a_killed_reader_does_not_block_writers_and_leaves_nothing_to_repair() {
    for what in ["read", "read-deep"] {
        let (scratch, space, mapping) = ground();
        let actor = holder(&scratch, what);
        actor.says("clean");
        busy(mapping.try_lock());
        fails!(mapping.lock_for(SHORT), LockError::TimedOut(_));
        drop(at_once(mapping.try_read_lock()));
        assert_eq!(space.stat("a").unwrap().lock.unwrap().kind, LockKind::Shared);
        let writer = holder(&scratch, "write");
        until_waiters_or_held(&space);
        assert_eq!(writer.hear_within(SHORT), None, "a writer got past a living reader");
        actor.kill();
        writer.says("clean");
        writer.succeed();
        drop(mapping.lock().unwrap());
    }
}

/// A writer that waits for readers already owns the lock word.
fn until_waiters_or_held(space: &Space) {
    crate::support::until("the writer", || {
        space.locks().unwrap().iter().any(|lock| lock.kind == LockKind::Exclusive)
    });
}

#[test]
fn a_reader_learns_of_a_dead_writer_and_leaves_the_repair_to_the_next_writer() {
    let (scratch, _space, mapping) = ground();
    let actor = holder(&scratch, "write");
    actor.says("clean");
    busy(mapping.try_read_lock());
    fails!(mapping.read_lock_for(SHORT), LockError::TimedOut(_));
    let reader = holder(&scratch, "read");
    let pid = actor.pid();
    actor.kill();
    reader.says("owner died");
    reader.succeed();
    for _ in 0..2 {
        assert_eq!(owner_died(mapping.read_lock()).owner.unwrap().pid, Some(pid));
        assert_eq!(owner_died(mapping.try_read_lock()).owner.unwrap().pid, Some(pid));
    }
    drop(inconsistent(mapping.lock_recover()).mark_consistent().unwrap());
    drop(mapping.read_lock().unwrap());
}

#[test]
fn a_panic_leaves_the_owners_locks_inconsistent_but_not_those_taken_during_it() {
    let (_scratch, _space, mapping) = ground();
    let mutex = mapping.mutex(8).unwrap();
    let held = catch_unwind(AssertUnwindSafe(|| {
        let _guard = mapping.lock().unwrap();
        let _other = mutex.lock().unwrap();
        std::panic::resume_unwind(Box::new(()));
    }));
    assert!(held.is_err());
    owner_died(mapping.lock());
    owner_died(mutex.lock());
    drop(inconsistent(mapping.lock_recover()).mark_consistent().unwrap());
    drop(inconsistent(mutex.lock_recover()).mark_consistent().unwrap());
    // A reader has changed nothing; and a lock that is taken and freed during a panic stays consistent.
    struct Cleanup<'a>(&'a Mapping);
    impl Drop for Cleanup<'_> {
        fn drop(&mut self) {
            drop(self.0.mutex(8).unwrap().lock().unwrap());
        }
    }
    let held = catch_unwind(AssertUnwindSafe(|| {
        let _reader = mapping.read_lock().unwrap();
        let _cleanup = Cleanup(&mapping);
        std::panic::resume_unwind(Box::new(()));
    }));
    assert!(held.is_err());
    drop(mapping.lock().unwrap());
    drop(mutex.lock().unwrap());
}

#[test]
fn taking_a_lock_twice_in_one_thread_is_a_deadlock_and_changes_nothing() {
    let (_scratch, _space, mapping) = ground();
    let mutex = mapping.mutex(8).unwrap();
    let guard = mapping.lock().unwrap();
    fails!(mapping.lock(), LockError::Deadlock(_));
    fails!(mapping.try_lock(), LockError::Deadlock(_));
    fails!(mapping.lock_for(SHORT), LockError::Deadlock(_));
    fails!(mapping.read_lock(), LockError::Deadlock(_));
    fails!(mapping.try_read_lock(), LockError::Deadlock(_));
    let held = mutex.lock().unwrap();
    fails!(mutex.lock(), LockError::Deadlock(_));
    fails!(mutex.try_lock(), LockError::Deadlock(_));
    guard.unlock().unwrap();
    held.unlock().unwrap();
    drop(mapping.lock().unwrap());
    drop(mutex.lock().unwrap());
}

#[test]
fn a_reader_that_also_wants_to_write_gets_deadlock() {
    // The bug: it waited for all readers to leave, including itself, for ever.
    let (scratch, _space, mapping) = ground();
    let reader = mapping.read_lock().unwrap();
    fails!(mapping.lock(), LockError::Deadlock(_));
    fails!(mapping.try_lock(), LockError::Deadlock(_));
    fails!(mapping.lock_for(DEADLINE), LockError::Deadlock(_));
    // Nothing has changed for other readers, now or later.
    drop(at_once(mapping.try_read_lock()));
    drop(at_once(scratch.open().map("a", Access::ReadOnly).unwrap().try_read_lock()));
    drop(reader);
    drop(at_once(mapping.try_lock()));
    // No thread reads under an inconsistent lock, so to ask for it again is no deadlock, and the lock stays
    // inconsistent.
    mapping.lock().unwrap().leave_inconsistent().unwrap();
    owner_died(mapping.read_lock());
    owner_died(mapping.lock());
    drop(inconsistent(mapping.lock_recover()).mark_consistent().unwrap());
}

#[test]
fn a_timed_wait_lasts_as_long_as_asked_and_is_cut_short_by_success() {
    let (scratch, space, mapping) = ground();
    let mutex = mapping.mutex(8).unwrap();
    let owner = holder(&scratch, "write");
    owner.says("clean");
    let start = Instant::now();
    fails!(mapping.lock_for(SHORT), LockError::TimedOut(_));
    fails!(mapping.read_lock_for(SHORT), LockError::TimedOut(_));
    assert!(start.elapsed() >= SHORT * 2);
    let url = scratch.url.clone();
    let waiter = std::thread::spawn(move || {
        let mapping = Space::open(&url).unwrap().map("a", Access::ReadWrite).unwrap();
        mapping.lock_for(DEADLINE).map(drop).map_err(|error| error.to_string())
    });
    until_waiters(&space, "a", 1);
    let start = Instant::now();
    owner.succeed();
    waiter.join().unwrap().unwrap();
    assert!(start.elapsed() < DEADLINE);
    // A mutex of this process that another thread holds.
    let guard = mutex.lock().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let start = Instant::now();
            fails!(mutex.lock_for(SHORT), LockError::TimedOut(_));
            assert!(start.elapsed() >= SHORT);
        });
    });
    drop(guard);
}

#[test]
fn an_owner_that_detaches_without_freeing_its_lock_counts_as_dead() {
    let (scratch, _space, mapping) = ground();
    let other = Space::open(&scratch.url).unwrap();
    let theirs = other.map("a", Access::ReadWrite).unwrap();
    std::mem::forget(theirs.lock().unwrap());
    busy(mapping.try_lock());
    drop((theirs, other));
    owner_died(mapping.try_lock());
    drop(inconsistent(mapping.lock_recover()).mark_consistent().unwrap());
}

#[test]
fn locks_of_two_attachments_of_one_process_exclude_each_other() {
    let (scratch, _space, mapping) = ground();
    let theirs = scratch.open().map("a", Access::ReadWrite).unwrap();
    let guard = theirs.lock().unwrap();
    busy(mapping.try_lock());
    drop(guard);
    let _reader = theirs.read_lock().unwrap();
    busy(mapping.try_lock());
    drop(at_once(mapping.try_read_lock()));
}

#[test]
fn lists_show_since_when_a_lock_is_held_if_its_owner_stamps_it() {
    let (_scratch, space, mapping) = ground();
    let guard = mapping.lock().unwrap();
    assert_eq!(space.stat("a").unwrap().lock.unwrap().since, None);
    guard.stamp();
    assert!(space.stat("a").unwrap().lock.unwrap().since.is_some());
    drop(guard);
    let _guard = mapping.lock().unwrap();
    assert_eq!(space.stat("a").unwrap().lock.unwrap().since, None);
}

const ROUNDS: u64 = 3000;

/// Both numbers of a pair, and a third that counts the writers' rounds.
fn write_pairs(args: &[&str]) {
    let space = Space::open(args[0]).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    say("ready");
    stay();
    for _ in 0..ROUNDS {
        let guard = mapping.lock().unwrap();
        let number: u64 = mapping.get(0).unwrap();
        mapping.set(0, &(number + 1)).unwrap();
        // A page away, so that a torn pair has time to show.
        mapping.set(4088, &(number + 1)).unwrap();
        guard.unlock().unwrap();
    }
    say("done");
}

fn read_pairs(args: &[&str]) {
    let space = Space::open(args[0]).unwrap();
    let mapping = space.map("a", Access::ReadOnly).unwrap();
    say("ready");
    stay();
    let mut last = 0;
    for _ in 0..ROUNDS {
        let guard = mapping.read_lock().unwrap();
        let pair: (u64, u64) = (mapping.get(0).unwrap(), mapping.get(4088).unwrap());
        guard.unlock().unwrap();
        assert_eq!(pair.0, pair.1, "a torn pair");
        assert!(pair.0 >= last, "time ran backwards");
        last = pair.0;
    }
    say("done");
}

#[test]
fn readers_in_other_processes_never_see_half_of_what_writers_do() {
    let (scratch, space, mapping) = ground();
    let roles = ["lock-write-pairs", "lock-write-pairs", "lock-read-pairs", "lock-read-pairs"];
    let actors = roles.map(|role| ScriptedProcess::start(role, &[&scratch.url]));
    for actor in &actors {
        actor.says("ready");
    }
    let (sender, ended) = mpsc::channel();
    for actor in actors {
        let sender = sender.clone();
        // Their input ends here, and they wait for that.
        std::thread::spawn(move || sender.send(actor.end().success()));
    }
    for _ in roles {
        assert!(ended.recv_timeout(DEADLINE).unwrap());
    }
    assert_eq!(mapping.get::<u64>(0).unwrap(), 2 * ROUNDS);
    assert!(space.locks().unwrap().is_empty());
    drop(at_once(mapping.try_lock()));
}
